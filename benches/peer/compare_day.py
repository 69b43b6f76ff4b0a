"""Compares a peer's table of counts with clickledger's silver, cell by cell.

    compare_day.py LAKE DAY OUT
"""

import json
import pathlib
import sys

import bronze
import duckdb
from duckdb_day import scan

NOT_FIRST = ("duplicate", "conflict", "invalid:bad_signature", "invalid:expired")


def main(lake, day, out):
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    silver = bronze.files(pathlib.Path(lake) / "silver/events")[day]
    key = "ad_id, campaign_id, epoch(date_trunc('minute', {}))::BIGINT AS minute, event_type"
    db.execute(
        f"CREATE TABLE ours AS SELECT {key.format('billing_time')}, count(*) AS events FROM {scan(silver)} "
        f"WHERE verdict NOT IN {NOT_FIRST} GROUP BY ALL"
    )
    files = f"{out}/*.parquet" if pathlib.Path(out).is_dir() else out
    db.execute(f"CREATE VIEW theirs AS SELECT {key.format('minute')}, events FROM read_parquet('{files}')")
    differ = db.execute(
        "SELECT count(*) FROM ((FROM ours EXCEPT ALL FROM theirs) UNION ALL (FROM theirs EXCEPT ALL FROM ours))"
    ).fetchone()[0]
    print(json.dumps({"cells": db.execute("SELECT count(*) FROM ours").fetchone()[0], "differ": differ}))


if __name__ == "__main__":
    main(*sys.argv[1:])
