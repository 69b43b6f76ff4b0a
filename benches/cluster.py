"""Stage cluster: the batch day in one process and on a Ballista cluster (a scheduler and two executors of the same program,
all on this machine), the lake on an S3 server: what the cluster costs beside the work itself."""

import os
import subprocess

import batch
import measure
import outside

LOCAL = "in one process"
CLUSTER = "scheduler and 2 executors"
KEY = "clickledger-test"


class Roles:
    """Scheduler and executors, and what they have used."""

    def __init__(self, bench, data):
        self.bench, self.data, self.running = bench, data, []

    def __enter__(self):
        port = measure.free_port()
        os.environ["CLICKLEDGER__BATCH__BALLISTA__SCHEDULER_URL"] = f"http://127.0.0.1:{port}"
        self.start("scheduler", "--bind", f"127.0.0.1:{port}")
        for _ in range(2):
            threads = max(1, self.bench.cores // 2)
            self.start("executor", "--bind", f"127.0.0.1:{measure.free_port()}", "--threads", threads)
        return self

    def start(self, role, *more):
        command = [self.bench.binary, "--data", self.data, "--log", "warn", "batch", role, *more]
        self.running.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL))

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            process.wait()

    def cpu(self):
        return [measure.cpu_seconds(process.pid) for process in self.running]

    def peaks(self):
        return [measure.peak_bytes([process.pid]) for process in self.running]


def settings(store):
    os.environ.update({
        "CLICKLEDGER__OBJECT_STORE__LAKE_URL": "s3://clickledger/lake",
        "CLICKLEDGER__OBJECT_STORE__ENDPOINT": store.says["S3_ENDPOINT"],
        "CLICKLEDGER__OBJECT_STORE__ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": f"{KEY}-secret",
    })


def run(bench):
    """The stage: its table as Markdown lines."""
    before = dict(os.environ)
    data = bench.work / "cluster"
    data.mkdir()
    try:
        with outside.Part(bench, "s3", bench.work / "objects") as store:
            settings(store)
            batch.prepare(bench, data, bench.args.events)
            with Roles(bench, data) as roles:
                return compare(bench, data, store, roles)
    finally:
        os.environ.clear()
        os.environ.update(before)


def compare(bench, data, store, roles):
    job, turns = ["batch", "run", "--date", batch.DAY, "--force"], {LOCAL: [], CLUSTER: []}
    bench.cli(data, *job, "--engine", "ballista")  # waits until the roles have started
    for _ in range(bench.args.turns):
        for name, engine in ((LOCAL, "local"), (CLUSTER, "ballista")):
            served, used = store.cpu(), roles.cpu()
            ran = bench.cli(data, *job, "--engine", engine)
            used = [now - then if name == CLUSTER else 0.0 for then, now in zip(used, roles.cpu())]
            turns[name].append({
                **ran.figures(), "executorCpuSeconds": round(sum(used[1:]), 2), "schedulerCpuSeconds": round(used[0], 2),
                "storeCpuSeconds": round(store.cpu() - served, 2),
                "answer": ran.json(),
            })
    answers = [turn.pop("answer") for all_turns in turns.values() for turn in all_turns]
    if any(answer["sha256"] != answers[0]["sha256"] for answer in answers):
        raise SystemExit("the turns differ in a file")
    peaks = roles.peaks()
    bench.figures["cluster"] = {"turns": turns, "rolePeakBytes": peaks, "events": sum(answers[0]["verdicts"].values())}
    return table(bench, turns, peaks)


def table(bench, turns, peaks):
    def total(turn):
        return turn["cpuSeconds"] + turn["executorCpuSeconds"] + turn["schedulerCpuSeconds"]

    def line(name, all_turns):
        parts = ("cpuSeconds", "executorCpuSeconds", "schedulerCpuSeconds", "storeCpuSeconds", "wallSeconds")
        cells = [measure.spread([turn[part] for turn in all_turns]) for part in parts]
        return f"| {name} | {measure.spread([total(t) for t in all_turns])} | " + " | ".join(cells) + " |"

    ours, theirs = (measure.median([total(turn) for turn in turns[name]]) for name in (LOCAL, CLUSTER))
    events = bench.figures["cluster"]["events"]
    return [
        f"{events:,} events, {bench.args.turns} turns of each in turns, gold and Merkle root of every turn the same; "
        "the lake on the S3 server of the tests, on this machine.",
        "",
        "| | CPU s without the store | of the run | of executors | of the scheduler | of the store | wall s |",
        "|---|---|---|---|---|---|---|",
        *(line(name, all_turns) for name, all_turns in turns.items()),
        "",
        f"The cluster takes {theirs / ours:.2f} times the CPU. Peak memory: run {peak(turns[LOCAL])} MiB alone, "
        f"{peak(turns[CLUSTER])} MiB on a cluster; scheduler {peaks[0] / 2**20:,.0f} MiB, executors "
        f"{', '.join(f'{p / 2**20:,.0f}' for p in peaks[1:])} MiB.",
    ]


def peak(turns):
    return f"{max(turn['peakBytes'] for turn in turns) / 2**20:,.0f}"
