"""Polars (streaming engine) over the files of bronze: counts of first events by ad, campaign, minute and type.

    polars_day.py LAKE DAY OUT

Two passes, as for DuckDB: only ids whose 8-byte hash occurs twice are ordered.
"""

import bronze
import polars as pl

WHAT = ["ad_id", "campaign_id", "event_type"]
ORDER = ["event_id", "ingest_time", *bronze.PLACE]


def scan(paths):
    events = pl.scan_parquet(paths, hive_partitioning=False)
    return events.filter(~pl.col("invalid").is_in(bronze.FORGED).fill_null(False))


def count(archive, day, out):
    twice = scan(archive).group_by("id_hash").len().filter(pl.col("len") > 1).select("id_hash")
    maybe = scan(archive).select("id_hash", *ORDER).join(twice, on="id_hash", how="semi")
    maybe = maybe.collect(engine="streaming").sort(ORDER)
    later = maybe.filter(~pl.col("event_id").is_first_distinct()).select(bronze.PLACE)
    first = scan(day).join(later.lazy(), on=bronze.PLACE, how="anti")
    minute = pl.col("billing_time").dt.truncate("1m").alias("minute")
    cells = first.group_by(*WHAT, minute).agg(pl.len().cast(pl.Int64).alias("events"))
    cells.sink_parquet(out, compression="zstd", engine="streaming")
    rows = pl.scan_parquet(day, hive_partitioning=False).select(pl.len()).collect().item()
    return {"rows": rows, "first": pl.scan_parquet(out).select(pl.col("events").sum()).collect().item()}


if __name__ == "__main__":
    bronze.main(count)
