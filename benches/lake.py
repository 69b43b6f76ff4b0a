"""Stage lake: the log of a simulated day to committed bronze, merged while it is written, and what each part of the files'
layout is worth."""

import shutil
import subprocess
import time

import measure

DAY = "2026-01-05"
ADS = 100_000


def run(bench):
    """The stage: its tables as Markdown lines."""
    data = bench.work / "lake"
    data.mkdir()
    json_bytes, lines = prepare(bench, data)
    drained, events = [], 0
    for _ in range(bench.args.turns):
        shutil.rmtree(data / "lake", ignore_errors=True)
        drained.append(bench.cli(data, "lake", "--drain"))
        events = drained[-1].json()["events"]
    committed, files = bronze(data)
    layouts = measure.run([bench.programs["lake"], "--lake", data / "lake"]).json()
    optimized = bench.cli(data, "lake", "optimize")
    bench.cli(data, "lake", "vacuum")
    merged = stats(bench, data)
    beside = while_writing(bench, data, events)
    bench.figures["lake"] = {
        "events": events, "jsonBytesPerLine": json_bytes / lines, "committedBytes": committed, "files": files,
        "merged": merged, "drain": [r.figures() for r in drained], "optimize": optimized.figures(), "beside": beside,
        "layouts": layouts,
    }
    return table(bench, bench.figures["lake"], drained, optimized)


def prepare(bench, data):
    """A day on the log; bytes and number of its JSON lines."""
    history = bench.work / "lake-day.ndjson"
    bench.cli(data, "keys", "create", "signing")
    bench.cli(
        data, "simulate", "--to", history, "--events", bench.args.events, "--seed", bench.args.seed, "--ads", ADS,
        "--from", DAY, "--days", 1,
    )
    bench.cli(data, "ads", "import", history.with_suffix(".ads.csv"))
    size, imported = history.stat().st_size, bench.cli(data, "import", history)
    for left in bench.work.glob("lake-day.*"):
        left.unlink()
    return size, imported.json()["lines"]


def bronze(data):
    """Bytes and number of the data files of bronze/events."""
    files = list((data / "lake/bronze/events").rglob("*.parquet"))
    files = [f for f in files if "_delta_log" not in f.parts]
    return sum(f.stat().st_size for f in files), len(files)


def while_writing(bench, data, events):
    """The same log once more, with `lake optimize` again and again beside the writer: files, and that no row is missing."""
    shutil.rmtree(data / "lake")
    writer = subprocess.Popen([bench.binary, "--data", data, "--log", "warn", "lake", "--drain"], stdout=subprocess.DEVNULL)
    merges, skipped = 0, 0
    while writer.poll() is None:
        if (data / "lake/bronze/events/_delta_log").exists():
            done = bench.cli(data, "--output", "json", "lake", "optimize").json()["bronze/events"]
            merges, skipped = merges + done["filesBefore"], skipped + done["skipped"]
        time.sleep(0.2)
    there = stats(bench, data)
    if writer.returncode or there["rows"] != events:
        raise SystemExit(f"the writer beside `lake optimize` ended with {writer.returncode} and {there} of {events} rows")
    return {"filesMerged": merges, "groupsSkipped": skipped, "files": there["files"], "rows": there["rows"]}


def stats(bench, data):
    """What `lake stats` says of bronze/events."""
    return next(t for t in bench.cli(data, "--output", "json", "lake", "stats").json() if t["table"] == "bronze/events")


def table(bench, figures, drained, optimized):
    events, cpu = figures["events"], [r.cpu for r in drained]
    json_bytes = figures["jsonBytesPerLine"]
    committed, merged = figures["committedBytes"] / events, figures["merged"]["bytes"] / events
    beside, layouts = figures["beside"], figures["layouts"]
    return [
        f"{events:,} events of a simulated day ({json_bytes:,.0f} bytes of JSON a line), from the log to committed "
        f"zstd Parquet; {bench.args.turns} turns:",
        "",
        "| | measured |",
        "|---|---|",
        f"| `lake --drain`, CPU s | {measure.spread(cpu)} |",
        f"| events per CPU s | {events / measure.median(cpu):,.0f} |",
        f"| wall s | {measure.spread([r.wall for r in drained])} |",
        f"| peak MiB | {max(r.peak for r in drained) / 2**20:,.0f} |",
        f"| bytes per event, committed ({figures['files']} files) | {committed:.1f}: 1/{json_bytes / committed:.1f} |",
        f"| bytes per event, merged ({figures['merged']['files']} files) | {merged:.1f}: 1/{json_bytes / merged:.1f} |",
        f"| `lake optimize`, CPU s | {optimized.cpu:.1f} |",
        "",
        f"With `lake optimize` again and again beside the writer: {beside['filesMerged']} files merged meanwhile, "
        f"{beside['groupsSkipped']} groups left for the next time, {beside['files']} files at the end, every row there once.",
        "",
        f"The same {layouts['rows']:,} rows of it, written once in each layout (the Parquet writer alone, rows sorted "
        "before):",
        "",
        "| layout | bytes per event | CPU ns per event |",
        "|---|---|---|",
        *(f"| {l['name']} | {l['bytesPerEvent']:.2f} | {l['cpuNanosPerEvent']:,.0f} |" for l in layouts["layouts"]),
    ]
