#!/usr/bin/env python3
"""The oracle: recounts a history from the contract alone, with DuckDB, sharing no code with the product.

    recount.py --rules rules.json --prices prices.csv [--prices later.csv] --out DIR history.ndjson [...]

`rules.json`:
    {"counting": {"max_late_seconds": 604800, "max_future_seconds": 300, "repeat_click_seconds": 86400,
                  "known_bots": ["bot"]},
     "partitions": 4, "region": "local",
     "keys": {"<keyId>": "<base64url secret>"}, "max_validity_seconds": 86400}
`keys` are the active ones; `--keys signing_keys.json` takes them from a data folder's key file instead.

It stands on what is said of an import: lines are appended in file order, the partition is Kafka's murmur2 of the
ad id, and the position counts the accepted lines of a partition from 0. Blank lines are nothing.

Writes silver_events, gold_ad_minute, gold_campaign_hour and gold_billing_day as Parquet (unrounded), verdicts.csv
(day, verdict, events) and refused.csv (reason, lines). The last line on stdout is one JSON object of totals.
"""

import argparse
import csv
import json
import multiprocessing
import os
import pathlib
import sys
import tempfile
from collections import Counter

import duckdb

import admit

CHUNK_BYTES = 4 << 20
TABLES = {
    "silver_events": "partition, position",
    "gold_ad_minute": "day, ad_id, campaign_id, minute, currency",
    "gold_campaign_hour": "day, hour, campaign_id, country, device_type, currency",
    "gold_billing_day": "day, campaign_id, ad_id, currency, price_model, price_version",
}

_edge = None


def _start(rules):
    global _edge
    _edge = admit.Edge(rules)


def _judge(chunk):
    """The rows of a chunk of lines as CSV text, and what was refused."""
    number, lines = chunk
    rows, refused = [], Counter()
    for number, line in enumerate(lines, number):
        if not line.strip():
            continue
        try:
            rows.append(",".join(map(str, _edge.row(number, line))))
        except admit.Refused as refusal:
            refused[refusal.args[0]] += 1
    return "\n".join(rows), refused


def _chunks(paths):
    """All lines of all files in order, in chunks with the number of their first line."""
    number = 1
    for path in paths:
        with open(path, "rb") as file:
            while lines := file.readlines(CHUNK_BYTES):
                yield number, [line.rstrip(b"\r\n") for line in lines]
                number += len(lines)


def judge_lines(paths, rules, out, jobs):
    """Writes the accepted rows as CSV (every field is plain ASCII without commas) and counts the refused lines."""
    refused = Counter()
    with open(out, "w") as file:
        file.write(",".join(admit.COLUMNS) + "\n")
        if jobs == 1:
            _start(rules)
            results = map(_judge, _chunks(paths))
            _collect(results, file, refused)
        else:
            with multiprocessing.get_context("fork").Pool(jobs, _start, (rules,)) as pool:
                _collect(pool.imap(_judge, _chunks(paths)), file, refused)
    return refused


def _collect(results, file, refused):
    for text, more in results:
        if text:
            file.write(text + "\n")
        refused.update(more)


def read_prices(paths):
    """The price book: every file that adds a price is a version of its own, from 1."""
    book, version = {}, 0
    for path in paths:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        added = {}
        for row in rows:
            start = admit.micros(row["validFrom"])
            if start is None:
                raise SystemExit(f"{path}: validFrom {row['validFrom']!r} is not a time")
            price = (row["model"], int(row["priceMicros"] or 0), row["currency"])
            key = (row["campaignId"], start)
            known = book.get(key) or added.get(key)
            if known and known[:3] != price:
                raise SystemExit(f"{path}: {key} has two prices")
            if not known:
                added[key] = (*price, version + 1)
        version += bool(added)
        book.update(added)
    return [(campaign, start, *price) for (campaign, start), price in sorted(book.items())]


def count(rows_csv, prices, rules):
    """A DuckDB connection that holds the counted tables."""
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false")
    columns = json.dumps(admit.COLUMNS)
    db.execute(
        f"CREATE TABLE admitted AS SELECT * FROM read_csv(?, header = true, nullstr = '', columns = {columns}, "
        "delim = ',', quote = '', escape = '', auto_detect = false)",
        [str(rows_csv)],
    )
    db.execute(
        "CREATE TABLE prices (campaign_id VARCHAR, valid_from BIGINT, model VARCHAR, price_micros BIGINT, "
        "currency VARCHAR, version INTEGER)"
    )
    if prices:
        db.executemany("INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?)", prices)
    counting = rules["counting"]
    for name in ("max_late", "max_future", "repeat_click"):
        db.execute(f"SET VARIABLE {name} = CAST({int(counting[name + '_seconds'])} AS BIGINT) * 1000000")
    db.execute("SET VARIABLE region = " + _quoted(rules["region"]))
    db.execute(pathlib.Path(__file__).with_name("count.sql").read_text())
    return db


def _quoted(text):
    return "'" + str(text).replace("'", "''") + "'"


def write(db, out, refused):
    """Writes every result table and answers with the totals."""
    for table, order in TABLES.items():
        target = _quoted(out / (table + ".parquet"))
        db.execute(f"COPY (SELECT * FROM {table} ORDER BY {order}) TO {target} (FORMAT parquet, COMPRESSION zstd)")
    target = _quoted(out / "verdicts.csv")
    db.execute(f"COPY (SELECT * FROM verdicts ORDER BY day, verdict) TO {target} (HEADER)")
    (out / "refused.csv").write_text("reason,lines\n" + "".join(f"{r},{n}\n" for r, n in sorted(refused.items())))
    events = db.execute("SELECT count(*) FROM silver").fetchone()[0]
    verdicts = dict(db.execute("SELECT verdict, sum(events)::BIGINT FROM verdicts GROUP BY ALL ORDER BY ALL").fetchall())
    days = [str(day) for (day,) in db.execute("SELECT DISTINCT day FROM verdicts ORDER BY day").fetchall()]
    return {"events": events, "refused": dict(sorted(refused.items())), "verdicts": verdicts, "days": days}


def main(argv=None):
    parser = argparse.ArgumentParser(description="Recounts a history from the contract alone.")
    parser.add_argument("events", nargs="+", help="NDJSON files, in the order of their import")
    parser.add_argument("--rules", required=True, type=pathlib.Path)
    parser.add_argument("--prices", action="append", default=[], help="price files, in the order of their import")
    parser.add_argument("--keys", type=pathlib.Path, help="the key file of a data folder")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(argv)
    rules = json.loads(args.rules.read_text())
    if args.keys:
        listed = json.loads(args.keys.read_text())["keys"]
        rules["keys"] = {key["id"]: key["secret"] for key in listed if key["status"] == "active"}
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        rows = pathlib.Path(scratch) / "rows.csv"
        refused = judge_lines(args.events, rules, rows, args.jobs)
        totals = write(count(rows, read_prices(args.prices), rules), args.out, refused)
    print(json.dumps(totals))
    return totals


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
