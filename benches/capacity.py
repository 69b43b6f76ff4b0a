"""From figures for one event to machines, storage and money: reads capacity.toml and writes the tables of
docs/capacity.md. `python3 benches/capacity.py` (3.11 or newer, no packages); `--print` only prints."""

import math
import pathlib
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
REPORT = HERE.parent / "docs/capacity.md"
MARK = "<!-- computed: written by benches/capacity.py, do not edit below -->"
DAY = 86_400


def size(at_peak, p):
    """Everything one load needs: name → number. GB are 10^9 bytes."""
    load, cpu, byte, keep, limit = p["load"], p["cpu_micros"], p["bytes"], p["keep"], p["limits"]
    average = at_peak / load["peak_to_average"]
    daily = average * DAY

    def cores(*parts):
        return for_micros(sum(cpu[part] for part in parts))

    def for_micros(micros):
        """At least two, so that one may be away."""
        return max(2, at_peak * micros / 1e6 / load["busy_at_peak"] * load["spare"])

    edge = load["single_requests"] * cpu["click"] + (1 - load["single_requests"]) * cpu["batched_event"]
    need = {
        "peak": at_peak, "average": average, "daily": daily,
        "gateway": for_micros(edge + cpu["kafka_produce"]),
        "speed": cores("kafka_consume", "speed", "speed_to_clickhouse"),
        "lake": cores("kafka_consume", "archive", "merge"),
        # Batch works through a day in a quarter of one, at full load, on machines of its own.
        "batch": daily * (cpu["batch"] + cpu["reconcile"]) / 1e6 / (DAY / 4),
        "clickhouse": cores("clickhouse") * keep["clickhouse_replicas"],
        "speed_gb": daily * keep["dedup_days"] * byte["dedup_memory"] / 1e9,
        "redis_gb": daily * keep["dedup_days"] * byte["redis"] / 1e9,
        "kafka_gb": daily * keep["kafka_days"] * byte["kafka"] * keep["kafka_replicas"] / 1e9,
        "clickhouse_gb": daily * keep["clickhouse_days"] * byte["clickhouse"] * keep["clickhouse_replicas"] / 1e9,
        "standard_gb": daily * (
            keep["standard_days"] * (byte["bronze"] + byte["silver"]) + keep["gold_days"] * byte["gold"]) / 1e9,
        "infrequent_gb": daily * keep["infrequent_days"] * (byte["bronze"] + byte["silver"]) / 1e9,
        "archive_gb": daily * keep["archive_days"] * byte["bronze"] / 1e9,
        "kafka_in_mb": at_peak * byte["kafka"] / 1e6,
        "partitions": max(8, math.ceil(at_peak / limit["partition_events"])),
        "redis_nodes": math.ceil(daily * keep["dedup_days"] * byte["redis"] / 1e9 / limit["redis_node_gb"]),
    }
    written = need["kafka_in_mb"] * keep["kafka_replicas"]
    disks = need["kafka_gb"] / 1e3 / limit["broker_disk_tb"]
    need["brokers"] = max(keep["kafka_replicas"], math.ceil(written / limit["broker_write_mb"]), math.ceil(disks))
    need["limited_by"] = "three zones" if need["brokers"] == 3 else (
        "disk" if disks > written / limit["broker_write_mb"] else "writes")
    return {**need, **cost(need, p)}


