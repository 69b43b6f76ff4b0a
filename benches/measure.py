"""What a process and its children used, as the kernel counts it, and what machine this is. Linux only."""

import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
PEAK_EVERY_SECONDS = 0.05


def tree(pid):
    """The process and all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        try:
            threads = os.listdir(f"/proc/{found[-1]}/task")
        except OSError:  # it ended meanwhile
            continue
        for thread in threads:
            try:
                with open(f"/proc/{found[-1]}/task/{thread}/children") as children:
                    waiting.extend(map(int, children.read().split()))
            except OSError:
                pass
    return found


def _stat(pid):
    """The fields after the command name: state, parent, …; None when the process is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None


def cpu_seconds(pid):
    """User and system seconds of a running process, its threads, its children, and those it has waited for."""
    return sum(sum(map(int, fields[11:15])) / TICKS for fields in map(_stat, tree(pid)) if fields)


def peak_bytes(pids):
    """The most memory that was resident, summed over processes."""
    total = 0
    for pid in pids:
        try:
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


class Ran:
    """One finished command: its output, wall and CPU seconds, and peak memory (of its processes, added up)."""

    def __init__(self, out, wall, cpu, peak):
        self.out, self.wall, self.cpu, self.peak = out, wall, cpu, peak

    def json(self):
        """The last line of its output."""
        return json.loads(self.out.strip().splitlines()[-1])

    def figures(self):
        """What it used, for the report in JSON."""
        return {"cpuSeconds": round(self.cpu, 2), "wallSeconds": round(self.wall, 2), "peakBytes": self.peak}


def run(command, env=None):
    """Runs a command to its end; one that fails ends the benchmark. Descendants it waits for are in the figures."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([str(c) for c in command], stdout=out, env={**os.environ, **(env or {})})
        peak, ended = [0], threading.Event()

        def look():
            while not ended.wait(PEAK_EVERY_SECONDS):
                peak[0] = max(peak[0], peak_bytes(tree(process.pid)))

        looker = threading.Thread(target=look)
        looker.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        looker.join()
        out.seek(0)
        text = out.read().decode()
    # 99: already final, the answer of a job that computed everything anew and found it unchanged.
    if process.returncode not in (0, 99):
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}\n{text}")
    return Ran(text, wall, usage.ru_utime + usage.ru_stime, peak[0])


class Server:
    """A server that runs while measured: started, waited for, and always stopped."""

    def __init__(self, command, ready_url, env=None, log=None):
        self.command, self.ready_url = [str(c) for c in command], ready_url
        self.env, self.log = {**os.environ, **(env or {})}, log

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.ready_url, timeout=1) as answer:
                    if answer.status == 200:
                        return self
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise SystemExit(f"{self.command[0]} did not start:\n{pathlib.Path(self.log).read_text()}")

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Asks it to end and waits until it has."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def pid(self):
        return self.process.pid


def bytes_under(path):
    """The bytes of a file, or of all files in a folder."""
    path = pathlib.Path(path)
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


def free_port():
    """A port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def median(values):
    return statistics.median(values)


def spread(values, digits=1):
    """Median, and in brackets the least and greatest."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def sync_micros(folder):
    """The median time of a 4 KiB write and its sync on the disk under `folder`."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(200):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - started) * 1e6)
    return median(took)


def file_system(folder):
    """The kind of file system under `folder`."""
    best = ("", "unknown")
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        inside = mount == "/" or folder == mount or str(folder).startswith(mount + "/")
        if inside and len(mount) > len(best[0]):
            best = (mount, kind)
    return best[1]


def machine(folder):
    """Name and value of what figures depend on."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    models = (line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name"))
    model = next(models, "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": f"{len(os.sched_getaffinity(0))} × {model}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "disk": f"{file_system(folder)}, write and sync of 4 KiB: {sync_micros(folder):,.0f} µs",
        "load at the start": f"{os.getloadavg()[0]:.2f}",
    }
