"""The batch stage's peer, a process of its own so that it can be measured: DuckDB over the files of bronze.

    duckdb_day.py count LAKE DAY event_id|id_hash OUT      writes the counts of first events, prints their sum
    duckdb_day.py compare LAKE DAY OUT                     compares OUT with clickledger's silver, cell by cell

Which files are a table's is read from the Delta log: files that were merged away are still on the disk.
"""

import json
import pathlib
import sys
import urllib.parse

import duckdb

FORGED = "('bad_signature', 'expired')"


def files(table):
    """The table's data files by day."""
    live = {}
    for commit in sorted((table / "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                live[action["add"]["path"]] = action["add"]["partitionValues"]["day"]
            elif "remove" in action:
                live.pop(action["remove"]["path"], None)
    days = {}
    for path, day in live.items():
        days.setdefault(day, []).append(str(table / urllib.parse.unquote(path)))
    return days


def scan(paths):
    return "read_parquet([" + ", ".join(f"'{p}'" for p in paths) + "], hive_partitioning = false)"


def count(lake, day, ids, out):
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false; SET preserve_insertion_order = false")
    days = files(lake / "bronze/events")
    view = f"SELECT *, coalesce(invalid IN {FORGED}, false) AS forged FROM "
    db.execute(f"CREATE VIEW archive AS {view}{scan(sum(days.values(), []))}")
    db.execute(f"CREATE VIEW day AS {view}{scan(days[day])}")
    sql = pathlib.Path(__file__).with_name("batch_day.sql").read_text()
    db.execute(sql.replace("{ids}", ids).replace("{out}", out))
    cells, events = db.execute(f"SELECT count(*), sum(events)::BIGINT FROM '{out}'").fetchone()
    rows = db.execute("SELECT count(*) FROM day").fetchone()[0]
    later = db.execute("SELECT count(*) FROM later").fetchone()[0]
    return {"rows": rows, "first": events, "cells": cells, "later": later, "duckdb": duckdb.__version__}


def compare(lake, day, out):
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false")
    db.execute(
        "CREATE TABLE ours AS SELECT ad_id, campaign_id, date_trunc('minute', billing_time) AS minute, event_type, "
        f"count(*) AS events FROM {scan(files(lake / 'silver/events')[day])} WHERE verdict NOT IN ('duplicate', "
        "'conflict', 'invalid:bad_signature', 'invalid:expired') GROUP BY ALL"
    )
    differ = db.execute(
        f"SELECT count(*) FROM ((FROM ours EXCEPT FROM '{out}') UNION ALL (FROM '{out}' EXCEPT FROM ours))"
    ).fetchone()[0]
    cells, events = db.execute("SELECT count(*), sum(events)::BIGINT FROM ours").fetchone()
    return {"cells": cells, "first": events, "differ": differ}


def main(what, lake, day, *rest):
    print(json.dumps({"count": count, "compare": compare}[what](pathlib.Path(lake), day, *rest)))


if __name__ == "__main__":
    main(*sys.argv[1:])