def cost(need, p):
    """Dollars a month, by part."""
    price, keep = p["prices"], p["keep"]
    hours = price["hours_in_a_month"]

    def machines(cores, gb):
        more = max(0, gb - cores * price["memory_gb_per_core"])
        return (math.ceil(cores) * price["core_hour"] + more * price["memory_gb_hour"]) * hours

    month = need["average"] * DAY * 365 / 12 * p["bytes"]["kafka"] / 1e9
    # Two thirds of what producers send and consumers would fetch from a leader is elsewhere; consumers read the nearest
    # replica, so only producers and the replicas themselves cross.
    crossing = month * (2 / 3 + keep["kafka_replicas"] - 1)
    quarter = 0.25
    paid = {
        "$ gateways": machines(need["gateway"], 0),
        "$ Kafka": machines(need["brokers"] * p["limits"]["broker_cores"], 0) + need["kafka_gb"] * price["disk_gb_month"],
        "$ between zones": crossing * price["zone_gb"],
        "$ speed": machines(need["speed"], need["speed_gb"]),
        "$ Redis": machines(need["redis_nodes"], need["redis_gb"]),
        "$ lake": machines(need["lake"], 0),
        "$ batch": machines(need["batch"], 0) * quarter,
        "$ ClickHouse": machines(need["clickhouse"], 0) + need["clickhouse_gb"] * price["disk_gb_month"],
        "$ object store": need["standard_gb"] * price["standard_gb_month"]
        + need["infrequent_gb"] * price["infrequent_gb_month"] + need["archive_gb"] * price["archive_gb_month"],
    }
    total = sum(paid.values())
    return {**paid, "$ a month": total, "million": total / (need["daily"] * 365 / 12) * 1e6}


def amount(gb):
    """A size in its fitting unit."""
    for unit, factor in (("PB", 1e6), ("TB", 1e3)):
        if gb >= factor:
            return f"{gb / factor:,.1f} {unit}"
    return f"{gb:,.0f} GB"


def tables(p):
    sized = [size(rate, p) for rate in p["load"]["peak_events_per_second"]]

    def row(name, show):
        return f"| {name} | " + " | ".join(show(s) for s in sized) + " |"

    def whole(key):
        return lambda s: f"{math.ceil(s[key]):,}"

    head = [row("events/s at the peak", whole("peak")), "|---|" + "---|" * len(sized)]
    storage = (
        ("Kafka, all replicas", "kafka_gb"), ("object store, standard", "standard_gb"),
        ("object store, infrequent", "infrequent_gb"), ("object store, archive", "archive_gb"),
        ("ClickHouse, all replicas", "clickhouse_gb"), ("speed layer's memory", "speed_gb"), ("Redis", "redis_gb"),
    )
    paid = [key for key in sized[0] if key.startswith("$")]
    return [
        "### Machines", "", *head,
        row("events/s on average", whole("average")), row("events a day", lambda s: f"{s['daily'] / 1e9:,.2f} billion"),
        row("gateway cores", whole("gateway")), row("speed cores", whole("speed")), row("lake cores", whole("lake")),
        row("batch cores, six hours a day", whole("batch")), row("ClickHouse cores", whole("clickhouse")),
        row("into Kafka, MB/s at the peak", whole("kafka_in_mb")),
        row("brokers (what decides)", lambda s: f"{s['brokers']:,} ({s['limited_by']})"),
        row("partitions", whole("partitions")), row("Redis nodes", whole("redis_nodes")),
        "", "### Storage, once retention is full", "", *head,
        *(row(name, lambda s, key=key: amount(s[key])) for name, key in storage),
        "", f"### Dollars a month, list prices of {p['prices']['as_of']}", "", *head,
        *(row(key.removeprefix("$ "), lambda s, key=key: f"{s[key]:,.0f}") for key in paid[:-1]),
        row("**all**", lambda s: f"**{s['$ a month']:,.0f}**"), row("a million events", lambda s: f"{s['million']:,.2f}"),
    ]


