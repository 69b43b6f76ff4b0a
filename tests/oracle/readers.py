#!/usr/bin/env python3
"""Delta readers that are not ours: what each of them sums over the tables of a lake.

    readers.py LAKE [TABLE=COLUMN,COLUMN ...]

LAKE is a folder or a URL such as s3://bucket/lake (how to reach it: the AWS_* variables). Python deltalake and Polars
read the tables as Delta, wherever they are. DuckDB reads the files that deltalake lists, of a folder only: its own
extensions for Delta and S3 are not on PyPI. Spark reads too where SPARK_JARS names the folder of Delta's jars and pyspark is
there, which is not in the tests: both together are half a gigabyte.

The last line on stdout is one JSON object: reader, table, then "rows" and the sum of each column as text.
"""

import json
import os
import pathlib
import sys

import deltalake
import duckdb
import polars


def with_deltalake(uri, columns, options):
    """Sums by the query engine inside deltalake."""
    table = deltalake.DeltaTable(uri, storage_options=options)
    engine = deltalake.QueryBuilder().register("t", table)
    sums = ", ".join(f"CAST(sum({c}) AS VARCHAR) AS {c}" for c in columns)
    batch = next(iter(engine.execute(f"SELECT CAST(count(*) AS VARCHAR) AS rows, {sums} FROM t")))
    return {name: batch.column(name)[0].as_py() for name in ["rows", *columns]}


def with_polars(uri, columns, options):
    """Sums by Polars, lazily."""
    table = polars.scan_delta(uri, storage_options=options)
    sums = [polars.col(c).cast(polars.Decimal(38, 0)).sum() for c in columns]
    row = table.select(polars.len().alias("rows"), *sums).collect().row(0, named=True)
    return {name: str(int(value)) for name, value in row.items()}


def with_duckdb(uri, columns, options):
    """Sums by DuckDB over the files of the newest version."""
    files = [pathlib.Path(uri, path) for path in deltalake.DeltaTable(uri, storage_options=options).file_uris()]
    sums = ", ".join(f"CAST(sum({c}) AS VARCHAR)" for c in columns)
    read = f"SELECT CAST(count(*) AS VARCHAR), {sums} FROM read_parquet(?, hive_partitioning = false)"
    return dict(zip(["rows", *columns], duckdb.execute(read, [[str(f) for f in files]]).fetchone()))


def with_spark(uri, columns, _):
    """Sums by Spark SQL with Delta Lake."""
    from pyspark.sql import SparkSession, functions

    jars = ",".join(str(jar) for jar in pathlib.Path(os.environ["SPARK_JARS"]).glob("*.jar"))
    builder = SparkSession.builder.master("local[2]").config("spark.jars", jars).config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    catalog = "org.apache.spark.sql.delta.catalog.DeltaCatalog"
    spark = builder.config("spark.sql.catalog.spark_catalog", catalog).getOrCreate()
    exact = [functions.sum(functions.col(c).cast("decimal(38,0)")).cast("string").alias(c) for c in columns]
    table = spark.read.format("delta").load(uri)
    return table.select(functions.count("*").cast("string").alias("rows"), *exact).first().asDict()


def main():
    lake, *tables = sys.argv[1:]
    remote = "://" in lake
    readers = {"deltalake": with_deltalake, "polars": with_polars}
    if not remote:
        readers["duckdb"] = with_duckdb
        if "SPARK_JARS" in os.environ:
            readers["spark"] = with_spark
    names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"]
    options = {name: os.environ[name] for name in names if name in os.environ} if remote else None
    answer = {reader: {} for reader in readers}
    for asked in tables:
        table, _, columns = asked.partition("=")
        for reader, sums in readers.items():
            answer[reader][table] = sums(f"{lake.rstrip('/')}/{table}", columns.split(","), options)
    print(json.dumps(answer, sort_keys=True))


if __name__ == "__main__":
    main()
