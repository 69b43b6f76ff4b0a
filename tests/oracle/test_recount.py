"""The oracle itself, clause by clause of contract 2, on histories small enough to count by hand.

Run with the interpreter that has DuckDB: python -m unittest discover -s tests/oracle
"""

import base64
import contextlib
import io
import json
import pathlib
import tempfile
import unittest
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import duckdb

import admit
import compare
import recount

SECRET = base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")
RULES = {
    "counting": {
        "max_late_seconds": 7 * 86_400,
        "max_future_seconds": 300,
        "repeat_click_seconds": 86_400,
        "known_bots": ["bot", "curl/"],
    },
    "partitions": 4,
    "region": "local",
    "keys": {"k1": SECRET},
}
NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)


def at(**moved):
    """An instant around noon of 2 March 2026, as RFC 3339."""
    return (NOON + timedelta(**moved)).isoformat(timespec="microseconds")


def event(event_id, ingest=None, **fields):
    """A click on ad `a` of campaign `c`, taken in when it happened."""
    ingest = ingest or at()
    plain = {
        "eventId": event_id, "eventType": "click", "timestamp": ingest, "adId": "a", "campaignId": "c",
        "ingestTime": ingest,
    }
    return {**plain, **fields}


def signed(fields, key="k1", secret=SECRET):
    fields = {**fields, "keyId": key} if key else dict(fields)
    given = admit.read(json.dumps(fields).encode())
    return {**fields, "signature": admit.sign(secret, given)}


class Case(unittest.TestCase):
    def recount(self, lines, prices="", rules=RULES, jobs=1, keys=None):
        """Recounts lines (dicts, text or bytes) and keeps the results in `self.db`."""
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        raw = [x if isinstance(x, bytes) else (x if isinstance(x, str) else json.dumps(x)).encode() for x in lines]
        (folder / "history.ndjson").write_bytes(b"\n".join(raw) + b"\n")
        (folder / "rules.json").write_text(json.dumps(rules))
        argv = ["--rules", str(folder / "rules.json"), "--out", str(folder / "out"), "--jobs", str(jobs)]
        if keys:
            (folder / "keys.json").write_text(json.dumps({"keys": keys}))
            argv += ["--keys", str(folder / "keys.json")]
        for i, text in enumerate([prices] if isinstance(prices, str) else prices):
            path = folder / f"prices{i}.csv"
            path.write_text("campaignId,model,priceMicros,currency,validFrom\n" + text)
            argv += ["--prices", str(path)]
        with contextlib.redirect_stdout(io.StringIO()):
            self.totals = recount.main(argv + [str(folder / "history.ndjson")])
        self.out = folder / "out"
        self.db = duckdb.connect()
        for table in recount.TABLES:
            self.db.execute(f"CREATE TABLE {table} AS SELECT * FROM '{self.out}/{table}.parquet'")

    def verdicts(self, *args, **kwargs):
        """The verdicts of the events, in the order of their lines, for events of one partition."""
        self.recount(*args, **kwargs)
        return [v for (v,) in self.db.execute("SELECT verdict FROM silver_events ORDER BY partition, position").fetchall()]

    def rows(self, sql):
        return self.db.execute(sql).fetchall()


