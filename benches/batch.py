"""Stage batch: a simulated day through import, archive and merge; then `clickledger batch run` beside other engines on
the very same bronze files."""

import datetime
import itertools
import shutil

import measure
import peers

DAY = "2026-01-05"
ADS = 100_000
# What bronze and silver call events that are not the first of their id, and those that claim no id.
LATER = ("duplicate", "conflict")
FORGED = ("invalid:bad_signature", "invalid:expired")
# A memory limit at which a day of 20 million events spills.
LITTLE = "256MiB"
OURS = "`clickledger batch run --force`"


def sides(bench):
    """Name, and the command without lake, day and output, of every peer that is wanted; a `Missing` for one that cannot
    be had."""
    script = bench.here / "peer"
    wanted = {
        "DuckDB, ids as text": ("duckdb", peers.here, "duckdb_day.py", "event_id"),
        "DuckDB, our 8-byte id hashes": ("duckdb", peers.here, "duckdb_day.py", "id_hash"),
        "Polars, our id hashes": ("polars", peers.here, "polars_day.py"),
        "ClickHouse (chdb), our id hashes": ("chdb", lambda: peers.python(peers.CHDB), "chdb_day.py"),
        "Spark SQL, our id hashes": ("spark", spark, "spark_day.py"),
    }
    found = {}
    for name, (peer, python, program, *more) in wanted.items():
        if peer in bench.args.peers:
            try:
                found[name] = ([python(), script / program], more)
            except peers.Missing as e:
                found[name] = e
    return found


def spark():
    peers.java()
    return peers.python(peers.SPARK)


def history(bench, data, events, days=1):
    """Traffic of the days that end with ours, as NDJSON, its ads and prices imported: the file, and what making it took."""
    lines = bench.work / "history.ndjson"
    first = datetime.date.fromisoformat(DAY) - datetime.timedelta(days - 1)
    bench.cli(data, "keys", "create", "signing")
    made = bench.cli(
        data, "simulate", "--to", lines, "--events", events, "--seed", bench.args.seed, "--ads", ADS,
        "--from", first, "--days", days,
    )
    bench.cli(data, "ads", "import", lines.with_suffix(".ads.csv"))
    bench.cli(data, "prices", "import", lines.with_suffix(".prices.csv"))
    return lines, made


def simulate(bench, data, events):
    """A day on the log: name, and what each step took."""
    lines, made = history(bench, data, events)
    imported = bench.cli(data, "import", lines)
    for left in bench.work.glob("history.*"):
        left.unlink()
    if imported.json()["lines"] > events:
        raise SystemExit(f"{imported.json()} imported of {events}")
    return {"`simulate` to NDJSON": made, "`import`": imported}


def prepare(bench, data, events):
    """A day in bronze: name, and what each step took."""
    steps = simulate(bench, data, events)
    drained = bench.cli(data, "lake", "--drain")
    merged = bench.cli(data, "lake", "optimize", "--date", DAY)
    imported = steps["`import`"].json()
    if imported["accepted"] != drained.json()["events"]:
        raise SystemExit(f"{imported} imported, {drained.json()} archived")
    return {**steps, "`lake --drain`": drained, "`lake optimize`": merged}


def run(bench):
    """The stage: its tables as Markdown lines."""
    data = bench.work / "batch"
    data.mkdir()
    steps, others = prepare(bench, data, bench.args.events), sides(bench)
    ran, outs = {name: [] for name in [OURS, *others]}, {}
    for _ in range(bench.args.turns):
        ran[OURS].append(bench.cli(data, "batch", "run", "--date", DAY, "--force"))
        for number, (name, side) in enumerate(others.items()):
            if isinstance(side, peers.Missing):
                continue
            command, more = side
            outs[name] = bench.work / f"peer-{number}.parquet"
            ran[name].append(measure.run([*command, data / "lake", DAY, outs[name], *more]))
            check(ran[OURS][-1].json(), ran[name][-1].json())
    compare = [peers.here(), bench.here / "peer/compare_day.py", data / "lake", DAY]
    cells = 0
    for name, out in outs.items():
        same = measure.run([*compare, out]).json()
        cells = same["cells"]
        if same["differ"]:
            raise SystemExit(f"{name} differs from us: {same}")
    more = proofs(bench, data, steps, ran[OURS])
    lake = {name: measure.bytes_under(data / "lake" / name) for name in ("bronze", "silver", "gold")}
    bench.figures["batch"] = {
        "events": rows(ran), "cells": cells, "bytes": lake,
        "turns": {name: [r.figures() for r in turns] for name, turns in ran.items()},
        "out": {name: measure.bytes_under(out) for name, out in outs.items()},
        "missing": {name: str(side) for name, side in others.items() if isinstance(side, peers.Missing)},
        "steps": {name: r.figures() for name, r in steps.items()},
    }
    shutil.rmtree(data)
    return table(bench, steps, ran, others, bench.figures["batch"]) + more + larger(bench, ran[OURS]) + archive(bench)


