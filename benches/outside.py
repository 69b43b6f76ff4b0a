"""Real parts beside what is measured (tests/parts): each started in a folder of its own, ended with its block."""

import subprocess

import measure


class Part:
    """One of tests/parts: what it says when it is ready, and its process."""

    def __init__(self, bench, name, folder):
        self.name, self.command = name, [bench.here.parent / "tests/parts" / name, folder]

    def __enter__(self):
        self.process = subprocess.Popen(
            list(map(str, self.command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        words = self.process.stdout.readline().split()
        if not words or words[0] != "READY":
            raise SystemExit(f"{self.name} did not start")
        self.says = dict(word.split("=", 1) for word in words[1:])
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def cpu(self):
        """User and system seconds of it and its children so far."""
        return measure.cpu_seconds(self.process.pid)
