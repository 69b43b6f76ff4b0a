"""Spark Structured Streaming on JSON lines: event time, ids deduplicated, one-minute tumbling counts.

    spark_stream.py IN OUT SCRATCH

IN holds small files in the order of their events (by modification time). OUT becomes CSV files: minute, ad, campaign,
type, count. An id is remembered for as long as the watermark allows, which is half a minute, not a day as with us.
"""

import json
import sys

import spark
from pyspark.sql import functions as F

FILES_AT_ONCE = 10
SCHEMA = "eventId STRING, eventType STRING, timestamp BIGINT, adId STRING, campaignId STRING"


def main(folder, out, scratch):
    with spark.session(f"{scratch}/local", **{"spark.sql.shuffle.partitions": "2"}) as sql:
        lines = sql.readStream.schema(SCHEMA).option("maxFilesPerTrigger", FILES_AT_ONCE).json(folder)
        events = lines.withColumn("at", F.timestamp_millis("timestamp")).withWatermark("at", "30 seconds")
        firsts = events.dropDuplicatesWithinWatermark(["eventId"])
        cells = firsts.groupBy(F.window("at", "1 minute"), "adId", "campaignId", "eventType").count()
        rows = cells.select("window.start", "adId", "campaignId", "eventType", "count")
        stream = rows.writeStream.format("csv").outputMode("append").option("path", out)
        stream = stream.option("checkpointLocation", f"{scratch}/checkpoint").trigger(availableNow=True).start()
        stream.awaitTermination()
        print(json.dumps({"batches": len(stream.recentProgress)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