def larger(bench, ours):
    """The same with more events: our line only."""
    events = bench.args.large_events
    if not events:
        return []
    data = bench.work / "batch-large"
    data.mkdir()
    prepare(bench, data, events)
    turns = [bench.cli(data, "batch", "run", "--date", DAY, "--force") for _ in range(bench.args.turns)]
    # A run of little memory spills, and finds the very same.
    little = {"CLICKLEDGER__BATCH__MEMORY_LIMIT": LITTLE}
    spilling = bench.cli(data, "batch", "run", "--date", DAY, "--force", env=little)
    if spilling.json()["outcome"] != "unchanged":
        raise SystemExit(f"with {LITTLE} of memory: {spilling.json()}")
    shutil.rmtree(data)
    each = [nanos(turns), nanos(ours)]
    bench.figures["batchLarge"] = {
        "turns": [r.figures() for r in turns], "spilling": spilling.figures(), "nanosPerEvent": each,
    }

    def row(name, turns):
        peak = max(r.peak for r in turns) / 2**20
        return f"| {name} | {measure.spread([r.cpu for r in turns])} | {peak:,.0f} | {nanos(turns):,.0f} |"

    return [
        "",
        f"More events of one day, {events:,} simulated lines; the memory limit is 1 GiB unless it says another:",
        "",
        "| | CPU s | peak MiB | CPU ns an event |",
        "|---|---|---|---|",
        row(f"{bench.args.events:,} lines", ours),
        row(f"{events:,} lines", turns),
        row(f"{events:,} lines, memory limit {LITTLE}, the same bytes", [spilling]),
        "",
        f"An event of the larger day costs {each[0] / each[1] - 1:+.1%}.",
    ]


def archive(bench):
    """A day by itself, and then against the days before it: what the rest of the archive costs."""
    days = bench.args.earlier_days
    if not days:
        return []
    data, each = bench.work / "batch-days", bench.args.events // 10
    data.mkdir()
    lines, _ = history(bench, data, each * (days + 1), days + 1)
    before, day = lines.with_name("history.before"), lines.with_name("history.day")
    with open(lines, "rb") as whole, open(before, "wb") as first, open(day, "wb") as last:
        first.writelines(itertools.islice(whole, each * days))
        last.writelines(whole)
    alone = bronze_and_run(bench, data, day)
    against = bronze_and_run(bench, data, before)
    for left in bench.work.glob("history.*"):
        left.unlink()
    shutil.rmtree(data)
    more = measure.median([r.cpu for r in against]) / measure.median([r.cpu for r in alone]) - 1
    bench.figures["batchArchive"] = {
        "alone": [r.figures() for r in alone], "against": [r.figures() for r in against], "more": more,
    }

    def row(name, turns):
        return f"| {name} | {measure.spread([r.cpu for r in turns], 2)} | {max(r.peak for r in turns) / 2**20:,.0f} |"

    return [
        "",
        f"A day of {each:,} lines by itself, and against {days} earlier days of as many:",
        "",
        "| `clickledger batch run --force` | CPU s | peak MiB |",
        "|---|---|---|",
        row("the day alone in the archive", alone),
        row(f"with {days} earlier days", against),
        "",
        f"The earlier days add {more:.1%}.",
    ]


def bronze_and_run(bench, data, lines):
    """Archives more lines and runs the day; every turn of it."""
    bench.cli(data, "import", lines)
    bench.cli(data, "lake", "--drain")
    bench.cli(data, "lake", "optimize")
    return [bench.cli(data, "batch", "run", "--date", DAY, "--force") for _ in range(bench.args.turns)]


