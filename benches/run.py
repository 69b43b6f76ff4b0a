"""Builds, runs the stages one after the other, and writes what they found. Started by `benches/run`."""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

import batch
import clickhouse
import cluster
import flame
import gateway
import instructions
import lake
import measure
import peers
import pipeline
import programs

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
REPORT = ROOT / "docs/benchmarks.md"
# What stands before this line in the report is written by people and kept.
MARK = "<!-- measured: written by benches/run, do not edit below -->"
PROGRAMS = ("speed", "query", "proof", "hot", "lake", "clickhouse")
STAGES = {
    "gateway": ("Gateway against nginx", gateway.run),
    "speed": ("Speed layer", programs.speed),
    "pipeline": ("Kafka to ClickHouse", pipeline.run),
    "lake": ("Lake writer", lake.run),
    "batch": ("Batch against other engines", batch.run),
    "cluster": ("Batch on a cluster", cluster.run),
    "query": ("Serving store", programs.query),
    "clickhouse": ("Serving store on ClickHouse", clickhouse.run),
    "instructions": ("Instructions of the hot parts", instructions.run),
    "flame": ("Flame graphs", flame.run),
}


class Bench:
    """What every stage needs."""

    def __init__(self, args, work):
        self.args, self.work, self.here = args, work, HERE
        self.cores = len(os.sched_getaffinity(0))
        self.binary, self.programs = None, {}
        # What stages measured, every turn by itself: the report in JSON.
        self.figures = {}

    def build(self):
        """The binary as users build it, and the bench programs; or those that were built before."""
        if built := self.args.built:
            self.binary, self.programs = built / "clickledger", {name: built / name for name in PROGRAMS}
            return
        more = ("--features", "ballista") if "cluster" in self.args.stage else ()
        self.binary = cargo("--bin", "clickledger", *more)["clickledger"]
        self.programs = cargo(*(word for name in PROGRAMS for word in ("--bench", name)))

    def cli(self, data, *command, env=None):
        """Runs clickledger on a data folder."""
        return measure.run([self.binary, "--data", data, "--log", "warn", *command], env)

    @staticmethod
    def tool(name):
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not found:
            raise SystemExit(f"{name} is missing: install it, or leave its stage out with --stage")
        return found


def cargo(*targets):
    """Builds targets and answers where their executables are."""
    command = ["cargo", "build", "--release", "--locked", "--message-format", "json-render-diagnostics", *targets]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}


def first_line(*command):
    """What a tool says its version is (nginx says it on stderr)."""
    try:
        said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return said.stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return "not there"


def heading(bench):
    """Where and with what this was measured: name and value."""
    import duckdb
    import polars

    commit = first_line("git", "describe", "--always", "--dirty")
    rows = {
        "commit": f"{commit} of {first_line('git', 'log', '-1', '--format=%cs')}",
        "measured on": bench.args.date or "(no date given)",
        "command": "`benches/run" + "".join(f" {word}" for word in bench.args.words) + "`",
        **measure.machine(bench.work),
        "built by": f"{first_line('rustc', '--version')}, release profile",
    }
    if needs(bench, "gateway"):
        rows["nginx"] = first_line(bench.tool("nginx"), "-v").removeprefix("nginx version: ")
    if needs(bench, "gateway", "query"):
        rows["wrk"] = first_line(bench.tool("wrk"), "-v").split(" Copyright")[0]
    if needs(bench, "instructions"):
        rows["valgrind"] = first_line(bench.tool("valgrind"), "--version")
    if needs(bench, "batch", "speed"):
        chosen = bench.args.peers
        rows["DuckDB, Polars"] = f"{duckdb.__version__}, {polars.__version__}"
        packages = {"chdb": peers.CHDB, "spark": peers.SPARK, "flink": peers.FLINK}
        rows["other peers"] = ", ".join(p.replace("==", " ") for name, p in packages.items() if name in chosen) or "none"
        rows["Java"] = first_line("java", "-version")
    return rows


def needs(bench, *stages):
    return any(stage in bench.args.stage for stage in stages)


