"""Stage clickhouse: the serving store on a real ClickHouse server (tests/parts/clickhouse), filled by the server itself, and
asked through our own store. Ads are as busy as Zipf has them (exponent 1): a few have every minute, most only some."""

import time
import urllib.parse
import urllib.request

import measure
import outside

# Filled by one statement.
HOURS = 6
START = "toDateTime('2026-01-05 00:00:00', 'UTC')"
CAMPAIGNS = 2_000
WRITERS = 8
# Dimensions of a campaign's hour.
COUNTRIES, DEVICES = 4, 3
SETTINGS = {"max_insert_threads": 2, "max_execution_time": 0}

# Some hours of ad minutes; what falls on one minute of an ad twice is an older version of it, as flushes leave them.
AD_MINUTES = """
INSERT INTO {db}.rollup
SELECT 1, {hour} + 3600 * (rand(6) % {hours}) AS hour, 'ad-' || toString(ad), 'camp-' || toString(ad % {campaigns}),
    hour + 60 * (rand(1) % 60), '', '', 'EUR', ad % {writers}, 0, number + 1, 1 + rand(2) % 97, rand(3) % 7, rand(4) % 3,
    1234567 * toInt128(1 + rand(2) % 97), ''
FROM (SELECT number, toUInt64(pow({ads}, rand64(5) / 18446744073709551616.)) - 1 AS ad FROM numbers_mt({rows}))
"""
CAMPAIGN_MINUTES = """
INSERT INTO {db}.rollup
SELECT 2, {hour} + 3600 * intDiv(number, {campaigns} * 60) AS hour, '', 'camp-' || toString(intDiv(number, 60) % {campaigns}),
    hour + 60 * (number % 60), '', '', 'EUR', intDiv(number, 60) % {writers}, 0, 1, 60 + rand(2) % 970, rand(3) % 70, rand(4) % 30, 1234567 * toInt128(1 + rand(2) % 970), ''
FROM numbers_mt({campaigns} * 60 * {hours})
"""
CAMPAIGN_HOURS = """
INSERT INTO {db}.rollup
SELECT 3, {hour} + 3600 * intDiv(number, {campaigns} * {cells}) AS hour, '',
    'camp-' || toString(intDiv(number, {cells}) % {campaigns}), hour,
    ['DE', 'FR', 'US', 'GB'][1 + number % {countries}],
    ['desktop', 'mobile', 'tablet'][1 + intDiv(number, {countries}) % {devices}], 'EUR',
    intDiv(number, {cells}) % {writers}, 0, 1, 600 + rand(2) % 970, rand(3) % 70, rand(4) % 30,
    1234567 * toInt128(1 + rand(2) % 970), ''
FROM numbers_mt({campaigns} * {cells} * {hours})
"""


class Server(outside.Part):
    """A ClickHouse server of its own that ends with the block."""

    def __init__(self, bench, folder):
        super().__init__(bench, "clickhouse", folder)

    @property
    def url(self):
        return self.says["CLICKHOUSE_URL"]

    def run(self, sql):
        """Runs a statement; its answer as text."""
        url = f"{self.url}/?{urllib.parse.urlencode(SETTINGS)}"
        with urllib.request.urlopen(url, data=sql.encode()) as answer:
            return answer.read().decode()


def fill(server, db, ads, days, rows_per_ad_day):
    """Days of all three grains, some hours at a time; rows and bytes on disk."""
    started = time.monotonic()
    for hour in range(0, 24 * days, HOURS):
        cells = COUNTRIES * DEVICES
        values = {
            "db": db, "hour": f"({START} + {hour * 3600})", "ads": ads, "campaigns": CAMPAIGNS, "writers": WRITERS,
            "rows": int(ads * rows_per_ad_day / 24) * HOURS, "hours": HOURS, "cells": cells, "countries": COUNTRIES, "devices": DEVICES,
        }
        for statement in (AD_MINUTES, CAMPAIGN_MINUTES, CAMPAIGN_HOURS):
            server.run(statement.format(**values))
    filled = time.monotonic() - started
    parts = f"FROM system.parts WHERE active AND database = '{db}' AND table = 'rollup'"
    before = server.run(f"SELECT count() {parts}").strip()
    rows, size = server.run(f"SELECT sum(rows), sum(bytes_on_disk) {parts}").split()
    return {"rows": int(rows), "bytes": int(size), "parts": int(before), "fillSeconds": filled}


def run(bench):
    """The stage: its tables as Markdown lines."""
    args, folder = bench.args, bench.work / "clickhouse"
    with Server(bench, folder) as server:
        flushed = program(bench, server, "flush", "flush")
        server.run("DROP DATABASE flush SYNC")
        asked = {}
        for db, ads, days, rows in (
            ("day", args.query_ads, 1, args.clickhouse_rows),
            ("week", args.clickhouse_ads, 7, args.clickhouse_week_rows),
        ):
            program(bench, server, "create", db)
            filled = fill(server, db, ads, days, rows)
            answers = program(bench, server, "ask", db, "--ads", ads, "--days", days, "--campaigns", CAMPAIGNS)
            asked[f"{ads:,} ads × {days} days"] = {"filled": filled, "asked": answers}
            server.run(f"DROP DATABASE {db} SYNC")
    bench.figures["clickhouse"] = {"flush": flushed, "questions": asked}
    return table(flushed, asked)


def program(bench, server, step, db, *more):
    """One step of the bench program; with the server's own CPU seconds."""
    cpu = server.cpu()
    command = [bench.programs["clickhouse"], step, "--url", server.url, "--database", db, "--seed", bench.args.seed]
    answer = measure.run([*command, *more]).json()
    return {**answer, "serverCpuSeconds": server.cpu() - cpu}


def table(flushed, asked):
    lines = [
        "`ClickHouseStore` and a server of one node on the same cores (tests/parts/clickhouse). One flush of "
        f"{flushed['new']['rows']:,} ad minutes: {flushed['new']['wallSeconds']:.1f} s when they are new, "
        f"{flushed['changed']['wallSeconds']:.1f} s when they replace older ones; CPU here "
        f"{flushed['new']['cpuSecondsHere']:.1f} and {flushed['changed']['cpuSecondsHere']:.1f} s, of the server for both "
        f"{flushed['serverCpuSeconds']:.1f} s.",
        "",
        "Filled by the server, ads as busy as Zipf has them, asked one question at a time right after:",
        "",
        "| store | question | asked | rows | p50 ms | p99 ms | most ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for store, figures in asked.items():
        filled = figures["filled"]
        head = f"{store}, {filled['rows'] / 1e6:,.1f} M rows, {filled['bytes'] / 2**20:,.0f} MiB"
        for name, told in figures["asked"].items():
            if isinstance(told, dict):
                lines.append(
                    f"| {head} | {NAMES[name]} | {told['questions']:,} | {told['rows']:,} | {told['p50Millis']:.1f} | "
                    f"{told['p99Millis']:.1f} | {told['maxMillis']:.1f} |"
                )
    return lines


NAMES = {
    "anyAd": "any ad's minutes", "busyAd": "a busy ad's minutes", "campaignMinutes": "a campaign's minutes",
    "campaignHours": "a campaign's hours by dimension", "topHour": "top 10 of an hour",
    "topMinutes": "top 10 of 48 minutes",
}
