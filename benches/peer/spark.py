"""A Spark session of two threads in this process's own JVM, ended so that its CPU seconds are this process's."""

import contextlib
import os

from pyspark.sql import SparkSession


@contextlib.contextmanager
def session(folder, **settings):
    """A local session whose scratch files go under `folder`."""
    cores = len(os.sched_getaffinity(0))
    builder = SparkSession.builder.master(f"local[{cores}]").config("spark.driver.memory", "4g")
    settings = {
        "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.local.dir": folder, "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.compression.codec": "zstd", "spark.log.level": "ERROR", **settings,
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    gateway = spark.sparkContext._gateway
    try:
        yield spark
    finally:
        spark.stop()
        gateway.shutdown()
        # A waited-for child is in this process's CPU seconds.
        gateway.proc.stdin.close()
        gateway.proc.wait()
