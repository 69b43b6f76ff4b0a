"""Stages speed and query: the bench programs, and the store the second one leaves behind asked over HTTP."""

import json
import urllib.request

import measure
import stream

DAY = "2026-01-05"
CONNECTIONS = 8


def speed(bench):
    """The speed layer's worker: its table as Markdown lines."""
    command = [bench.programs["speed"], "--events", bench.args.speed_events, "--seed", bench.args.seed]
    turns = [measure.run(command).json() for _ in range(bench.args.turns)]

    def row(name, key, digits=0, unit=1):
        return f"| {name} | {measure.spread([turn[key] / unit for turn in turns], digits)} |"

    first = turns[0]
    bench.figures["speed"] = turns
    return [
        f"One thread, {first['events']:,} protobuf records of {first['recordBytes']} bytes with 1 % duplicates through "
        f"`speed::Worker` in memory; changed rows every 10 s of event time (5,000 events/s); {bench.args.turns} turns:",
        "",
        "| | clickledger |",
        "|---|---|",
        row("events per CPU second", "eventsPerCpuSecond"),
        row("CPU ns per event: decode, dedup, window", "applyNanosPerEvent"),
        row("CPU ns per event: changed rows", "flushNanosPerEvent"),
        row("wall ns per event, both", "wallNanosPerEvent"),
        f"| rows flushed | {first['rows']:,} |",
        row("bytes of the id table, per live id", "idBytesPerId", 1),
        row("resident bytes of all state, windows and unsaved ids included, per live id", "stateBytesPerId"),
        row("events of two partitions on two threads against one on one, wall", "speedUpOfTwoThreads", 2),
        "",
        f"Checked: {first['counted']:,} counted and {first['duplicates']:,} duplicates are what was made; the rows of "
        "a tenth of it add up to what was counted.",
        *stream.run(bench),
    ]


def query(bench):
    """The serving store: its tables as Markdown lines."""
    data = bench.work / "query"
    command = [
        bench.programs["query"], "--store", data / "serving/rollups.sqlite", "--ads", bench.args.query_ads,
        "--flush-rows", max(1, bench.args.query_ads // 10), "--seed", bench.args.seed,
    ]
    figures = measure.run(command).json()
    port = measure.free_port()
    env = {
        "CLICKLEDGER__SERVING__LISTEN": f"127.0.0.1:{port}", "CLICKLEDGER__SERVING__REQUIRE_KEYS": "false",
        # The day lies in the past, and must not be forgotten meanwhile.
        "CLICKLEDGER__SERVING__RETENTION__MINUTES": "36500d",
    }
    server = [bench.binary, "serving", "--data", data, "--log", "warn"]
    with measure.Server(server, f"http://127.0.0.1:{port}/readyz", env, bench.work / "serving.log") as serving:
        ad_path = "/api/v1/ads/ad-{}/aggregates?from=" + DAY + "&to=2026-01-06&granularity=minute"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}" + ad_path.format(12)) as answer:
            points = len(json.loads(answer.read())["series"])
        if points != 3:
            raise SystemExit(f"the ad's day has {points} minutes, not 3")
        ads = [ad_path.format(n * 7919 % bench.args.query_ads) for n in range(min(200_000, bench.args.query_ads))]
        top = [f"/v1/reports/top?by=impressions&from={DAY}T11:00:00Z&to={DAY}T12:00:00Z"]
        over_http = {
            "an ad's day by minute, always another ad": ask(bench, serving, port, ads),
            "the top list of an hour, the same for everybody": ask(bench, serving, port, top),
        }
    bench.figures["query"] = {**figures, "overHttp": over_http}
    return tables(bench, figures, over_http)


def ask(bench, server, port, paths):
    """One run of wrk over these paths."""
    lines, threads = bench.work / "questions.txt", 1
    lines.write_text("".join(f"{path}\n" for path in paths))
    cpu = measure.cpu_seconds(server.pid)
    figures = measure.run([
        bench.tool("wrk"), "-t", threads, "-c", CONNECTIONS, "-d", f"{min(5, bench.args.seconds)}s",
        "-s", bench.here / "requests.lua", f"http://127.0.0.1:{port}", "--", lines, threads,
    ]).json()
    if figures["failed"] or figures["refused"]:
        raise SystemExit(f"questions failed: {figures}")
    figures["cpu"] = (measure.cpu_seconds(server.pid) - cpu) / figures["requests"] * 1e6
    return figures


def tables(bench, figures, over_http):
    def filled(name, what):
        return (
            f"| {name} | {what['rows']:,} | {what['rowsPerSecond']:,.0f} | {what['rowsPerCpuSecond']:,.0f} | "
            f"{what['rows'] // what['flushes']:,} in at most {what['slowestFlushMillis']:,.0f} ms |"
        )

    def asked(name, what):
        p50, p99, most = what["p50Millis"], what["p99Millis"], what["maxMillis"]
        return f"| {name} | {what['questions']:,} | {p50:.2f} | {p99:.2f} | {most:.2f} |"

    return [
        f"`EmbeddedStore` with {bench.args.query_ads:,} ads × 3 minutes and their campaign minutes of ten writers, "
        f"{figures['allRows']:,} rows, {figures['storeBytes'] / 2**20:,.0f} MiB; every flush is one durable "
        "transaction:",
        "",
        "| `upsert_approximate` | rows | rows/s | rows per CPU s | a flush |",
        "|---|---|---|---|---|",
        filled("new rows", figures["newRows"]),
        filled("the same keys again", figures["changedRows"]),
        "",
        "One question at a time, inside the process, page cache warm:",
        "",
        "| question | asked | p50 ms | p99 ms | most ms |",
        "|---|---|---|---|---|",
        asked("an ad's day, 3 rows", figures["adDay"]),
        asked("an ad's day, 1,440 rows", figures["steadyAdDay"]),
        asked("top 10 of an hour, 10,000 campaigns × 60 minutes", figures["topHour"]),
        "",
        f"Over HTTP (`clickledger serving`), wrk with {CONNECTIONS} connections on the same cores:",
        "",
        "| question | requests/s | p50 ms | p99 ms | server's CPU µs per request |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {f['requests'] / f['micros'] * 1e6:,.0f} | {f['p50'] / 1e3:.2f} | {f['p99'] / 1e3:.2f} | "
            f"{f['cpu']:.0f} |"
            for name, f in over_http.items()
        ),
        "",
        f"Checked: every answer inside the process against what was written. Peak memory of filling and asking: "
        f"{figures['peakResidentBytes'] / 2**20:,.0f} MiB. No peer in the same run.",
    ]
