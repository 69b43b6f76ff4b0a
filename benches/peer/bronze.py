"""Which Parquet files are a table's, by the Delta log (files that were merged away are still on the disk), and what the
peers of the batch stage agree on. For scripts that read the lake with an engine of their own."""

import json
import pathlib
import sys
import urllib.parse

FORGED = ("bad_signature", "expired")
# Where an event is in the log: unique, and the last word on which of two came first.
PLACE = ["region", "partition", "position"]


def files(table):
    """The table's data files by day."""
    live = {}
    for commit in sorted((pathlib.Path(table) / "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                live[action["add"]["path"]] = action["add"]["partitionValues"]["day"]
            elif "remove" in action:
                live.pop(action["remove"]["path"], None)
    days = {}
    for path, day in live.items():
        days.setdefault(day, []).append(str(pathlib.Path(table) / urllib.parse.unquote(path)))
    return days


def main(count):
    """`SCRIPT LAKE DAY OUT`: runs `count(archive's files, the day's files, OUT)` and prints what it answers: `rows` of
    the day and the `first` events among them. OUT is the table of counts."""
    lake, day, out = sys.argv[1:4]
    days = files(pathlib.Path(lake) / "bronze/events")
    print(json.dumps(count(sum(days.values(), []), days[day], out)))
