"""Stage pipeline: a simulated day on a real Kafka through `clickledger speed` into a real ClickHouse, all on this machine:
from the start of the process to the moment when ClickHouse shows the last event."""

import json
import os
import subprocess
import time

import clickhouse
import measure
import outside

DAY = "2026-01-05"
ADS = 100_000
PARTITIONS = 8
FLUSH_SECONDS = 5
LOOK_SECONDS = 0.2
AT_MOST_SECONDS = 600
DATABASE = "clickledger"


def run(bench):
    """The stage: its table as Markdown lines."""
    before = dict(os.environ)
    data = bench.work / "pipeline"
    data.mkdir()
    try:
        with outside.Part(bench, "kafka", bench.work / "pipeline-kafka") as kafka:
            os.environ.update({
                "CLICKLEDGER__KAFKA__BOOTSTRAP": kafka.says["KAFKA_BOOTSTRAP"], "CLICKLEDGER__KAFKA__REPLICATION": "1",
                "CLICKLEDGER__KAFKA__MIN_IN_SYNC": "1", "CLICKLEDGER__KAFKA__PARTITIONS": str(PARTITIONS),
                "CLICKLEDGER__SPEED__FLUSH_INTERVAL": f"{FLUSH_SECONDS}s",
            })
            bench.cli(data, "kafka", "ensure")
            records = fill(bench, data)
            turns = [turn(bench, data, kafka, records, n) for n in range(bench.args.turns)]
    finally:
        os.environ.clear()
        os.environ.update(before)
    bench.figures["pipeline"] = {"records": records, "turns": turns}
    return table(records, turns)


def fill(bench, data):
    """A day on Kafka; its number of records."""
    history = bench.work / "pipeline-day.ndjson"
    bench.cli(data, "keys", "create", "signing")
    bench.cli(
        data, "simulate", "--to", history, "--events", bench.args.pipeline_events, "--seed", bench.args.seed, "--ads", ADS,
        "--from", DAY, "--days", 1,
    )
    bench.cli(data, "ads", "import", history.with_suffix(".ads.csv"))
    imported = bench.cli(data, "import", history).json()
    for left in bench.work.glob("pipeline-day.*"):
        left.unlink()
    return imported["accepted"]


def turn(bench, data, kafka, records, number):
    """One worker with an empty state and an empty ClickHouse, until all is shown."""
    for left in ("speed", "state"):
        subprocess.run(["rm", "-rf", data / left], check=True)
    with clickhouse.Server(bench, bench.work / f"pipeline-clickhouse-{number}") as server:
        os.environ["CLICKLEDGER__CLICKHOUSE__URL"] = server.url
        bench.cli(data, "serving", "migrate")
        used, started = (kafka.cpu(), server.cpu()), time.monotonic()
        command = [bench.binary, "--data", data, "--log", "warn", "speed"]
        worker = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
        try:
            outcomes = await_all(server, worker, records, started)
            wall = time.monotonic() - started
            cpu, peak = measure.cpu_seconds(worker.pid), measure.peak_bytes([worker.pid])
            broker, store = kafka.cpu() - used[0], server.cpu() - used[1]
        finally:
            worker.terminate()
            worker.wait()
        sums = f"SELECT sum(impressions + clicks + conversions), count() FROM {DATABASE}.shown WHERE grain = 'ad_minute'"
        counted, rows = map(int, server.run(sums).split())
        del os.environ["CLICKLEDGER__CLICKHOUSE__URL"]
    if counted != outcomes["counted"]:
        raise SystemExit(f"ClickHouse shows {counted} events where the worker says {outcomes}")
    return {
        "wallSeconds": wall, "cpuSeconds": cpu, "peakBytes": peak, "brokerCpuSeconds": broker, "storeCpuSeconds": store,
        "adMinutes": rows, "outcomes": outcomes,
    }


def await_all(server, worker, records, started):
    """Waits until every record has its outcome in what the writers told; outcomes by name."""
    told = f"SELECT argMax(status, version) FROM {DATABASE}.writer_status GROUP BY writer FORMAT TSVRaw"
    while time.monotonic() - started < AT_MOST_SECONDS:
        if worker.poll() is not None:
            raise SystemExit(f"the worker ended with {worker.returncode}")
        outcomes = {}
        for status in server.run(told).splitlines():
            for name, n in json.loads(status)["outcomes"].items():
                outcomes[name] = outcomes.get(name, 0) + n
        if sum(outcomes.values()) == records:
            return outcomes
        time.sleep(LOOK_SECONDS)
    raise SystemExit(f"after {AT_MOST_SECONDS} s only {outcomes} of {records}")


def table(records, turns):
    def spread(key, digits=1, unit=1):
        return measure.spread([turn[key] / unit for turn in turns], digits)

    rates = [records / turn["wallSeconds"] for turn in turns]
    return [
        f"{records:,} records of a simulated day in {PARTITIONS} partitions of a Kafka of one node, {ADS:,} ads; one "
        f"`clickledger speed` with an empty state, a flush every {FLUSH_SECONDS} s, checkpoints on disk; ClickHouse of one node; "
        f"everything on the same cores. From the start of the process until ClickHouse shows the last event, {len(turns)} turns:",
        "",
        "| | measured |",
        "|---|---|",
        f"| events/s from Kafka to rows in ClickHouse | {measure.spread(rates, 0)} |",
        f"| wall s | {spread('wallSeconds')} |",
        f"| CPU s of the worker | {spread('cpuSeconds')} |",
        f"| of ClickHouse, merges meanwhile included | {spread('storeCpuSeconds')} |",
        f"| of the broker | {spread('brokerCpuSeconds')} |",
        f"| worker's peak MiB | {spread('peakBytes', 0, 2**20)} |",
        f"| ad minutes shown | {turns[0]['adMinutes']:,} |",
        "",
        f"Checked in every turn: ClickHouse shows as many events as the worker counted; outcomes: "
        + ", ".join(f"{name} {n:,}" for name, n in sorted(turns[0]["outcomes"].items()) if n) + ".",
    ]
