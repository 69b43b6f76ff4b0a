"""Stage batch: a simulated day through import, archive and merge; then `clickledger batch run` beside DuckDB on the
very same bronze files."""

import sys

import measure

DAY = "2026-01-05"
ADS = 100_000
# What bronze and silver call events that are not the first of their id, and those that claim no id.
LATER = ("duplicate", "conflict")
FORGED = ("invalid:bad_signature", "invalid:expired")
PEERS = {"event_id": "DuckDB, ids as text", "id_hash": "DuckDB, our 8-byte id hashes"}


def prepare(bench, data):
    """A day in bronze: name, events and what each step took."""
    history, events = bench.work / "history.ndjson", bench.args.events
    bench.cli(data, "keys", "create", "signing")
    made = bench.cli(
        data, "simulate", "--to", history, "--events", events, "--seed", bench.args.seed, "--ads", ADS,
        "--from", DAY, "--days", 1,
    )
    bench.cli(data, "ads", "import", history.with_suffix(".ads.csv"))
    bench.cli(data, "prices", "import", history.with_suffix(".prices.csv"))
    imported = bench.cli(data, "import", history)
    for left in bench.work.glob("history.*"):
        left.unlink()
    drained = bench.cli(data, "lake", "--drain")
    merged = bench.cli(data, "lake", "optimize", "--date", DAY)
    steps = {"`simulate` to NDJSON": made, "`import`": imported, "`lake --drain`": drained, "`lake optimize`": merged}
    lines = imported.json()
    if lines["lines"] > events or lines["accepted"] != drained.json()["events"]:
        raise SystemExit(f"{lines} imported, {drained.json()} archived")
    return steps


def run(bench):
    """The stage: its tables as Markdown lines."""
    data = bench.work / "batch"
    data.mkdir()
    steps = prepare(bench, data)
    ours, peers = [], {ids: [] for ids in PEERS}
    out = bench.work / "peer.parquet"
    peer = [sys.executable, bench.here / "duckdb_day.py"]
    for _ in range(bench.args.turns):
        ours.append(bench.cli(data, "batch", "run", "--date", DAY, "--force"))
        for ids, ran in peers.items():
            ran.append(measure.run([*peer, "count", data / "lake", DAY, ids, out]))
            check(ours[-1].json(), ran[-1].json())
    same = measure.run([*peer, "compare", data / "lake", DAY, out]).json()
    if same["differ"]:
        raise SystemExit(f"the two sides differ: {same}")
    more = proofs(bench, data, steps, ours)
    return table(bench, steps, ours, peers, same) + more


def proofs(bench, data, steps, ours):
    """What the Merkle tree adds to the batch run, and what one proof takes, on the same day."""
    steps["`reconcile run`, signing included"] = bench.cli(data, "reconcile", "run", "--force", "--date", DAY)
    ran = measure.run([bench.programs["proof"], "--data", data, "--date", DAY, "--seed", bench.args.seed]).json()
    found, cpu = ran["proofs"], measure.median([r.cpu for r in ours])
    hashing = (ran["leafNanosPerEvent"] + ran["treeNanosPerEvent"]) * found["dayLeaves"] / 1e9

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


def check(ours, theirs):
    """Both computed the same: events of the day, and the first ones among them."""
    verdicts = ours["verdicts"]
    rows = sum(verdicts.values())
    first = rows - sum(verdicts.get(v, 0) for v in LATER + FORGED)
    if (rows, first) != (theirs["rows"], theirs["first"]):
        raise SystemExit(f"{rows} events, {first} first here; {theirs} there")


def table(bench, steps, ours, peers, same):
    last, rows = ours[-1].json(), peers["event_id"][0].json()["rows"]

    def line(name, ran):
        cpu = [r.cpu for r in ran]
        return (
            f"| {name} | {measure.spread(cpu)} | {measure.spread([r.wall for r in ran])} | "
            f"{max(r.peak for r in ran) / 2**20:,.0f} | {rows / measure.median(cpu):,.0f} |"
        )

    best = min(measure.median([r.cpu for r in ran]) for ran in peers.values())
    verdicts = ", ".join(f"{name} {n:,}" for name, n in last["verdicts"].items() if n)
    return [
        f"One day of {rows:,} events ({bench.args.events:,} simulated lines, seed {bench.args.seed}, {ADS:,} ads), in "
        f"bronze after `lake optimize`; {bench.args.turns} turns of each, one after the other:",
        "",
        "| | CPU s | wall s | peak MiB | events per CPU s |",
        "|---|---|---|---|---|",
        line("`clickledger batch run --force`", ours),
        *(line(PEERS[ids], ran) for ids, ran in peers.items()),
        "",
        f"CPU ratio to the best of DuckDB: {measure.median([r.cpu for r in ours]) / best:.2f}.",
        "",
        f"Checked: the same number of events and of first events in every turn; all {same['cells']:,} cells (ad, "
        f"campaign, minute, type) of the last turn are equal. Verdicts: {verdicts}.",
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
