#!/usr/bin/env python3
"""Compares the lake with the oracle: every row of silver and gold, unrounded, both ways.

    compare.py LAKE_DIR ORACLE_DIR [--files files.json] [--at TABLE=VERSION] [--days 2026-03-02,2026-03-03]

LAKE_DIR is the root of the Delta tables; the active files are read from each `_delta_log` (at its newest version, or
at the one given by `--at gold/ad_minute=12`). `--files` names them instead: a JSON object from table to a glob, a
list of paths, or a list of {"path", "day"}. Reads with DuckDB's Parquet reader only.

Prints one line for each table and the first rows that differ. Exit code 0: identical; 1: not.
"""

import argparse
import json
import pathlib
import re
import sys
import urllib.parse

import duckdb

# The oracle's table: where the lake has it. Columns compared are the oracle's; the lake may have more.
TABLES = {
    "silver_events": "silver/events",
    "gold_ad_minute": "gold/ad_minute",
    "gold_campaign_hour": "gold/campaign_hour",
    "gold_billing_day": "gold/billing_day",
}
SHOWN = 10


class Unreadable(Exception):
    """The lake is not what the comparison stands on."""


def active_files(db, table, version=None):
    """The (path, day) of every file of a Delta table, by its log."""
    log = table / "_delta_log"
    if not log.is_dir():
        raise Unreadable(f"{table} is not a Delta table")
    commits = {int(p.stem): p for p in log.glob("*.json") if p.stem.isdigit()}
    checkpoints = {int(p.name[:20]): p for p in log.glob("*.checkpoint.parquet") if p.name[:20].isdigit()}
    last = max([*commits, *checkpoints]) if version is None else version
    files, start = {}, 0
    usable = [v for v in checkpoints if v <= last]
    if 0 not in commits and usable:
        start = max(usable) + 1
        for path, values in db.execute(
            "SELECT add.path, add.partitionValues FROM read_parquet(?) WHERE add.path IS NOT NULL",
            [str(checkpoints[start - 1])],
        ).fetchall():
            files[path] = dict(values)
    for number in range(start, last + 1):
        if number not in commits:
            raise Unreadable(f"{table} has no commit {number}")
        for line in commits[number].read_text().splitlines():
            action = json.loads(line) if line.strip() else {}
            if remove := action.get("remove"):
                files.pop(remove["path"], None)
            if add := action.get("add"):
                if add.get("deletionVector"):
                    raise Unreadable(f"{table} has deletion vectors")
                files[add["path"]] = add.get("partitionValues", {})
    return [(str(table / urllib.parse.unquote(path)), values.get("day")) for path, values in sorted(files.items())]


def given_files(entry):
    """The (path, day) of files that a caller names; the day stands in the path if nowhere else."""
    if isinstance(entry, str):
        pattern = pathlib.Path(entry)
        entry = [str(p) for p in sorted(pathlib.Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))))]
    files = []
    for item in entry:
        path, day = (item["path"], item.get("day")) if isinstance(item, dict) else (item, None)
        found = re.search(r"day=(\d{4}-\d{2}-\d{2})", path)
        files.append((path, day or (found and found.group(1))))
    return files


def load(db, name, files):
    """Makes a table of all files, with the day of each as a column where the file has none."""
    db.execute(f"DROP TABLE IF EXISTS {name}")
    by_day = {}
    for path, day in files:
        by_day.setdefault(day, []).append(path)
    parts = []
    for day, paths in by_day.items():
        source = f"read_parquet({paths!r}, hive_partitioning = false)"
        columns = [row[0] for row in db.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
        given = "" if "day" in columns or day is None else f", DATE '{day}' AS day"
        parts.append(f"SELECT *{given} FROM {source}")
    if parts:
        db.execute(f"CREATE TABLE {name} AS " + " UNION ALL BY NAME ".join(parts))
    return bool(parts)


def plain(column, kind):
    """A column as a value that does not depend on how a writer typed it."""
    if kind.startswith("TIMESTAMP"):
        return f"epoch_us({column}) AS {column}"
    if column == "day":
        return "CAST(day AS DATE) AS day"
    if kind.startswith(("DECIMAL", "HUGEINT", "UHUGEINT")):
        return f"CAST({column} AS DECIMAL(38, 0)) AS {column}"
    if "INT" in kind:
        return f"CAST({column} AS BIGINT) AS {column}"
    return column


def columns(db, name):
    return {row[0]: row[1] for row in db.execute(f"DESCRIBE {name}").fetchall()}


def compare_table(db, days):
    """The differences of `ours` and `theirs` as (row count, row count, problems)."""
    ours, theirs = columns(db, "ours"), columns(db, "theirs")
    where = f" WHERE CAST(day AS DATE) IN ({', '.join(repr(d) for d in days)})" if days else ""
    missing = [c for c in theirs if c not in ours]
    shared = [c for c in theirs if c in ours]

    def rows(name, kinds):
        return f"SELECT {', '.join(plain(c, kinds[c]) for c in shared)} FROM {name}{where}"

    problems = [f"the lake has no column {c}" for c in missing]
    left, right = rows("ours", ours), rows("theirs", theirs)
    for title, sql in (("only in the lake", f"{left} EXCEPT ALL {right}"), ("only in the oracle", f"{right} EXCEPT ALL {left}")):
        number = db.execute(f"SELECT count(*) FROM ({sql})").fetchone()[0]
        if number:
            shown = db.execute(f"SELECT * FROM ({sql}) ORDER BY ALL LIMIT {SHOWN}").fetchall()
            problems.append(f"{number} rows {title}, first: ({', '.join(shared)})")
            problems += ["    " + ", ".join(map(str, row)) for row in shown]
    sizes = [db.execute(f"SELECT count(*) FROM {name}{where}").fetchone()[0] for name in ("ours", "theirs")]
    return (*sizes, problems)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Compares the lake with the oracle, row by row.")
    parser.add_argument("lake", type=pathlib.Path)
    parser.add_argument("oracle", type=pathlib.Path)
    parser.add_argument("--files", type=pathlib.Path, help="JSON: table to the files to read")
    parser.add_argument("--at", action="append", default=[], metavar="TABLE=VERSION")
    parser.add_argument("--days", default="", help="only these days, separated by commas")
    args = parser.parse_args(argv)
    versions = {table: int(v) for table, v in (pin.split("=", 1) for pin in args.at)}
    named = json.loads(args.files.read_text()) if args.files else None
    days = [d for d in args.days.split(",") if d]
    db, differs = duckdb.connect(), False
    db.execute("SET TimeZone = 'UTC'")
    db.execute("SET enable_progress_bar = false")
    print(f"{'table':<20}{'lake rows':>12}{'oracle rows':>13}  verdict")
    for table, place in TABLES.items():
        try:
            if named is not None:
                files = given_files(named.get(place, []))
            else:
                files = active_files(db, args.lake / place, versions.get(place))
            if not load(db, "ours", files):
                raise Unreadable(f"{place} has no file")
            load(db, "theirs", [(str(args.oracle / f"{table}.parquet"), None)])
            ours, theirs, problems = compare_table(db, days)
        except Unreadable as why:
            ours, theirs, problems = 0, 0, [str(why)]
        print(f"{place:<20}{ours:>12}{theirs:>13}  {'DIFFERS' if problems else 'identical'}")
        for problem in problems:
            print("  " + problem)
        differs |= bool(problems)
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