class BillingTime(Case):
    """2.1"""

    def test_both_bounds_are_inclusive_to_the_microsecond(self):
        week, five = timedelta(days=7), timedelta(minutes=5)
        step = timedelta(microseconds=1)
        happened = [NOON - week, NOON - week - step, NOON + five, NOON + five + step]
        self.recount([event(f"e{i}", timestamp=t.isoformat(timespec="microseconds")) for i, t in enumerate(happened)])
        got = self.rows("SELECT billing_time, clamped, event_time FROM silver_events ORDER BY position")
        naive = [t.replace(tzinfo=None) for t in happened]
        noon = NOON.replace(tzinfo=None)
        self.assertEqual(
            got,
            [(naive[0], False, naive[0]), (noon, True, naive[1]), (naive[2], False, naive[2]), (noon, True, naive[3])],
        )

    def test_bounds_are_settings(self):
        rules = {**RULES, "counting": {**RULES["counting"], "max_late_seconds": 1}}
        self.recount([event("e", timestamp=at(seconds=-2))], rules=rules)
        self.assertEqual(self.rows("SELECT clamped FROM silver_events"), [(True,)])

    def test_days_are_utc_and_half_open(self):
        times = ["2026-03-02T23:59:59.999999Z", "2026-03-03T00:00:00Z", "2026-03-03T00:30:00+01:00"]
        self.recount([event(f"e{i}", ingest="2026-03-03T00:00:01Z", timestamp=t) for i, t in enumerate(times)])
        days = [str(d) for (d,) in self.rows("SELECT day FROM silver_events ORDER BY position")]
        self.assertEqual(days, ["2026-03-02", "2026-03-03", "2026-03-02"])
        self.assertEqual(self.totals["days"], ["2026-03-02", "2026-03-03"])


class Identity(Case):
    """2.2"""

    def test_the_first_by_ingest_time_wins_whatever_the_order_of_the_file(self):
        later, earlier = event("e", at(hours=1), timestamp=at()), event("e", at(), timestamp=at())
        self.assertEqual(self.verdicts([later, earlier]), ["duplicate", "billable"])

    def test_a_copy_on_another_day_is_a_duplicate(self):
        first = event("e")
        self.assertEqual(self.verdicts([first, {**first, "ingestTime": at(days=5)}]), ["billable", "duplicate"])

    def test_equal_ingest_times_are_decided_by_partition_then_position(self):
        rows = [event("e", adId=f"ad-{i}") for i in range(40)]
        self.recount(rows)
        got = self.rows("SELECT partition, position, verdict FROM silver_events ORDER BY partition, position")
        self.assertEqual([v for *_, v in got], ["billable"] + ["conflict"] * 39)
        self.assertEqual(got[0][:2], (0, 0))
        self.assertEqual({p for p, *_ in got}, {0, 1, 2, 3})

    def test_every_field_but_the_proof_makes_another_payload(self):
        first = event("e", costMicros=1, country="DE")
        changed = [
            {"timestamp": at(microseconds=1)}, {"costMicros": 2}, {"country": None}, {"country": "FR"},
            {"eventType": "impression"}, {"url": "u"}, {"userAgent": "x"}, {"schemaVersion": 1}, {"other": 0},
            {"campaignId": "d"},
        ]
        rows = [first] + [{**first, **change} for change in changed]
        self.assertEqual(self.verdicts(rows), ["billable"] + ["conflict"] * len(changed))

    def test_proof_and_ingest_time_are_not_payload(self):
        first = event("e")
        again = signed({**first, "nonce": "n", "expiresAt": at(hours=1)})
        self.assertEqual(
            self.verdicts([first, again, {**first, "ingestTime": at(hours=2)}]), ["billable", "duplicate", "duplicate"]
        )

    def test_the_same_payload_in_another_dress_is_a_duplicate(self):
        millis = int(NOON.timestamp() * 1_000)
        first = event("e", x={"a": 1, "b": [None, 0.5]}, url="é/")
        dresses = [
            {**first, "timestamp": millis},
            {**first, "timestamp": "2026-03-02T17:30:00.0000009+05:30"},
            {**first, "country": None, "unheard": None},
            {**first, "x": {"b": [None, 5e-1], "a": 1}},
            {("clickId" if k == "eventId" else k): v for k, v in reversed(first.items())},
        ]
        raw = json.dumps(first, indent=None, separators=(" , ", "  :\t"), ensure_ascii=False)
        self.assertEqual(self.verdicts([first, *dresses, raw]), ["billable"] + ["duplicate"] * 6)

    def test_numbers_of_unknown_fields_differ_as_they_are_written(self):
        rows = [event("e", x=0), event("e", x=0.0), event("e", x=False), event("e", x="0")]
        rows.append(json.dumps(event("e", x=7)).replace(": 7", ": -0"))
        self.assertEqual(self.verdicts(rows), ["billable"] + ["conflict"] * 4)

    def test_a_duplicate_is_measured_against_the_winner_only(self):
        first, other = event("e"), event("e", country="DE")
        rows = [first, {**other, "ingestTime": at(seconds=1)}, {**other, "ingestTime": at(seconds=2)}, first]
        self.assertEqual(self.verdicts(rows), ["billable", "conflict", "conflict", "duplicate"])

    def test_forged_events_claim_no_id_and_stay_invalid_after_the_real_one(self):
        real = event("e", at(seconds=1), timestamp=at())
        bad = {**real, "ingestTime": at(), "signature": "AAAA", "keyId": "k1"}
        over = signed({**real, "ingestTime": at(), "expiresAt": at(seconds=-1)})
        rows = [bad, over, real, {**bad, "ingestTime": at(seconds=2)}]
        self.assertEqual(
            self.verdicts(rows), ["invalid:bad_signature", "invalid:expired", "billable", "invalid:bad_signature"]
        )

    def test_ids_are_compared_byte_by_byte(self):
        uuid = "0123abcd-0123-abcd-0123-0123456789ab"
        ids = [uuid, uuid.upper(), uuid.replace("-", ""), uuid + "0", uuid[:-1]]
        self.assertEqual(self.verdicts([event(i, country="DE") for i in ids]), ["billable"] * 5)

    def test_a_robot_claims_its_id(self):
        rows = [event("e", userAgent="a bot"), event("e", at(seconds=1), userAgent="a person")]
        self.assertEqual(self.verdicts(rows), ["invalid:known_bot", "conflict"])
        self.assertEqual(self.verdicts(rows[:1] * 2), ["invalid:known_bot", "duplicate"])


