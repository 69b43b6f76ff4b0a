"""ClickHouse inside the process (chdb) over the files of bronze: counts of first events by ad, campaign, minute and type.

    chdb_day.py LAKE DAY OUT

Two passes, as for DuckDB: only ids whose 8-byte hash occurs twice are ordered.
"""

import os
import pathlib
import tempfile

import bronze
from chdb import session

SETTINGS = (
    f"max_threads = {len(os.sched_getaffinity(0))}, use_hive_partitioning = 0, engine_file_truncate_on_insert = 1, "
    "use_structure_from_insertion_table_in_table_functions = 0, "
    "output_format_parquet_compression_method = 'zstd'"
)


def scan(paths):
    """Alternatives in a path must not contain slashes, and names are unique."""
    table, names = pathlib.Path(paths[0]).parents[1], ",".join(pathlib.Path(path).name for path in paths)
    return f"file('{table}/day=*/{{{names}}}', 'Parquet')"


def count(archive, day, out):
    place, honest = ", ".join(bronze.PLACE), f"coalesce(invalid, '') NOT IN {bronze.FORGED}"
    with tempfile.TemporaryDirectory() as folder:
        db = session.Session(folder)

        def run(sql):
            return db.query(f"{sql} SETTINGS {SETTINGS}", "CSV").bytes().decode().strip()

        db.query("CREATE DATABASE b ENGINE = Atomic")
        db.query("CREATE TABLE b.twice (id_hash Int64) ENGINE = Memory")
        db.query("CREATE TABLE b.later (region String, partition Int32, position Int64) ENGINE = Memory")
        run(
            f"INSERT INTO b.twice SELECT id_hash FROM {scan(archive)} WHERE {honest} GROUP BY id_hash "
            "HAVING count() > 1"
        )
        run(
            f"INSERT INTO b.later SELECT {place} FROM (SELECT {place}, row_number() OVER (PARTITION BY event_id ORDER "
            f"BY ingest_time, {place}) AS nth FROM {scan(archive)} WHERE {honest} AND id_hash IN b.twice) WHERE nth > 1"
        )
        run(
            f"INSERT INTO FUNCTION file('{out}', 'Parquet') SELECT ad_id, campaign_id, toStartOfMinute(billing_time) "
            f"AS minute, event_type, toInt64(count()) AS events FROM {scan(day)} WHERE {honest} AND ({place}) NOT IN "
            "b.later GROUP BY ad_id, campaign_id, minute, event_type"
        )
        rows, first = run(f"SELECT count() FROM {scan(day)}"), run(f"SELECT sum(events) FROM file('{out}', 'Parquet')")
        db.close()
    return {"rows": int(rows), "first": int(first)}


if __name__ == "__main__":
    bronze.main(count)
