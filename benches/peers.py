"""Who is measured beside us, and how each is had: Python packages, each peer in an environment of its own that is made
once in the cache folder. A peer that cannot be had is a `Missing` with the reason, which the report shows."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

FLINK, SPARK, CHDB = "apache-flink-libraries==2.3.0", "pyspark==4.3.0", "chdb==4.4.0"
# Flink reads zstd with it.
ZSTD_JNI = "com.github.luben:zstd-jni:1.5.7-6"
# What --peers may name. DuckDB and Polars come with the oracle's environment.
NAMES = ("duckdb", "polars", "chdb", "spark", "flink")
JAVA = "17"


class Missing(Exception):
    """A peer that cannot be had here, and why."""


def cache():
    """Where environments are kept: `CLICKLEDGER_PEERS`, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("CLICKLEDGER_PEERS") or pathlib.Path(base) / "clickledger-peers")


def python(package):
    """The interpreter of the package's environment, made when it is not there."""
    folder = cache() / package
    with _alone(folder):
        if not (folder / "installed").exists():
            print(f"installing {package} …", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _run(sys.executable, "-m", "venv", folder)
                _run(folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package)
            except subprocess.CalledProcessError as e:
                raise Missing(f"{package} could not be installed: {_last_line(e.stderr)}") from e
            (folder / "installed").touch()
    return folder / "bin/python"


def java():
    """A Java that has its compiler (Debian's `openjdk-17-jdk-headless`)."""
    found = shutil.which("java")
    if not found or not shutil.which("javac"):
        raise Missing(f"there is no Java with a compiler: install openjdk-{JAVA}-jdk-headless")
    return found


def flink_jars():
    """Flink's own libraries and the one it needs to read zstd, as a class path."""
    inside = "import os, pyflink.version as v; print(os.path.dirname(v.__file__))"
    flink = subprocess.run([python(FLINK), "-c", inside], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return f"{flink}/lib/*:{jar(ZSTD_JNI)}"


def jar(artifact):
    """A library of Maven Central (`group:name:version`)."""
    _, name, version = artifact.split(":")
    path = cache() / f"{name}-{version}.jar"
    with _alone(path):
        if not path.exists():
            if not shutil.which("mvn"):
                raise Missing(f"{artifact} comes from Maven Central: install maven")
            goal = ["dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={cache()}"]
            try:
                _run("mvn", "-q", "-B", *goal)
            except subprocess.CalledProcessError as e:
                raise Missing(f"{artifact} could not be fetched: {_last_line(e.stdout)}") from e
    return path


def here():
    """The interpreter that has DuckDB and Polars."""
    return sys.executable


def _run(*command):
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _last_line(text):
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else "no reason given"


@contextlib.contextmanager
def _alone(folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
