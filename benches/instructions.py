"""Stage instructions: how many instructions each hot part takes, counted by callgrind. They repeat to a fraction of a
percent on a machine that others use too, so a regression is seen in the part that has it."""

import re
import subprocess

# What `hot` calls a part, what it is, and which part's count is taken off, because it does that first.
PARTS = (
    ("json", "decode: a client's JSON to a judged submission", None),
    ("encode", "encode: an event to log bytes", None),
    ("hmac", "HMAC: a click link's signature", None),
    ("decode", "speed: decode a record", None),
    ("dedup", "speed: deduplicate it", "decode"),
    ("window", "speed: bot list, price and windows", "dedup"),
    ("rows", "speed: changed rows, for each event", None),
    ("sketch", "sketch: a user into a sketch of unique users", None),
    ("archive", "lake: an event into zstd Parquet", None),
    ("commit", "log: an event appended, 100 to a sync (the kernel's part is not counted)", None),
)


def run(bench):
    """The stage: its table as Markdown lines."""
    counted = {part: one(bench, part) for part, _, _ in PARTS}
    bench.figures["instructions"] = counted

    def row(part, name, less):
        own = counted[part] - (counted[less] if less else 0)
        return f"| {name} | {own:,.0f} |"

    return [
        f"`benches/hot.rs` under callgrind, {bench.args.hot_events:,} events; set-up counted by itself and taken off. "
        "valgrind offers no SHA instructions, so what hashes (JSON's fingerprint, HMAC, the archive's id hash) counts "
        "several times what the processor does.",
        "",
        "| part | instructions an event |",
        "|---|---|",
        *(row(*part) for part in PARTS),
    ]


def one(bench, part):
    """Instructions an event of one part."""
    command = [bench.programs["hot"], "--part", part, "--events", bench.args.hot_events, "--seed", bench.args.seed]
    return (count(bench, command) - count(bench, [*command, "--set-up-only"])) / bench.args.hot_events


def count(bench, command):
    """All instructions of a run."""
    valgrind = [bench.tool("valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    ran = subprocess.run([*valgrind, *map(str, command)], stderr=subprocess.PIPE, text=True)
    found = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode or not found:
        raise SystemExit(f"{' '.join(map(str, command))} under valgrind:\n{ran.stderr}")
    return int(found[1])
