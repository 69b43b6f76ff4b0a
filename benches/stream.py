"""The speed stage's second half: the same JSON events through our worker, Flink SQL and Spark Structured Streaming, each
deduplicating by id and counting by minute, ad, campaign and type. Every side's cells are compared with a recount."""

import json
import os
import subprocess

import measure
import peers

OURS = "clickledger, all grains"
LINES_A_FILE = 25_000
# Far after everything: lets Spark's watermark close the last minutes. Its own cell is never written.
LAST = {"eventId": "last", "eventType": "click", "timestamp": 4_102_444_800_000, "adId": "last", "campaignId": "last"}


class Side:
    """One who is measured: what starts it, where its CSV files go, what must be gone before it starts."""

    def __init__(self, command, out, clear=()):
        self.command, self.out, self.clear = command, out, clear


def run(bench):
    """Its table as Markdown lines."""
    lines = bench.work / "lines"
    lines.mkdir()
    made = measure.run([
        bench.programs["speed"], "--write-json", lines, "--events", bench.args.speed_events, "--seed", bench.args.seed,
    ]).json()
    size = measure.bytes_under(lines)
    sides = {OURS: Side([bench.programs["speed"], "--read-json", lines], lines / "*.rows.csv")}
    for name, peer, prepare in (
        ("Flink SQL", "flink", flink), ("Spark Structured Streaming, ids for 30 s", "spark", spark),
    ):
        if peer in bench.args.peers:
            try:
                sides[name] = prepare(bench, lines)
            except peers.Missing as e:
                sides[name] = e
    ran = {name: [] for name in sides}
    cells = 0
    for _ in range(bench.args.turns):
        for name, side in sides.items():
            if not isinstance(side, peers.Missing):
                cells = turn(bench, name, side, ran[name], (lines, made))
    bench.figures["stream"] = {
        **made, "bytes": size, "cells": cells, "turns": {name: [r.figures() for r in turns] for name, turns in ran.items()},
        "missing": {name: str(side) for name, side in sides.items() if isinstance(side, peers.Missing)},
    }
    return table(bench, sides, ran, bench.figures["stream"])


def turn(bench, name, side, ran, truth):
    """One run of one side, checked; the number of cells."""
    lines, made = truth
    for folder in side.clear:
        subprocess.run(["rm", "-rf", folder], check=True)
    ran.append(measure.run(side.command))
    whose = "ours" if name == OURS else "theirs"
    compare = [peers.here(), bench.here / "peer/compare_stream.py", lines / "*.ndjson", whose, side.out]
    same = measure.run(compare).json()
    if same["differ"] or same["first"] != made["first"]:
        raise SystemExit(f"{name} differs from the recount: {same}")
    return same["cells"]


def flink(bench, lines):
    """Flink reads each partition as one compressed file, which it cannot cut into pieces."""
    java, jars, folder = peers.java(), peers.flink_jars(), bench.work / "flink"
    (folder / "in").mkdir(parents=True)
    for part in lines.glob("*.ndjson"):
        subprocess.run([bench.tool("zstd"), "-q", "-3", part, "-o", folder / "in" / f"{part.name}.zst"], check=True)
    subprocess.run(["javac", "-cp", jars, "-d", folder, bench.here / "peer/FlinkStream.java"], check=True)
    out, scratch = folder / "out", folder / "scratch"
    command = [
        java, "-Xmx6g", "-Dlog4j2.level=ERROR", "-cp", f"{jars}:{folder}", "FlinkStream", folder / "in", out, scratch,
        bench.cores, "hashmap",
    ]
    return Side(command, out / "**/*", [out, scratch])


def spark(bench, lines):
    """Spark reads small files in the order of their times."""
    peers.java()
    python, folder = peers.python(peers.SPARK), bench.work / "spark"
    (folder / "in").mkdir(parents=True)
    parts = [open(part) for part in sorted(lines.glob("*.ndjson"))]
    number, left = 0, True
    while left:
        left = False
        for part in parts:
            some = [line for _, line in zip(range(LINES_A_FILE), part)]
            if some:
                left = True
                put(folder / "in", number, some)
                number += 1
    put(folder / "in", number, [json.dumps(LAST) + "\n"])
    out, scratch = folder / "out", folder / "scratch"
    return Side([python, bench.here / "peer/spark_stream.py", folder / "in", out, scratch], out / "*.csv", [out, scratch])


def put(folder, number, lines):
    path = folder / f"{number:06}.json"
    path.write_text("".join(lines))
    os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


def table(bench, sides, ran, figures):
    events, cpu = figures["events"], measure.median([r.cpu for r in ran[OURS]])

    def line(name, turns):
        if not turns:
            return f"| {name} | not measured: {sides[name]} | | | | |"
        mine = [r.cpu for r in turns]
        return (
            f"| {name} | {measure.spread(mine)} | {measure.spread([r.wall for r in turns])} | "
            f"{max(r.peak for r in turns) / 2**20:,.0f} | {events / measure.median(mine):,.0f} | "
            f"{measure.median(mine) / cpu:.1f} |"
        )

    return [
        "",
        f"The same traffic as JSON: {events:,} lines of {figures['bytes'] / events:.0f} bytes in two partitions, judged, "
        f"deduplicated, counted by minute and written as CSV; {bench.args.turns} turns of each, one after the other, "
        "process start included:",
        "",
        "| | CPU s | wall s | peak MiB | events per CPU s | times our CPU |",
        "|---|---|---|---|---|---|",
        *(line(name, turns) for name, turns in ran.items()),
        "",
        f"Checked in every turn: all {figures['cells']:,} cells (minute, ad, campaign, type) are those of a recount by "
        f"DuckDB; {figures['first']:,} events are the first of their id.",
    ]