def sources(p):
    """The sources' own arithmetic, done again: where, what it says, what it is."""
    brokers, retention, ours = 30, 168, p["bytes"]["kafka"]
    petabyte, events, seconds = 1e15, 100e9, 10e6
    on_disk = petabyte / 5 * 3
    found = [
        ("000, cost per event", "$0.00023", f"$705,400 ÷ (100 billion × 30) = ${705_400 / events / 30:.2e}: "
         f"${705_400 / events / 30 * 1000:.6f} per *thousand* events; the figure is a thousand times too high"),
        ("000, size of an event", "1 PB/day, 100 billion events", f"{petabyte / events / 1e3:.0f} kB an event; the other "
         f"sources say 0.1–0.5 kB; ours are {ours} bytes on Kafka, {p['bytes']['bronze']} in the archive"),
        ("000, Kafka's disks", f"{brokers} × 1 TB, {retention} h", f"1 PB/day, five times compressed, three replicas: "
         f"{on_disk / 1e12:,.0f} TB a day, so 30 TB hold {brokers * 1e12 / on_disk * 24:.1f} h"),
        ("000, Kafka's throughput", "250 MiB/s a broker", f"10 M/s × 10 kB ÷ {brokers} = "
         f"{seconds * petabyte / events / brokers / 1e9:.1f} GB/s a broker before replication; with our {ours} bytes and three "
         f"replicas still {seconds * ours * 3 / brokers / 1e6:,.0f} MB/s"),
        ("000, peak", "10 M/s, 100 billion a day", f"{events / DAY / 1e6:.2f} M/s on average, so the peak is "
         f"{seconds / (events / DAY):.1f} times that"),
        ("000, storage prices", "10 PB Standard-IA for $60,000", f"${60_000 / 10e6:.4f} a GB-month; the list says "
         f"{p['prices']['infrequent_gb_month']}: ${10e6 * p['prices']['infrequent_gb_month']:,.0f}"),
        ("000, Glacier", "5 PB for $9,000", f"${9_000 / 5e6:.4f} a GB-month lies between Deep Archive "
         f"({p['prices']['archive_gb_month']}) and every faster class"),
        ("000, sums", "$245,000, $410,400, $705,400, $8,464,800", "these add up"),
        ("000, brokers on spot machines", "70 % saved", "a broker that is taken away copies its disk again; not done here"),
        ("001, average", "10 billion/day ≈ 116 k/s", f"{10e9 / DAY:,.0f}/s; right. Its peaks are "
         f"{500e3 / (10e9 / DAY):.1f} to {1e6 / (10e9 / DAY):.1f} times that"),
        ("001, raw", "500 bytes, 5 TB/day, PB a year", f"{10e9 * 500 * 365 / 1e15:.1f} PB a year as sent; in our archive "
         f"{10e9 * p['bytes']['bronze'] * 365 / 1e12:,.0f} TB"),
        ("001, duplicates over 7 days", "Redis or RocksDB", f"70 billion ids: {70e9 * 16 / 1e12:.1f} TB at 16 bytes, "
         f"{70e9 * p['bytes']['redis'] / 1e12:.0f} TB in Redis; we keep a day at the edge and all of them in batch"),
        ("002, a day", "10,000/s peak ≈ 860 M/day", f"{10_000 * DAY / 1e6:.0f} M only if the peak lasts all day; at "
         f"100–200 bytes {10_000 * DAY * 100 / 1e9:.0f}–{10_000 * DAY * 200 / 1e9:.0f} GB a day"),
        ("002, Redis", "10,000/s × 600 s ≈ 6 M keys", f"right; {6e6 * p['bytes']['redis'] / 1e9:.1f} GB. A day of them is "
         f"{10_000 * DAY * p['bytes']['redis'] / 1e9:,.0f} GB"),
        ("003, peak", "1 billion/day, 100,000/s", f"{1e9 / DAY:,.0f}/s on average: a peak of {100e3 / (1e9 / DAY):.1f} times"),
        ("004, a day has 100,000 s", "10,000/s, peak 50,000/s", f"86,400: {1e9 / DAY:,.0f}/s and {5e9 / DAY:,.0f}/s; "
         "the year's 36.5 TB is right, because the same 100,000 is multiplied back"),
        ("004, page views", "10/s", f"1 M ÷ 86,400 = {1e6 / DAY:.1f}/s (and 100,000 are once monthly, once daily users)"),
    ]
    return ["| where | says | is |", "|---|---|---|", *(f"| {where} | {says} | {is_} |" for where, says, is_ in found)]


def main():
    parameters = tomllib.loads((HERE / "capacity.toml").read_text())
    lines = ["## Computed", "", *tables(parameters), "", "## The sources' arithmetic", "", *sources(parameters)]
    print("\n".join(lines))
    if "--print" not in sys.argv:
        head = REPORT.read_text().split(MARK)[0].rstrip()
        REPORT.write_text(f"{head}\n\n{MARK}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