def nanos(turns):
    return measure.median([r.cpu for r in turns]) / sum(turns[-1].json()["verdicts"].values()) * 1e9


def proofs(bench, data, steps, ours):
    """What the Merkle tree adds to the batch run, and what one proof takes, on the same day."""
    steps["`reconcile run`, signing included"] = bench.cli(data, "reconcile", "run", "--force", "--date", DAY)
    ran = measure.run([bench.programs["proof"], "--data", data, "--date", DAY, "--seed", bench.args.seed]).json()
    found, cpu = ran["proofs"], measure.median([r.cpu for r in ours])
    hashing = (ran["leafNanosPerEvent"] + ran["treeNanosPerEvent"]) * found["dayLeaves"] / 1e9
    bench.figures["proofs"] = ran

    def row(name, millis):
        return f"| {name} | {millis['p50']:.2f} | {millis['p99']:.2f} | {millis['most']:.2f} |"

    return [
        "",
        f"Proofs on the same day: {found['dayLeaves']:,} leaves. A leaf takes {ran['leafNanosPerEvent']:.0f} ns of CPU, "
        f"its share of the tree {ran['treeNanosPerEvent']:.0f} ns: {hashing:.2f} s, {hashing / cpu:.1%} of the batch run.",
        "",
        f"| {found['proofs']:,} proofs, half of billed events, half of unknown ids, at most {found['largestBytes']:,} bytes "
        "| p50 ms | p99 ms | most ms |",
        "|---|---|---|---|",
        row("made (`settlement prove`, tables opened each time)", found["proveMillis"]),
        row("checked (`settlement verify --proof`)", found["verifyMillis"]),
    ]


def rows(ran):
    return sum(ran[OURS][-1].json()["verdicts"].values())


def check(ours, theirs):
    """Both computed the same: events of the day, and the first ones among them."""
    verdicts = ours["verdicts"]
    rows = sum(verdicts.values())
    first = rows - sum(verdicts.get(v, 0) for v in LATER + FORGED)
    if (rows, first) != (theirs["rows"], theirs["first"]):
        raise SystemExit(f"{rows} events, {first} first here; {theirs} there")


def table(bench, steps, ran, others, figures):
    events, cpu = figures["events"], measure.median([r.cpu for r in ran[OURS]])

    def line(name, turns):
        if not turns:
            return f"| {name} | not measured: {others[name]} | | | | |"
        mine = [r.cpu for r in turns]
        return (
            f"| {name} | {measure.spread(mine)} | {measure.spread([r.wall for r in turns])} | "
            f"{max(r.peak for r in turns) / 2**20:,.0f} | {events / measure.median(mine):,.0f} | "
            f"{cpu / measure.median(mine):.2f} |"
        )

    verdicts = ", ".join(f"{name} {n:,}" for name, n in ran[OURS][-1].json()["verdicts"].items() if n)
    sizes = ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in figures["bytes"].items())
    checked = f"all {figures['cells']:,} cells (ad, campaign, minute, type) of each peer's last turn are equal to ours"
    return [
        f"One day of {events:,} events ({bench.args.events:,} simulated lines, seed {bench.args.seed}, {ADS:,} ads), in "
        f"bronze after `lake optimize`; {bench.args.turns} turns of each, one after the other. On disk: {sizes} (with "
        "the versions not yet vacuumed).",
        "",
        "| | CPU s | wall s | peak MiB | events per CPU s | our CPU : theirs |",
        "|---|---|---|---|---|---|",
        *(line(name, turns) for name, turns in ran.items()),
        "",
        "Checked: the same number of events and of first events in every turn"
        f"{'; ' + checked if figures['cells'] else ''}. Verdicts: {verdicts}.",
        "",
        "What it took to get there, once each:",
        "",
        "| step | CPU s | wall s | peak MiB | lines per CPU s |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {r.cpu:,.1f} | {r.wall:,.1f} | {r.peak / 2**20:,.0f} | {bench.args.events / r.cpu:,.0f} |"
            for name, r in steps.items()
        ),
    ]
