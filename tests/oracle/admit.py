"""The edge, said again in Python: which lines of a history are events, and what each of them is.

Written from the contract (section 1 and 2.2) and not from any code of the product. One line of NDJSON becomes
either a row for DuckDB or the reason of its refusal. Nothing is counted here; that is `count.sql`.
"""

import base64
import functools
import hashlib
import hmac
import json
import re
from datetime import date

MAX_EVENT_BYTES = 32 * 1024
MAX_TEXT_BYTES = 2_048
MAX_EXTRA_FIELDS = 32
MAX_DEPTH = 127
MAX_COST_MICROS = (2**63 - 1) // 1_000
LAST_MICROSECOND = 253_402_300_799_999_999  # of the year 9999
EPOCH = date(1970, 1, 1).toordinal()

IDS = (
    "eventId", "adId", "campaignId", "advertiserId", "creativeId", "publisherId", "impressionId",
    "userPseudoId", "sessionId", "bidRequestId",
)
PROOF = ("signature", "keyId", "nonce")
TEXTS = ("ipHash", "userAgent", "url")
WORDS = ("eventType", "country", "deviceType", "currency")
STRINGS = frozenset(IDS + PROOF + TEXTS + WORDS)
INTEGERS = {"costMicros": (-(2**63), 2**63 - 1), "schemaVersion": (0, 2**32 - 1)}
TIMES = frozenset(("timestamp", "expiresAt", "ingestTime"))
NOT_PAYLOAD = frozenset(("signature", "keyId", "expiresAt", "nonce", "ingestTime"))

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
COUNTRY = re.compile(r"[A-Z]{2}")
CURRENCY = re.compile(r"[A-Z]{3}")
RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)
EVENT_TYPES = frozenset(("impression", "click", "conversion"))
DEVICE_TYPES = frozenset(("desktop", "mobile", "tablet", "ctv", "other"))

# The columns of a row, in the order of `Edge.row`; the types are those of the table `admitted`.
COLUMNS = {
    "line": "BIGINT", "partition": "INTEGER", "ingest_time": "BIGINT", "event_time": "BIGINT",
    "event_id": "VARCHAR", "event_type": "VARCHAR", "ad_id": "VARCHAR", "campaign_id": "VARCHAR",
    "impression_id": "VARCHAR", "user_pseudo_id": "VARCHAR", "country": "VARCHAR", "device_type": "VARCHAR",
    "cost_micros": "BIGINT", "own_currency": "VARCHAR", "payload": "VARCHAR", "forged": "VARCHAR",
    "is_bot": "BOOLEAN",
}


class Refused(Exception):
    """A line that is not an event; its first argument is the reason's code."""


class Twice(dict):
    """A JSON object in which some name stands more than once."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = pairs


def _object(pairs):
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else Twice(pairs)


def _integer(text):
    """An integer, if 64 bits hold it; what they do not hold is a floating-point number, and so is -0."""
    value = int(text)
    return float(text) if text == "-0" or not -(2**63) <= value < 2**64 else value


def _float(text):
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _constant(text):
    raise ValueError(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _depth(text):
    """How deep the brackets of a JSON text nest, not counting those in strings."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def parse(line):
    """The JSON object in a line of bytes, as its pairs."""
    if len(line) > MAX_EVENT_BYTES:
        raise Refused("too_large")
    try:
        text = line.decode("utf-8")
        if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
            raise Refused("malformed")
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is not text
    except (ValueError, RecursionError):
        raise Refused("malformed") from None
    if not isinstance(value, dict):
        raise Refused("malformed")
    return value.pairs if isinstance(value, Twice) else value.items()


@functools.lru_cache(maxsize=4_096)
def _days(text):
    year, month, day = text.split("-")
    return date(int(year), int(month), int(day)).toordinal() - EPOCH


def micros(value):
    """RFC 3339 text or epoch milliseconds as microseconds since 1970, finer digits cut; None if it is neither."""
    if type(value) is int:
        instant = value * 1_000
    elif type(value) is str and (match := RFC3339.fullmatch(value)):
        day, hour, minute, second, fraction, sign, off_hours, off_minutes = match.groups()
        if int(hour) > 23 or int(minute) > 59 or int(second) > 60 or int(off_hours or 0) > 23 or int(off_minutes or 0) > 59:
            return None
        try:
            seconds = _days(day) * 86_400 + int(hour) * 3_600 + int(minute) * 60 + min(int(second), 59)
        except ValueError:
            return None
        if sign:
            offset = int(off_hours) * 3_600 + int(off_minutes) * 60
            seconds += -offset if sign == "+" else offset
        instant = seconds * 1_000_000 + int(((fraction or "") + "000000")[:6])
    else:
        return None
    return instant if 0 <= instant <= LAST_MICROSECOND else None


