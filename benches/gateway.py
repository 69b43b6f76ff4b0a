"""Stage gateway: signed clicks into `clickledger gateway`, durable before each answer, beside nginx answering a static
302 to the same requests; then ours alone at a part of what it took, at fixed moments; then batches of signed events. Both
servers run at once, only one is asked at a time. With --directory-ads, also what a directory of that many ads costs."""

import base64
import concurrent.futures
import hmac
import http.client
import json
import pathlib
import time
import urllib.request

import measure

CAMPAIGNS = 1_000
# A request waits for the disk, so few connections measure its latency and many the server.
CONNECTIONS = (64, 512)
# Enough lines that no click is sent twice, which would be a duplicate and so another kind of work.
LINES_PER_SECOND = 80_000
EVENTS_PER_REQUEST = 200
POSTERS = 8
# The load at which the time of an answer is a goal, as a part of what was taken at most.
PART_OF_LOAD = 0.7
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


def url_of(ad):
    return f"https://adv-{ad % CAMPAIGNS}.example/landing/{ad}"


class Signer:
    """Signs as the contract says, with the newest key of the data folder."""

    def __init__(self, data):
        key = json.loads((data / "keys/signing_keys.json").read_text())["keys"][-1]
        self.key_id, self.secret = key["id"], base64.urlsafe_b64decode(key["secret"] + "=")
        self.exp = int(time.time()) + 12 * 3600

    def sign(self, text):
        tag = hmac.digest(self.secret, text.encode(), "sha256")
        return base64.urlsafe_b64encode(tag).rstrip(b"=").decode()

    def click(self, ad, impression):
        """The path and query of a click link."""
        signature = self.sign(f"v1|{self.key_id}|ad-{ad}|{impression}|{self.exp}")
        return f"/click?adId=ad-{ad}&impressionId={impression}&keyId={self.key_id}&exp={self.exp}&signature={signature}"

    def event(self, ad, number):
        """One signed event as JSON."""
        now, kind = int(time.time() * 1000), "click" if number % 13 == 0 else "impression"
        ids = f"{number:032x}", f"camp-{ad % CAMPAIGNS}", f"imp-e{number:x}"
        event_id, campaign, impression = ids
        signature = self.sign(f"v1|{self.key_id}|{event_id}|{kind}|{now}|ad-{ad}|{campaign}|{impression}|||{self.exp}|")
        return json.dumps({
            "eventId": event_id, "eventType": kind, "timestamp": now, "adId": f"ad-{ad}", "campaignId": campaign,
            "impressionId": impression, "creativeId": f"cr-{ad % 7}", "publisherId": f"pub-{number % 50}",
            "userPseudoId": f"u-{number % 20_000}", "country": "DE", "deviceType": "mobile", "userAgent": BROWSER,
            "keyId": self.key_id, "expiresAt": self.exp * 1000, "signature": signature,
        }, separators=(",", ":"))


def prepare(bench, data, count=None):
    """Ads and a signing key, by the command line; how the import ran."""
    data.mkdir(parents=True)
    ads = bench.work / "ads.csv"
    with open(ads, "w") as file:
        file.write("adId,campaignId,advertiserId,url,status\n")
        for ad in range(count or bench.args.ads):
            file.write(f"ad-{ad},camp-{ad % CAMPAIGNS},adv-{ad % CAMPAIGNS},{url_of(ad)},active\n")
    imported = bench.cli(data, "ads", "import", ads)
    ads.unlink()
    bench.cli(data, "keys", "create", "signing")
    return imported


def nginx(bench, port):
    """nginx as it answers fastest: no access log, connections kept."""
    folder = bench.work / "nginx"
    folder.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes {bench.cores}; pid {folder}/pid;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000000; {temp}\n"
        f"server {{ listen 127.0.0.1:{port}; location = /readyz {{ return 200; }}\n"
        f"location / {{ add_header Cache-Control no-store always; return 302 {url_of(1)}; }} }} }}\n"
    )
    command = [bench.tool("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
    return measure.Server(command, f"http://127.0.0.1:{port}/readyz", log=folder / "out.log")


def ours(bench, data, port):
    """Our gateway on this data folder; it limits nobody."""
    env = {
        "CLICKLEDGER__GATEWAY__LISTEN": f"127.0.0.1:{port}",
        "CLICKLEDGER__GATEWAY__RATE_LIMIT__PER_SECOND": "10000000",
        "CLICKLEDGER__GATEWAY__RATE_LIMIT__BURST": "10000000",
    }
    command = [bench.binary, "gateway", "--data", data, "--log", "warn"]
    return measure.Server(command, f"http://127.0.0.1:{port}/readyz", env, bench.work / "gateway.log")


def load(bench, server, port, lines, connections, rate=None):
    """One turn of wrk, as fast as it goes or at `rate` a second: its figures, and the server's CPU for each request."""
    threads = min(2, bench.cores)
    cpu = measure.cpu_seconds(server.pid)
    ran = measure.run([
        bench.tool("wrk"), "-t", threads, "-c", connections, "-d", f"{bench.args.seconds}s",
        "-s", bench.here / "requests.lua", f"http://127.0.0.1:{port}", "--", lines, threads, *([round(rate)] if rate else []),
    ])
    figures = ran.json()
    cpu = measure.cpu_seconds(server.pid) - cpu
    if figures["failed"] or figures["refused"]:
        raise SystemExit(f"requests failed: {figures}")
    return {
        "requests": figures["requests"], "rps": figures["requests"] / figures["micros"] * 1e6,
        "p50": figures["p50"] / 1e3, "p99": figures["p99"] / 1e3, "cpu": cpu / figures["requests"] * 1e6,
        "busy": cpu / figures["micros"] * 1e6,
    }


def accepted(port):
    """How many events the gateway says it took."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith('clickledger_gateway_events_total{outcome="accepted"}'):
                return int(float(line.split()[-1]))
    return 0


def where_to(port, path):
    """The status and target of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"User-Agent": BROWSER})
    answer = connection.getresponse()
    return answer.status, answer.getheader("Location"), answer.getheader("Cache-Control")


