"""Spark SQL over the files of bronze: counts of first events by ad, campaign, minute and type.

    spark_day.py LAKE DAY OUT

Two passes, as for DuckDB: only ids whose 8-byte hash occurs twice are ordered.
"""

import tempfile

import bronze
import spark
from pyspark.sql import Window
from pyspark.sql import functions as F


def count(archive, day, out):
    with tempfile.TemporaryDirectory() as folder, spark.session(folder, **{"spark.sql.shuffle.partitions": "16"}) as sql:

        def scan(paths):
            forged = F.coalesce(F.col("invalid").isin(*bronze.FORGED), F.lit(False))
            return sql.read.parquet(*paths).filter(~forged)

        twice = scan(archive).groupBy("id_hash").count().filter("count > 1").select("id_hash")
        order = Window.partitionBy("event_id").orderBy("ingest_time", *bronze.PLACE)
        maybe = scan(archive).join(twice, "id_hash", "left_semi").withColumn("nth", F.row_number().over(order))
        later = maybe.filter("nth > 1").select(*bronze.PLACE)
        first = scan(day).join(F.broadcast(later), bronze.PLACE, "left_anti")
        minute = F.date_trunc("minute", "billing_time").alias("minute")
        cells = first.groupBy("ad_id", "campaign_id", minute, "event_type").agg(F.count("*").alias("events"))
        cells.write.mode("overwrite").parquet(out)
        total = sql.read.parquet(out).agg(F.sum("events")).first()[0]
        return {"rows": sql.read.parquet(*day).count(), "first": total}


if __name__ == "__main__":
    bronze.main(count)