class Chains(Case):
    """2.3"""

    def clicks(self, *offsets, **fields):
        return [event(f"e{i}", at(**o), impressionId="i", **fields) for i, o in enumerate(offsets)]

    def test_the_window_is_open_at_its_end(self):
        rows = self.clicks({}, {"hours": 24, "microseconds": -1})
        self.assertEqual(self.verdicts(rows), ["billable", "repeat_click"])
        self.assertEqual(self.verdicts(self.clicks({}, {"hours": 24})), ["billable", "billable"])

    def test_the_chain_counts_from_click_to_click(self):
        rows = self.clicks({}, {"hours": 20}, {"hours": 40}, {"hours": 60}, {"hours": 84})
        self.assertEqual(self.verdicts(rows), ["billable", "repeat_click", "repeat_click", "repeat_click", "billable"])

    def test_ingest_time_decides_and_not_event_time(self):
        rows = self.clicks({}, {"hours": 25}, timestamp=at())
        self.assertEqual(self.verdicts(rows), ["billable", "billable"])

    def test_duplicates_conflicts_and_invalid_clicks_are_not_links(self):
        first = event("e", impressionId="i")
        between = [
            {**first, "ingestTime": at(hours=10)},
            {**first, "ingestTime": at(hours=11), "country": "DE"},
            event("robot", at(hours=12), impressionId="i", userAgent="Bot"),
            event("forged", at(hours=13), impressionId="i", signature="x"),
        ]
        last = event("last", at(hours=24), impressionId="i")
        self.assertEqual(
            self.verdicts([first, *between, last]),
            ["billable", "duplicate", "conflict", "invalid:known_bot", "invalid:bad_signature", "billable"],
        )

    def test_only_clicks_with_an_impression_chain(self):
        rows = [
            event("i", impressionId="i", eventType="impression"),
            event("c", at(seconds=1), impressionId="i"),
            event("v", at(seconds=2), impressionId="i", eventType="conversion"),
            event("n", at(seconds=3)),
            event("m", at(seconds=4)),
        ]
        self.assertEqual(self.verdicts(rows), ["billable"] * 5)

    def test_a_chain_crosses_ads_and_partitions(self):
        rows = [event(f"e{i}", adId=f"ad-{i}", impressionId="i") for i in range(20)]
        self.recount(rows)
        got = self.rows("SELECT verdict FROM silver_events ORDER BY partition, position")
        self.assertEqual([v for (v,) in got], ["billable"] + ["repeat_click"] * 19)

    def test_the_window_is_a_setting(self):
        rules = {**RULES, "counting": {**RULES["counting"], "repeat_click_seconds": 10}}
        self.assertEqual(self.verdicts(self.clicks({}, {"seconds": 10}), rules=rules), ["billable", "billable"])


