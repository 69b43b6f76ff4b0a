#!/usr/bin/env python3
"""Checks what was settled, restated, adjusted and posted against the oracle's own billing lines.

    settled.py DATA_DIR ORACLE_DIR ADJUSTMENTS.csv…

For every settled day of DATA_DIR/settlement: the newest version's lines are the oracle's, rounded half to even here;
the adjustments are those of the given files, each id once; what is due is both together; and each version is the one
before plus its deltas, to the nano. The postings of DATA_DIR/lake sum to zero, and receivables to what is due.
Written from docs/settlement.md alone. Prints one line for each day. Exit code 0: all of it holds; 1: not.
"""

import argparse
import collections
import csv
import gzip
import json
import pathlib
import sys

import compare
import duckdb

KEY = ("campaign_id", "ad_id", "currency", "price_model", "price_version")
COUNTS = ("impressions", "clicks", "conversions", "cost_nanos")


def half_even(nanos):
    """Micros of an amount in nanos; a tie goes to the even one."""
    micros, rest = divmod(nanos, 1000)
    return micros + (rest > 500 or rest == 500 and micros % 2 == 1)


def oracle_lines(oracle):
    """Each day's lines by key: impressions, clicks, conversions, nanos and rounded micros."""
    names = ", ".join((*KEY, *COUNTS))
    rows = duckdb.sql(f"SELECT CAST(day AS VARCHAR), {names} FROM read_parquet('{oracle}/gold_billing_day.parquet')")
    days = collections.defaultdict(dict)
    for day, *cells in rows.fetchall():
        campaign, ad, currency, model, version, *counts = cells
        counts = tuple(map(int, counts))
        days[day][campaign, ad, currency, model, int(version)] = (*counts, half_even(counts[-1]))
    return days


def printed(lines):
    """Rows of a settlement's CSV by key (deltas have the same columns, signed)."""
    found = {}
    for row in lines:
        key = tuple(row[name].lstrip("'") for name in KEY[:-1]) + (int(row["price_version"]),)
        assert key not in found, f"{key} is there twice"
        found[key] = (*(int(row[name]) for name in COUNTS), int(row["cost_micros"]))
    return found


def lines_of(folder):
    rows = {}
    for path in sorted(folder.glob("lines-*.csv.gz")):
        with gzip.open(path, "rt", newline="") as file:
            rows |= printed(csv.DictReader(file))
    return rows


def adjustments_of(files):
    """By day: (campaign, currency, micros) of every adjustment, each id once however often it was sent."""
    rows = {}
    for path in files:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                rows[row["adjustmentId"]] = row
    days = collections.defaultdict(list)
    for row in rows.values():
        days[row["day"]].append((row["campaignId"], row["currency"], int(row["amountMicros"])))
    return days


def check_day(folder, lines, adjustments):
    """Every version of a day; what is due by campaign and currency in the newest."""
    versions = sorted(folder.glob("v=*"), key=lambda v: int(v.name[2:]))
    before = {}
    for number, version in enumerate(versions, 1):
        now = lines_of(version)
        if number > 1:
            with open(version / "deltas.csv", newline="") as file:
                deltas = printed(csv.DictReader(file))
            zero = (0,) * 5
            change = {k: tuple(a - b for a, b in zip(now.get(k, zero), before.get(k, zero))) for k in {*now, *before}}
            # A line may change in what is not billed alone: its billed differences are then all zero.
            assert all(deltas.get(k, zero) == c for k, c in change.items()), f"{version}: deltas are not the change"
            assert all(k in change for k in deltas), f"{version}: a delta of no line"
        before = now
    assert before == lines, f"{folder}: {len(before)} lines, the oracle has {len(lines)}, or they differ"
    due = collections.Counter()
    for (campaign, _, currency, *_), (*_, micros) in lines.items():
        due[campaign, currency] += micros
    for campaign, currency, micros in adjustments:
        due[campaign, currency] += micros
    manifest, by_currency = json.loads((versions[-1] / "manifest.json").read_text()), collections.Counter()
    for (_, currency), micros in due.items():
        by_currency[currency] += micros
    stated = manifest["dueMicros"]
    assert {c: by_currency[c] for c in stated} == stated and set(by_currency) <= {*stated}, (by_currency, stated)
    print(f"{folder.name}: {len(versions)} versions, {len(lines)} lines, {len(adjustments)} adjustments, due {stated}")
    return due


def check_ledger(lake, due):
    """Transactions sum to zero; receivables are what is due."""
    db = duckdb.connect()
    assert compare.load(db, "postings", compare.active_files(db, lake / "ledger/postings")), "nothing was posted"
    uneven = db.execute(
        "SELECT transaction_id, currency, sum(amount_micros) s FROM postings GROUP BY ALL HAVING s <> 0"
    ).fetchall()
    assert not uneven, f"transactions do not sum to zero: {uneven[:5]}"
    received = db.execute(
        "SELECT CAST(CAST(day AS DATE) AS VARCHAR), campaign_id, currency, sum(amount_micros) FROM postings "
        "WHERE account = 'receivable:' || campaign_id GROUP BY ALL"
    ).fetchall()
    received = {(day, campaign, currency): int(micros) for day, campaign, currency, micros in received if micros}
    assert received == due, f"receivables differ from what is due: {set(received.items()) ^ set(due.items())}"
    count = db.execute("SELECT count(*) FROM postings").fetchone()[0]
    print(f"ledger: {count} postings, {len(due)} receivables, all sums hold")


def main(argv=None):
    parser = argparse.ArgumentParser(description="Checks settlements, adjustments and postings against the oracle.")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("oracle", type=pathlib.Path)
    parser.add_argument("adjustments", nargs="*", type=pathlib.Path)
    args = parser.parse_args(argv)
    lines, adjustments, due = oracle_lines(args.oracle), adjustments_of(args.adjustments), {}
    folders = sorted((args.data / "settlement").glob("day=*"))
    missing = {day for day in lines if lines[day]} - {f.name[4:] for f in folders}
    assert not missing, f"days that were never settled: {sorted(missing)}"
    for folder in folders:
        day = folder.name[4:]
        found = check_day(folder, lines.get(day, {}), adjustments.get(day, []))
        due |= {(day, *who): micros for who, micros in found.items() if micros}
    check_ledger(args.data / "lake", due)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"settled.py: {error}")