def read(line):
    """The fields a line gives, by name, times in microseconds; unknown ones under `extra`."""
    given, extra = {}, {}
    for name, value in parse(line):
        if value is None:
            continue
        if name == "clickId":
            name = "eventId"
        if name in STRINGS:
            good = type(value) is str
        elif name in TIMES:
            value = micros(value)
            good = value is not None
        elif name in INTEGERS:
            low, high = INTEGERS[name]
            good = type(value) is int and low <= value <= high
        else:
            if name in extra or len(extra) == MAX_EXTRA_FIELDS:
                raise Refused("bad_value")
            extra[name] = value
            continue
        if not good or name in given:
            raise Refused("bad_value")
        given[name] = value
    if extra:
        given["extra"] = extra
    return given


def check(given):
    """Refuses what breaks a rule of contract 1."""
    if given.get("schemaVersion", 1) > 1:
        raise Refused("unsupported_schema_version")
    for name in IDS:
        if name in given and not ID.fullmatch(given[name]):
            raise Refused("bad_value")
    for name in TEXTS + (PROOF if "signature" in given else ()):
        if name in given and len(given[name].encode()) > MAX_TEXT_BYTES:
            raise Refused("bad_value")
    good = (
        given.get("eventType", "click") in EVENT_TYPES
        and given.get("deviceType", "other") in DEVICE_TYPES
        and COUNTRY.fullmatch(given.get("country", "ZZ"))
        and CURRENCY.fullmatch(given.get("currency", "XXX"))
        and 0 <= given.get("costMicros", 0) <= MAX_COST_MICROS
    )
    if not good:
        raise Refused("bad_value")
    if not all(name in given for name in ("eventId", "eventType", "timestamp", "adId")):
        raise Refused("missing_field")
    if "campaignId" not in given:
        raise Refused("unknown_ad")  # a history is recounted without an ad directory


def payload(given):
    """What makes two events with one id a duplicate or a conflict: all the client sent but its proof."""
    sent = {name: value for name, value in given.items() if name not in NOT_PAYLOAD}
    text = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.lru_cache(maxsize=1 << 20)
def murmur2(key):
    """Kafka's hash of a text key, an unsigned 32-bit number."""
    data, mask, m = key.encode(), 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


class Edge:
    """The rules of one recount that judge a line by itself."""

    def __init__(self, rules):
        self.partitions = rules["partitions"]
        self.bots = [bot.encode().lower() for bot in rules["counting"]["known_bots"]]
        self.keys = {key: _secret(text) for key, text in rules.get("keys", {}).items()}
        self.max_validity = rules.get("max_validity_seconds", 86_400) * 1_000_000

    def row(self, number, line):
        """The row of one line, or `Refused`."""
        given = read(line)
        check(given)
        ingest = given.get("ingestTime")
        if ingest is None:
            raise SystemExit(f"line {number} is an event without an ingestTime: it cannot be recounted")
        ad = given["adId"]
        return (
            number, (murmur2(ad) & 0x7FFFFFFF) % self.partitions, ingest, given["timestamp"],
            given["eventId"], given["eventType"], ad, given["campaignId"],
            given.get("impressionId", ""), given.get("userPseudoId", ""),
            given.get("country", "ZZ"), given.get("deviceType", "other"),
            given.get("costMicros", ""), given.get("currency", ""),
            payload(given), self.forged(given, ingest), self.is_bot(given),
        )

    def is_bot(self, given):
        # bytes.lower folds A to Z and nothing else, which is the rule.
        agent = given.get("userAgent", "").encode().lower()
        return any(bot in agent for bot in self.bots)

    def forged(self, given, ingest):
        """`bad_signature`, `expired` or nothing. Unsigned rows are accepted in an import."""
        if "signature" not in given:
            return ""
        named = given.get("keyId")
        keys = [self.keys.get(named)] if named is not None else self.keys.values()  # without a name, any may fit
        signed = canonical(given).encode()
        tags = [_base64url(hmac.digest(key, signed, "sha256")) for key in keys if key]
        if given["signature"] not in tags:
            return "bad_signature"
        if "expiresAt" not in given:
            return ""
        left = given["expiresAt"] // 1_000_000 * 1_000_000 - ingest
        if left > self.max_validity:
            return "bad_signature"  # it would outlive the memory for duplicates
        return "" if left > 0 else "expired"


def canonical(given):
    """The text under an event's signature; what is absent is empty.

    `v1|keyId|eventId|eventType|timestampMillis|adId|campaignId|impressionId|costMicros|currency|exp|nonce`
    """
    expires = given.get("expiresAt")
    parts = (
        "v1", given.get("keyId", ""), given["eventId"], given["eventType"], given["timestamp"] // 1_000,
        given["adId"], given.get("campaignId", ""), given.get("impressionId", ""), given.get("costMicros", ""), given.get("currency", ""),
        "" if expires is None else expires // 1_000_000, given.get("nonce", ""),
    )
    return "|".join(map(str, parts))


def sign(secret, given):
    """The signature of an event under a base64url secret."""
    return _base64url(hmac.digest(_secret(secret), canonical(given).encode(), "sha256"))


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _secret(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
