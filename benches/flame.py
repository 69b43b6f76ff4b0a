"""Stage flame: where the time of the hot paths goes, sampled by perf and drawn as docs/flame/*.svg. Not among the stages
that run by default: it measures nothing that is compared. What the pictures say is written in docs/flame/README.md."""

import contextlib
import html
import re
import subprocess

import batch
import gateway
import measure

HERTZ = 499
WIDTH, ROW, LETTER = 1_200, 16, 6.4
# Frames narrower than this share are left out, so that a picture stays small.
LEAST = 0.002
CONNECTIONS = 256
OURS = re.compile(r"^<?&?(mut )?(clickledger|shared|gateway|speed|lake|batch|reconcile|serving|hot)::")
KERNEL = " [kernel]"
# What every Rust program and every thread begins with, and what only says that a closure is called.
NOISE = re.compile(
    r"^(_start|main|__libc_start.*|_?_?start_thread|clone3?|__clone.*|std::(rt|sys|thread|panic|panicking)::.*"
    r"|core::ops::function::.*|<alloc::boxed::Box.*FnOnce.*|<core::panic::unwind_safe.*|__rust_try|\[unknown\])$"
)


def run(bench):
    """The stage: records every path, writes the pictures, and names them."""
    folder = bench.here.parent / "docs/flame"
    folder.mkdir(exist_ok=True)
    lines = []
    for name, title, record in (
        ("speed", "speed layer: records to rows", speed),
        ("click", "gateway: GET /click", click),
        ("events", "gateway: POST /v1/events", events),
        ("lake", "lake --drain: log to Parquet", lake),
        ("batch", "batch run: a day", day),
    ):
        data = bench.work / f"{name}.perf"
        record(bench, data)
        stacks = fold(data)
        (folder / f"{name}.svg").write_text(draw(stacks, title))
        lines.append(f"- [{title}](flame/{name}.svg): {sum(stacks.values()):,} samples")
        data.unlink()
    return lines


def perf(bench, data, *what):
    """The command that samples `what` into `data`. Rust keeps no frame pointers, so stacks are copied and unwound."""
    how = ["-F", HERTZ, "-e", "cpu-clock", "--call-graph", "dwarf,8192"]
    return [bench.tool("perf"), "record", "-q", "-o", data, *how, *what]


def speed(bench, data):
    program = [bench.programs["speed"], "--events", bench.args.speed_events, "--seed", bench.args.seed]
    measure.run(perf(bench, data, "--", *program))


@contextlib.contextmanager
def watched(bench, data, server):
    """Samples a running server for `--seconds`, and longer than what is done meanwhile."""
    watch = subprocess.Popen(list(map(str, perf(bench, data, "-p", server.pid, "--", "sleep", bench.args.seconds))))
    yield watch
    watch.wait()


def click(bench, data):
    folder, port, lines = bench.work / "flame-gateway", measure.free_port(), bench.work / "clicks.txt"
    gateway.prepare(bench, folder)
    gateway.write_clicks(bench, gateway.Signer(folder), lines, "imp-flame")
    with gateway.ours(bench, folder, port) as server, watched(bench, data, server):
        gateway.load(bench, server, port, lines, CONNECTIONS)


def events(bench, data):
    folder, port, turn = bench.work / "flame-gateway", measure.free_port(), 1_000
    signer = gateway.Signer(folder)
    with gateway.ours(bench, folder, port) as server, watched(bench, data, server) as watch:
        while watch.poll() is None:
            gateway.post_all(port, gateway.bodies(bench, signer, turn))
            turn += 1


def lake(bench, data):
    folder = bench.work / "flame-day"
    folder.mkdir()
    batch.simulate(bench, folder, bench.args.events)
    measure.run(perf(bench, data, "--", bench.binary, "--data", folder, "--log", "warn", "lake", "--drain"))


def day(bench, data):
    folder = bench.work / "flame-day"
    bench.cli(folder, "lake", "optimize", "--date", batch.DAY)
    job = ["batch", "run", "--date", batch.DAY]
    measure.run(perf(bench, data, "--", bench.binary, "--data", folder, "--log", "warn", *job))


def fold(data):
    """Stacks, outermost first, and how often each was seen."""
    command = ["perf", "script", "-i", str(data), "--no-inline", "-F", "comm,ip,sym,dso"]
    script = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", check=True)
    stacks = {}
    for sample in script.stdout.split("\n\n"):
        head, *frames = sample.strip("\n").split("\n")
        names = [name for name in map(frame, reversed(frames)) if name]
        if names:
            stack = (head.split()[0], *names)
            stacks[stack] = stacks.get(stack, 0) + 1
    return stacks


def frame(line):
    """A frame's name without hash and offset; None for one that says nothing."""
    found = re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line)
    if not found or NOISE.match(found[1]):
        return None
    name = re.sub(r"::h[0-9a-f]{16}$", "", found[1])
    return name + KERNEL if "kernel" in found[2] else name


class Node:
    """A frame under its callers: how often it was seen, and what it called."""

    def __init__(self):
        self.seen, self.calls = 0, {}


def tree(stacks):
    root = Node()
    for stack, seen in stacks.items():
        node = root
        node.seen += seen
        for name in stack:
            node = node.calls.setdefault(name, Node())
            node.seen += seen
    return root


def draw(stacks, title):
    """The picture: callers below, callees above them, as wide as their share of the samples."""
    root = tree(stacks)
    boxes, deepest = [], 0
    waiting = [("all", root, 0.0, 0)]
    while waiting:
        name, node, left, depth = waiting.pop()
        deepest = max(deepest, depth)
        boxes.append((name, node.seen, left, depth))
        for called, below in sorted(node.calls.items()):
            if below.seen >= LEAST * root.seen:
                waiting.append((called, below, left, depth + 1))
                left += below.seen * WIDTH / root.seen
    height = (deepest + 1) * ROW + 40
    drawn = [box(root.seen, height, *b) for b in boxes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" '
        f'font-size="11"><style>.o{{fill:#f4a261}}.k{{fill:#9aa5b1}}.l{{fill:#e9d8a6}}rect{{stroke:#fff;stroke-width:.4}}'
        f'</style><text x="4" y="14" font-size="13">{html.escape(title)}: {root.seen:,} samples; ours orange, libraries '
        f"yellow, kernel grey</text>\n" + "\n".join(drawn) + "\n</svg>\n"
    )


def box(total, height, name, seen, left, depth):
    kind = "k" if name.endswith(KERNEL) else "o" if OURS.match(name) else "l"
    name = name.removesuffix(KERNEL)
    width, top = seen * WIDTH / total, height - (depth + 1) * ROW
    fits = int(width / LETTER) - 1
    shown = name if len(name) <= fits else short(name)[:fits]
    text = f'<text x="{left + 2:.1f}" y="{top + 12}">{html.escape(shown)}</text>' if fits > 2 else ""
    return (
        f'<g><title>{html.escape(name[:160])} {seen / total:.1%}</title><rect class="{kind}" x="{left:.1f}" y="{top}" '
        f'width="{width:.1f}" height="{ROW - 1}"/>{text}</g>'
    )


def short(name):
    """A path's last two words, without type parameters."""
    plain = re.sub(r"<[^<>]*>", "", re.sub(r"<[^<>]*>", "", name))
    return "::".join(plain.split("::")[-2:]) or name