def post_all(port, bodies):
    """Sends every body over a few kept connections; the answers."""

    def post(mine):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        answers = []
        for body in mine:
            connection.request("POST", "/v1/events", body, {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            answers.append((answer.status, answer.read()))
        return answers

    with concurrent.futures.ThreadPoolExecutor(POSTERS) as pool:
        return [a for some in pool.map(post, [bodies[i::POSTERS] for i in range(POSTERS)]) for a in some]


def bodies(bench, signer, turn):
    """The requests of one turn: signed events that no other turn sends."""
    events, made = bench.args.batched_events, []
    for start in range(0, events, EVENTS_PER_REQUEST):
        numbers = range(start, min(start + EVENTS_PER_REQUEST, events))
        lines = [signer.event(n * 7919 % bench.args.ads, turn * events + n) for n in numbers]
        made.append("\n".join(lines).encode())
    return made


def batches(bench, server, port, signer, turn):
    """One turn of batched events: events a second, and CPU for each."""
    events, sent = bench.args.batched_events, bodies(bench, signer, turn)
    before, cpu, started = accepted(port), measure.cpu_seconds(server.pid), time.monotonic()
    answers = post_all(port, sent)
    wall, cpu = time.monotonic() - started, measure.cpu_seconds(server.pid) - cpu
    taken = accepted(port) - before
    if taken != events or any(status != 202 for status, _ in answers):
        raise SystemExit(f"{taken} of {events} events were taken: {answers[0]}")
    return {"eps": events / wall, "cpu": cpu / events * 1e6, "bytes": sum(map(len, sent)) / events}


def run(bench):
    """The stage: its tables as Markdown lines."""
    data, port, peer_port = bench.work / "gateway", measure.free_port(), measure.free_port()
    prepare(bench, data)
    turns, paced, posted = {connections: ([], []) for connections in CONNECTIONS}, [], []
    signer, lines = Signer(data), bench.work / "clicks.txt"
    with ours(bench, data, port) as gateway, nginx(bench, peer_port) as peer:
        answers = where_to(port, signer.click(1, "imp-first")), where_to(peer_port, "/click")
        if answers[0] != answers[1] or answers[0][0] != 302:
            raise SystemExit(f"the two servers answer differently: {answers}")
        sent = 1
        for connections, (mine, theirs) in turns.items():
            for turn in range(bench.args.turns):
                mine.append(clicks(bench, gateway, port, signer, connections, turn))
                theirs.append(load(bench, peer, peer_port, lines, connections))
            rate = PART_OF_LOAD * max(turn["rps"] for turn in mine)
        for turn in range(bench.args.turns):
            paced.append(clicks(bench, gateway, port, signer, CONNECTIONS[-1], turn, rate))
        sent += sum(turn["requests"] for turn in [*paced, *(t for mine, _ in turns.values() for t in mine)])
        for turn in range(bench.args.turns):
            posted.append(batches(bench, gateway, port, signer, turn))
            sent += bench.args.batched_events
        peak, peer_peak = (measure.peak_bytes(measure.tree(server.pid)) for server in (gateway, peer))
    archived = bench.cli(data, "lake", "--drain").json()["events"]
    if not 0 <= archived - sent <= (sum(CONNECTIONS) + CONNECTIONS[-1]) * bench.args.turns:
        raise SystemExit(f"{sent} events were acknowledged, the log holds {archived}")
    bench.figures["gateway"] = {
        "clicks": {n: {"ours": mine, "nginx": theirs} for n, (mine, theirs) in turns.items()},
        "atPartOfLoad": {"rate": rate, "turns": paced}, "events": posted,
        "peakBytes": {"ours": peak, "nginx": peer_peak}, "acknowledged": sent, "archived": archived,
    }
    lines = table(bench, turns, (rate, paced), (peak, peer_peak), posted, (sent, archived))
    return lines + (directory(bench) if bench.args.directory_ads else [])


def clicks(bench, server, port, signer, connections, turn, rate=None):
    """One turn of new clicks, each of which must have been taken."""
    lines, kind = bench.work / "clicks.txt", "paced" if rate else connections
    write_clicks(bench, signer, lines, f"imp-{kind}-{turn}")
    before = accepted(port)
    figures = load(bench, server, port, lines, connections, rate)
    taken = accepted(port) - before
    # wrk leaves a request in flight on each connection.
    if not 0 <= taken - figures["requests"] <= connections:
        raise SystemExit(f"{figures['requests']} clicks answered, {taken} taken: some were sent twice")
    return figures


def directory(bench):
    """What a directory of many ads costs: time until the gateway is ready, and its memory then."""
    data, port, count = bench.work / "directory", measure.free_port(), bench.args.directory_ads
    imported = prepare(bench, data, count)
    started = time.monotonic()
    with ours(bench, data, port) as gateway:
        ready, cpu = time.monotonic() - started, measure.cpu_seconds(gateway.pid)
        peak = measure.peak_bytes(measure.tree(gateway.pid))
        answer = where_to(port, Signer(data).click(count - 1, "imp-last"))
    if answer[:2] != (302, url_of(count - 1)):
        raise SystemExit(f"the last ad of the directory is not known: {answer}")
    figures = {"ads": count, "readySeconds": ready, "cpuSeconds": cpu, "peakBytes": peak, "import": imported.figures()}
    bench.figures["directory"] = figures
    return [
        "",
        f"A directory of {count:,} ads: the gateway is ready after {ready:.1f} s ({cpu:.1f} s of CPU) and has then used at "
        f"most {peak / 2**20:,.0f} MiB. `ads import` took {imported.wall:.1f} s and {imported.peak / 2**20:,.0f} MiB.",
    ]


def write_clicks(bench, signer, lines, prefix):
    """More signed click links than a turn can use up."""
    with open(lines, "w") as file:
        for n in range(LINES_PER_SECOND * bench.args.seconds):
            file.write(signer.click(n * 7919 % bench.args.ads, f"{prefix}-{n:x}") + "\n")


def table(bench, turns, at_part, peaks, posted, counts):
    def row(connections, name, key, digits):
        mine, other = ([turn[key] for turn in side] for side in turns[connections])
        ratio = measure.median(mine) / measure.median(other)
        spreads = f"{measure.spread(mine, digits)} | {measure.spread(other, digits)}"
        return f"| {name}, {connections} connections | {spreads} | {ratio:.2f} |"

    figures = (
        ("requests/s", "rps", 0), ("server's CPU µs per request", "cpu", 1), ("server's busy cores", "busy", 2),
        ("p50 ms", "p50", 2), ("p99 ms", "p99", 2),
    )
    (sent, archived), (rate, paced) = counts, at_part
    answered, p50, p99 = ([turn[key] for turn in paced] for key in ("rps", "p50", "p99"))
    return [
        f"`GET /click`, {bench.args.ads:,} ads, every click signed and new, wrk on the same {bench.cores} cores, "
        f"{bench.args.seconds} s × {bench.args.turns} turns of each:",
        "",
        "| | clickledger: verified, looked up, deduplicated, on disk | nginx: static 302, nothing kept | ratio |",
        "|---|---|---|---|",
        *(row(connections, *figure) for connections in CONNECTIONS for figure in figures),
        f"| peak memory MiB | {peaks[0] / 2**20:,.0f} | {peaks[1] / 2**20:,.0f} | |",
        "",
        f"At {PART_OF_LOAD:.0%} of the most it took with {CONNECTIONS[-1]} connections, {rate:,.0f} requests/s at moments fixed "
        f"before: {measure.spread(answered, 0)} answered a second, p50 {measure.spread(p50, 2)} ms, "
        f"p99 {measure.spread(p99, 2)} ms.",
        "",
        f"`POST /v1/events`, NDJSON, {EVENTS_PER_REQUEST} signed events of {posted[0]['bytes']:.0f} bytes a request, "
        f"{POSTERS} connections, {bench.args.batched_events:,} events × {bench.args.turns} turns:",
        "",
        "| | clickledger |",
        "|---|---|",
        f"| events/s (the client is Python on the same cores) | {measure.spread([p['eps'] for p in posted], 0)} |",
        f"| server's CPU µs per event | {measure.spread([p['cpu'] for p in posted], 2)} |",
        "",
        f"Checked: both answer 302 with the same target and `no-store`; {sent:,} events were acknowledged, and after "
        f"the gateway had stopped the log held {archived:,} (the rest were under way when wrk ended).",
    ]
