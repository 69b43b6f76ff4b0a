"""Counts the stream by itself and compares every side's cells (minute, ad, campaign, type) with that.

    compare_stream.py LINES ours|theirs OUT       LINES: JSON files; OUT: CSV files

Our rows change while their minute is open, with absolute values, so the greatest of a cell is its last.
"""

import json
import sys

import duckdb

COUNTED = (
    "SELECT \"timestamp\" // 60000 * 60 AS minute, adId AS ad, campaignId AS campaign, eventType AS type, "
    "count(DISTINCT eventId) AS n FROM read_json({lines}, format = 'newline_delimited', columns = {{eventId: 'VARCHAR', "
    "eventType: 'VARCHAR', timestamp: 'BIGINT', adId: 'VARCHAR', campaignId: 'VARCHAR'}}) GROUP BY ALL"
)
OURS = (
    "UNPIVOT (SELECT column0 AS minute, column1 AS ad, column2 AS campaign, max(column3) AS impression, "
    "max(column4) AS click, max(column5) AS conversion FROM {out} GROUP BY ALL) "
    "ON impression, click, conversion INTO NAME type VALUE n"
)
THEIRS = (
    "SELECT epoch(column0::TIMESTAMPTZ)::BIGINT AS minute, column1 AS ad, column2 AS campaign, column3 AS type, "
    "column4 AS n FROM {out}"
)


def main(lines, whose, out):
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    rows = f"read_csv('{out}', header = false)"
    side = (OURS if whose == "ours" else THEIRS).format(out=rows)
    db.execute(f"CREATE TABLE counted AS {COUNTED.format(lines=repr(lines))}")
    db.execute(f"CREATE TABLE side AS SELECT minute, ad, campaign, type, n FROM ({side}) WHERE n > 0")
    differ = db.execute(
        "SELECT count(*) FROM ((FROM counted EXCEPT ALL FROM side) UNION ALL (FROM side EXCEPT ALL FROM counted))"
    ).fetchone()[0]
    cells, events = db.execute("SELECT count(*), sum(n)::BIGINT FROM counted").fetchone()
    print(json.dumps({"cells": cells, "first": events, "differ": differ}))


if __name__ == "__main__":
    main(*sys.argv[1:])