class Invalid(Case):
    """2.4"""

    def test_robots_are_known_by_any_case_of_ascii_and_only_that(self):
        agents = ["xBoTx", "CURL/8", "curl", "ordinary", "bo\u0442"]
        rows = [event(f"e{i}", userAgent=agent) for i, agent in enumerate(agents)]
        self.assertEqual(self.verdicts(rows), ["invalid:known_bot"] * 2 + ["billable"] * 3)

    def test_signatures_are_recomputed(self):
        good = signed(event("a", expiresAt=at(hours=1), costMicros=5, currency="EUR", impressionId="i", nonce="n"))
        default = signed(event("b"), key=None)
        wrong = {**signed(event("c")), "costMicros": 1}
        nobody = signed(event("d"), key="k9")
        late = signed(event("f", at(hours=2), timestamp=at(), expiresAt=at(hours=1)))
        self.assertEqual(
            self.verdicts([good, default, wrong, nobody, late]),
            ["billable", "billable", "invalid:bad_signature", "invalid:bad_signature", "invalid:expired"],
        )

    def test_a_signature_holds_until_its_second_and_no_longer_than_a_day(self):
        ends = [at(seconds=1), at(milliseconds=999), at(), at(days=1, milliseconds=999), at(days=1, seconds=1)]
        rows = [signed(event(f"e{i}", expiresAt=end)) for i, end in enumerate(ends)]
        self.assertEqual(
            self.verdicts(rows),
            ["billable", "invalid:expired", "invalid:expired", "billable", "invalid:bad_signature"],
        )

    def test_keys_come_from_a_key_file_where_only_active_ones_hold(self):
        keys = [{"id": "k1", "secret": SECRET, "status": "retired"}, {"id": "k2", "secret": SECRET, "status": "active"}]
        rows = [signed(event("a")), signed(event("b"), key="k2"), signed(event("c"), key=None)]
        self.assertEqual(self.verdicts(rows, keys=keys), ["invalid:bad_signature", "billable", "billable"])


