"""The settlement oracle itself: it rounds as it says, and finds what is wrong."""

import csv
import gzip
import json
import pathlib
import tempfile
import unittest

import settled

COLUMNS = (*settled.KEY, *settled.COUNTS, "cost_micros")
ONE = ("camp-1", "ad-1", "EUR", "cpc", "1", "0", "2", "0", "2500", "2")
MORE = ("camp-1", "ad-1", "EUR", "cpc", "1", "0", "3", "0", "3750", "4")
DELTA = ("camp-1", "ad-1", "EUR", "cpc", "1", "0", "1", "0", "1250", "2")


def rows(file, lines):
    out = csv.writer(file)
    out.writerow(COLUMNS)
    out.writerows(lines)


class Settled(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.day = pathlib.Path(self.folder.name) / "day=2026-01-05"
        self.addCleanup(self.folder.cleanup)
        self.version(1, [ONE], 2)

    def version(self, number, lines, due, deltas=None):
        folder = self.day / f"v={number}"
        folder.mkdir(parents=True)
        with gzip.open(folder / "lines-0000.csv.gz", "wt", newline="") as file:
            rows(file, lines)
        if deltas is not None:
            with open(folder / "deltas.csv", "w", newline="") as file:
                rows(file, deltas)
        (folder / "manifest.json").write_text(json.dumps({"dueMicros": {"EUR": due}}))

    def oracle(self, clicks, nanos):
        key = ("camp-1", "ad-1", "EUR", "cpc", 1)
        return {key: (0, clicks, 0, nanos, settled.half_even(nanos))}

    def check(self, lines, adjustments=()):
        return settled.check_day(self.day, lines, list(adjustments))

    def test_ties_go_to_the_even_micro(self):
        wanted = {500: 0, 501: 1, 1500: 2, 2500: 2, -500: 0, -501: -1, -1500: -2, 999_499: 999}
        self.assertEqual({n: settled.half_even(n) for n in wanted}, wanted)

    def test_what_is_right_passes_and_says_what_is_due(self):
        self.assertEqual(self.check(self.oracle(2, 2500)), {("camp-1", "EUR"): 2})

    def test_another_count_or_an_adjustment_that_is_not_due_is_found(self):
        for lines, adjustments in ((self.oracle(3, 2500), []), (self.oracle(2, 2500), [("camp-1", "EUR", -1)]), ({}, [])):
            with self.assertRaises(AssertionError):
                self.check(lines, adjustments)

    def test_a_restatement_is_the_version_before_plus_its_deltas(self):
        self.version(2, [MORE], 3, [DELTA])
        self.assertEqual(self.check(self.oracle(3, 3750), [("camp-1", "EUR", -1)])["camp-1", "EUR"], 3)
        (self.day / "v=2/deltas.csv").write_text(",".join(COLUMNS) + "\n")
        with self.assertRaises(AssertionError):
            self.check(self.oracle(3, 3750), [("camp-1", "EUR", -1)])


if __name__ == "__main__":
    unittest.main()