def arguments():
    parser = argparse.ArgumentParser(prog="benches/run", description="Measures clickledger beside its peers.")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this one (may be given several times)")
    parser.add_argument("--peers", default=",".join(peers.NAMES), help="which ones, by commas; default: all")
    parser.add_argument("--turns", type=int, default=3, help="how often each side runs")
    parser.add_argument("--seed", type=int, default=7, help="of everything that is generated")
    parser.add_argument("--seconds", type=int, default=8, help="of load in a turn of the gateway")
    parser.add_argument("--ads", type=int, default=100_000, help="in the gateway's directory")
    parser.add_argument("--directory-ads", type=int, default=0, help="of one more gateway, to see what they cost")
    parser.add_argument("--batched-events", type=int, default=100_000, help="in a turn of the gateway")
    parser.add_argument("--speed-events", type=int, default=2_000_000, help="of the speed layer")
    parser.add_argument("--pipeline-events", type=int, default=3_000_000, help="from Kafka to ClickHouse")
    parser.add_argument("--events", type=int, default=5_000_000, help="of the batch day")
    parser.add_argument("--earlier-days", type=int, default=30, help="before the batch day, each of a tenth of its events")
    parser.add_argument("--large-events", type=int, default=20_000_000, help="of a larger batch day; 0: none")
    parser.add_argument("--query-ads", type=int, default=1_000_000, help="in the serving store")
    parser.add_argument("--clickhouse-rows", type=float, default=12, help="rows of an ad in a day, on average")
    parser.add_argument("--clickhouse-ads", type=int, default=10_000_000, help="of the week in ClickHouse")
    parser.add_argument("--clickhouse-week-rows", type=float, default=1, help="rows of an ad in a day of it, on average")
    parser.add_argument("--hot-events", type=int, default=20_000, help="counted under callgrind")
    parser.add_argument("--date", help="when this is measured, for the report")
    parser.add_argument("--work", type=pathlib.Path, help="where data is put (default: the build folder)")
    parser.add_argument("--built", type=pathlib.Path, help="a folder with the executables, instead of building them")
    parser.add_argument("--keep", action="store_true", help="leave the data there")
    parser.add_argument("--out", type=pathlib.Path, help="the report (default: docs/benchmarks.md if all stages run)")
    args = parser.parse_args()
    hidden = {str(path) for path in (args.work, args.out, args.built) if path}
    args.words = [w for w in sys.argv[1:] if w not in hidden and not w.startswith(("--work", "--out", "--built"))]
    args.peers = [name for name in args.peers.split(",") if name]
    if unknown := set(args.peers) - set(peers.NAMES):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(peers.NAMES)}")
    args.out = args.out or (None if args.stage else REPORT)
    args.stage = args.stage or [name for name in STAGES if name != "flame"]
    return args


def attempt(stage, bench, failed):
    """What a stage found; one that fails says so in its place, and the others are measured all the same."""
    try:
        return stage(bench)
    except (Exception, SystemExit) as e:
        traceback.print_exc()
        failed.append((str(e) or repr(e)).splitlines()[0])
        return [f"**Failed:** {failed[-1]}"]


def write(path, lines):
    """Puts the lines below the mark; what is above it stays."""
    old = path.read_text() if path.exists() else "# Benchmarks\n\n"
    head = old.split(MARK)[0].rstrip()
    path.write_text(f"{head}\n\n{MARK}\n\n" + "\n".join(lines) + "\n")


def main():
    args = arguments()
    parent = args.work or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=parent)).resolve()
    try:
        bench = Bench(args, work)
        bench.build()
        head = heading(bench)
        failed = []
        lines = ["## Measured", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in head.items())]
        for name in args.stage:
            title, stage = STAGES[name]
            started = datetime.datetime.now()
            print(f"stage {name} …", file=sys.stderr, flush=True)
            lines += ["", f"## {title}", "", *attempt(stage, bench, failed)]
            lines += ["", f"Load average at the end of the stage: {os.getloadavg()[0]:.2f}."]
            print(f"stage {name}: {(datetime.datetime.now() - started).seconds} s", file=sys.stderr, flush=True)
            if args.out:
                # After every stage: who stops it has what was measured.
                write(args.out, lines)
                figures = json.dumps({"measured": head, **bench.figures}, indent=1, ensure_ascii=False)
                args.out.with_suffix(".json").write_text(figures + "\n")
        print("\n".join(lines))
        if failed:
            raise SystemExit(f"{len(failed)} stages failed: " + "; ".join(failed))
    finally:
        if args.keep:
            print(f"data is in {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