class Conservation(Case):
    """2.6 and 2.7"""

    def test_every_accepted_line_has_one_verdict_and_every_other_a_reason(self):
        good = event("e")
        without = [{k: v for k, v in good.items() if k != field} for field in ("eventId", "adId", "timestamp", "eventType")]
        bad_values = [
            {"eventId": "a b"}, {"eventId": ""}, {"eventId": "x" * 65}, {"eventId": 7}, {"eventType": "view"},
            {"timestamp": "yesterday"}, {"timestamp": 1.5}, {"timestamp": -1}, {"timestamp": "2026-02-30T00:00:00Z"},
            {"timestamp": True}, {"costMicros": -1}, {"costMicros": 1.0}, {"costMicros": "1"},
            {"costMicros": 9_223_372_036_854_776}, {"currency": "eur"}, {"country": "DEU"}, {"deviceType": "tv"},
            {"url": "x" * 2_049}, {"schemaVersion": -1}, {"clickId": "twice"}, {f"x{i}": i for i in range(33)} | {},
            {"impressionId": "é"}, {"userAgent": 1}, {"expiresAt": "soon"},
        ]
        lines = [
            good,
            {**event("edge"), "costMicros": 9_223_372_036_854_775, "url": "x" * 2_048, **{f"x{i}": i for i in range(32)}},
            *without,
            *[{**good, **bad} for bad in bad_values],
            '{"adId":"a","adId":"b"}', '{"x":1,"x":2}',
            {**good, "schemaVersion": 2},
            {k: v for k, v in good.items() if k != "campaignId"},
            {**good, "pad": "x" * 32_768},
            "[1]", "nothing", "7", '{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', b'{"a":"\xff"}', '{"a":1}{"b":2}', "{",
            '{"a":' + "[" * 200 + "]" * 200 + "}",
            "", "   ",
        ]
        self.recount(lines)
        self.assertEqual(
            self.totals["refused"],
            {
                "missing_field": 4, "bad_value": len(bad_values) + 2, "unsupported_schema_version": 1, "unknown_ad": 1,
                "too_large": 1, "malformed": 10,
            },
        )
        self.assertEqual(self.totals["verdicts"], {"billable": 2})
        self.assertEqual(self.totals["events"], 2)

    def test_null_is_absent_even_beside_a_value(self):
        text = json.dumps(event("e"))
        self.assertEqual(self.verdicts(['{"adId":null,' + text[1:], text]), ["billable", "duplicate"])

    def test_positions_count_accepted_lines_of_a_partition(self):
        self.recount(["{", event("a"), "{", event("b"), event("c")])
        self.assertEqual(
            self.rows("SELECT event_id, position FROM silver_events ORDER BY ALL"), [("a", 0), ("b", 1), ("c", 2)]
        )

    def test_partitions_are_kafkas(self):
        for key, value in (("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)):
            self.assertEqual(admit.murmur2(key), value % 2**32)


class Money(Case):
    """2.8"""

    BOOK = """\
cpc,cpc,3,EUR,2026-01-01T00:00:00Z
cpm,cpm,1234567,USD,2026-01-01T00:00:00Z
cpa,cpa,7,JPY,2026-01-01T00:00:00Z
own,reported,0,EUR,2026-01-01T00:00:00Z
free,free,9,EUR,2026-01-01T00:00:00Z
"""

    def test_each_model_bills_its_own_kind_in_nanos(self):
        kinds = ("impression", "click", "conversion")
        rows = [
            event(f"{c}-{k}", campaignId=c, eventType=k, costMicros=11)
            for c in ("cpc", "cpm", "cpa", "own", "free", "none")
            for k in kinds
        ]
        self.recount(rows, self.BOOK)
        costs = dict(self.rows("SELECT event_id, cost_nanos FROM silver_events"))
        charged = {
            "cpc-click": 3_000, "cpm-impression": 1_234_567, "cpa-conversion": 7_000,
            "own-impression": 11_000, "own-click": 11_000, "own-conversion": 11_000,
        }
        self.assertEqual(costs, {row["eventId"]: charged.get(row["eventId"], 0) for row in rows})
        models = dict(self.rows("SELECT campaign_id, price_model || ' ' || currency FROM silver_events"))
        self.assertEqual(models["none"], "free XXX")
        self.assertEqual(models["free"], "free EUR")

    def test_a_reported_price_is_in_its_own_currency_or_the_campaigns(self):
        rows = [
            event("own", campaignId="own", costMicros=1, currency="JPY"),
            event("plain", campaignId="own", costMicros=2),
            event("nothing", campaignId="own"),
            event("stray", campaignId="cpc", costMicros=5, currency="JPY"),
        ]
        self.recount(rows, self.BOOK)
        got = dict((i, (c, n)) for i, c, n in self.rows("SELECT event_id, currency, cost_nanos FROM silver_events"))
        self.assertEqual(
            got, {"own": ("JPY", 1_000), "plain": ("EUR", 2_000), "nothing": ("EUR", 0), "stray": ("EUR", 3_000)}
        )

    def test_the_price_in_force_at_billing_time_counts(self):
        book = "c,cpc,1,EUR,2026-03-02T12:00:00Z\nc,cpm,2,USD,2026-03-02T13:00:00.000001Z\n"
        times = [at(microseconds=-1), at(), at(hours=1), at(hours=1, microseconds=1)]
        rows = [event(f"e{i}", t) for i, t in enumerate(times)]
        rows.append(event("clamped", at(hours=2), timestamp=at(days=-30)))
        rows.append(event("late", at(hours=3), timestamp=at()))
        self.recount(rows, book)
        got = self.rows("SELECT price_model, currency, cost_nanos FROM silver_events ORDER BY position")
        self.assertEqual(
            got,
            [("free", "XXX", 0), ("cpc", "EUR", 1_000), ("cpc", "EUR", 1_000), ("cpm", "USD", 0), ("cpm", "USD", 0)]
            + [("cpc", "EUR", 1_000)],
        )

    def test_price_versions_are_those_of_their_import(self):
        first = "c,cpc,1,EUR,2026-01-01T00:00:00Z\n"
        self.recount([event("e"), event("f", adId="b", campaignId="d")], [first, first, first + "d,cpc,1,EUR,2026-01-01T00:00:00Z\n"])
        got = self.rows("SELECT campaign_id, price_version FROM gold_billing_day ORDER BY ALL")
        self.assertEqual(got, [("c", 1), ("d", 2)])

    def test_what_is_not_billable_costs_nothing_but_keeps_its_currency(self):
        rows = [event("e", campaignId="cpc"), event("e", campaignId="cpc"), event("r", campaignId="cpc", userAgent="bot")]
        self.recount(rows, self.BOOK)
        got = self.rows("SELECT verdict, currency, cost_nanos FROM silver_events ORDER BY position")
        self.assertEqual(got, [("billable", "EUR", 3_000), ("duplicate", "EUR", 0), ("invalid:known_bot", "EUR", 0)])

    def test_sums_are_exact_beyond_64_bits_and_currencies_do_not_mix(self):
        most = 9_223_372_036_854_775
        rows = [event(f"e{i}", campaignId="own", costMicros=most, currency="JPY") for i in range(5)]
        rows.append(event("eur", campaignId="own", costMicros=1))
        self.recount(rows, self.BOOK)
        want = [("EUR", Decimal(1_000)), ("JPY", Decimal(most) * 5_000)]
        for table in ("gold_ad_minute", "gold_campaign_hour", "gold_billing_day"):
            self.assertEqual(self.rows(f"SELECT currency, cost_nanos FROM {table} ORDER BY ALL"), want)

    def test_cpm_fractions_add_up(self):
        rows = [event(f"e{i}", campaignId="cpm", eventType="impression") for i in range(1_000)]
        self.recount(rows, self.BOOK)
        self.assertEqual(self.rows("SELECT cost_nanos FROM gold_billing_day"), [(Decimal(1_234_567_000),)])


class Tables(Case):
    """What the numbers are grouped by."""

    def test_minutes_hours_and_days_hold_billable_events_only(self):
        rows = [
            event("a", at(seconds=59), userPseudoId="u", country="DE", deviceType="ctv"),
            event("b", at(seconds=60), userPseudoId="u", country="DE", deviceType="ctv"),
            event("c", at(seconds=61), userPseudoId="v", country="DE", deviceType="ctv"),
            event("d", at(seconds=62), eventType="impression"),
            event("b", at(seconds=60), userPseudoId="u", country="DE", deviceType="ctv"),
            event("r", at(seconds=63), userAgent="bot", userPseudoId="w"),
            event("x", at(minutes=9), userAgent="bot", userPseudoId="w"),
        ]
        self.recount(rows)
        self.assertEqual(
            self.rows("SELECT epoch(minute) % 3600 / 60, impressions, clicks, conversions FROM gold_ad_minute ORDER BY ALL"),
            [(0, 0, 1, 0), (1, 1, 2, 0)],
        )
        self.assertEqual(
            self.rows("SELECT country, device_type, impressions, clicks, uniques FROM gold_campaign_hour ORDER BY ALL"),
            [("DE", "ctv", 0, 3, 2), ("ZZ", "other", 1, 0, 0)],
        )
        self.assertEqual(
            self.rows("SELECT impressions, clicks, duplicates, invalid_known_bot, conflicts FROM gold_billing_day"),
            [(1, 3, 1, 2, 0)],
        )

    def test_the_number_of_processes_changes_nothing(self):
        rows = [event(f"e{i % 700}", at(milliseconds=i), adId=f"ad-{i % 13}") for i in range(2_000)]
        self.recount(rows, jobs=1)
        alone = self.rows("SELECT * FROM silver_events ORDER BY ALL")
        self.recount(rows, jobs=3)
        self.assertEqual(alone, self.rows("SELECT * FROM silver_events ORDER BY ALL"))


class Comparison(Case):
    """compare.py against Delta tables made here."""

    def lake(self):
        """Our tables as the product would write them, equal to the oracle's."""
        root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for table, name in compare.TABLES.items():
            (root / name / "_delta_log").mkdir(parents=True)
            commits = []
            for (day,) in self.rows(f"SELECT DISTINCT day FROM {table} ORDER BY day"):
                file = f"day={day}/part 1.parquet"
                (root / name / f"day={day}").mkdir()
                self.db.execute(
                    f"COPY (SELECT * EXCLUDE (day) FROM {table} WHERE day = '{day}') TO '{root / name / file}'"
                )
                path = file.replace(" ", "%20")
                commits.append({"add": {"path": path, "partitionValues": {"day": str(day)}, "dataChange": True}})
            gone = {"path": "day=2026-01-01/gone.parquet", "partitionValues": {"day": "2026-01-01"}}
            log = root / name / "_delta_log"
            (log / f"{0:020}.json").write_text(json.dumps({"add": gone}) + "\n")
            commits.append({"remove": {"path": gone["path"]}})
            (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, commits)) + "\n")
        return root

    def compare(self, root):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = compare.main([str(root), str(self.out)])
        return code, said.getvalue()

    def setUp(self):
        rows = [event(f"e{i}", at(hours=i), userPseudoId="u", costMicros=i, campaignId="own") for i in range(40)]
        self.recount(rows + rows[:3], Money.BOOK)

    def test_equal_tables_are_equal(self):
        code, said = self.compare(self.lake())
        self.assertEqual(code, 0, said)

    def test_one_nano_is_a_difference_and_is_named(self):
        root = self.lake()
        path = next((root / "gold/ad_minute/day=2026-03-03").iterdir())
        self.db.execute(f"CREATE TABLE minutes AS SELECT * FROM '{path}'")
        self.db.execute("UPDATE minutes SET cost_nanos = cost_nanos + 1 WHERE minute = '2026-03-03 10:00'")
        self.db.execute(f"COPY minutes TO '{path}'")
        code, said = self.compare(root)
        self.assertEqual(code, 1)
        self.assertIn("22001", said)

    def test_a_missing_file_a_second_row_and_an_absent_column_are_differences(self):
        root = self.lake()
        log = root / "silver/events/_delta_log" / f"{2:020}.json"
        log.write_text(json.dumps({"remove": {"path": "day=2026-03-02/part%201.parquet"}}))
        self.assertEqual(self.compare(root)[0], 1)
        log.unlink()
        self.assertEqual(self.compare(root)[0], 0)
        path = next((root / "gold/billing_day/day=2026-03-02").iterdir())
        for change in ("SELECT * FROM t UNION ALL SELECT * FROM t", "SELECT * EXCLUDE (conflicts) FROM t"):
            before = path.read_bytes()
            self.db.execute(f"CREATE OR REPLACE TABLE t AS SELECT * FROM '{path}'")
            self.db.execute(f"COPY ({change}) TO '{path}'")
            self.assertEqual(self.compare(root)[0], 1, change)
            path.write_bytes(before)

    def test_files_may_be_given_instead_of_a_log(self):
        root = self.lake()
        files = {name: str(root / name / "day=*/*.parquet") for name in compare.TABLES.values()}
        listing = root / "files.json"
        listing.write_text(json.dumps(files))
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(compare.main([str(root), str(self.out), "--files", str(listing)]), 0)


if __name__ == "__main__":
    unittest.main()
