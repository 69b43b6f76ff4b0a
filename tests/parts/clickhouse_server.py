"""Runs the ClickHouse server out of libchdb.so: `clickhouse local` can listen as the real server does.

    clickhouse_server.py LIBCHDB FOLDER PORT USERS_XML

Standard library only. SIGTERM ends it in order; kill -9 is a crash, and the next start on the same folder recovers.
On one node without Keeper: no Replicated tables and no ON CLUSTER, users only from files.
"""
import ctypes
import os
import pathlib
import signal
import sys
import threading
import xml.sax.saxutils

# `cold` is a second volume, as an S3 disk would be; `one_node` a cluster of this node alone.
CONFIG = """<clickhouse>
  <logger><level>warning</level><log>{folder}/server.log</log><errorlog>{folder}/server.err.log</errorlog></logger>
  <max_server_memory_usage>4294967296</max_server_memory_usage>
  <mark_cache_size>134217728</mark_cache_size>
  <user_directories>
    <users_xml><path>{folder}/users.xml</path></users_xml>
  </user_directories>
  <storage_configuration>
    <disks><cold><path>{folder}/cold/</path></cold></disks>
    <policies>
      <tiered><volumes><default><disk>default</disk></default><cold><disk>cold</disk></cold></volumes></tiered>
    </policies>
  </storage_configuration>
  <remote_servers>
    <one_node><shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard></one_node>
  </remote_servers>
  <macros><cluster>one_node</cluster></macros>
</clickhouse>
"""

EVERYTHING = """<default><password></password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default>"""


class Result(ctypes.Structure):
    """What query_stable_v2 answers (local_result_v2 of chdb.h)."""

    _fields_ = [
        ("buffer", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("vector", ctypes.c_void_p),
        ("elapsed", ctypes.c_double),
        ("rows", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("error", ctypes.c_char_p),
    ]


def arguments(folder, port):
    """The command line. Its last statement reads a pipe, and so lasts until somebody closes the pipe's other end."""
    listen = "SYSTEM START LISTEN HTTP; "
    wait = f"SELECT count() FROM file('{folder}/stop', LineAsString) SETTINGS storage_file_read_method = 'read', max_execution_time = 0"
    return [
        "clickhouse",
        f"--config-file={folder}/config.xml",
        f"--path={folder}/data",
        f"--http_port={port}",
        "--listen_host=127.0.0.1",
        "--output-format=TSV",
        "--multiquery",
        f"--query={listen}{wait}",
    ]


def prepare(folder, users):
    """Writes the server's configuration, and the pipe that keeps it alive."""
    (folder / "cold").mkdir(parents=True, exist_ok=True)
    escaped = xml.sax.saxutils.escape(str(folder))
    (folder / "config.xml").write_text(CONFIG.format(folder=escaped))
    (folder / "users.xml").write_text(users.read_text().replace("<users>", f"<users>{EVERYTHING}", 1))
    for name in ("writer", "reconciler", "serving", "reader"):
        os.environ.setdefault(f"CLICKLEDGER_{name.upper()}_PASSWORD", f"clickledger_{name}")
    (folder / "stop").unlink(missing_ok=True)
    os.mkfifo(folder / "stop")


def main():
    library, folder, port, users = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), sys.argv[3], pathlib.Path(sys.argv[4])
    prepare(folder, users)
    run = ctypes.CDLL(library).query_stable_v2
    run.restype = ctypes.POINTER(Result)
    run.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    words = [word.encode() for word in arguments(folder, port)]
    ended = {}

    def serve():
        result = run(len(words), (ctypes.c_char_p * len(words))(*words))
        ended["error"] = result.contents.error if result else b"no result"

    # ClickHouse wants a large stack, and installs signal handlers of its own: it runs beside, and the signal is awaited here.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    threading.stack_size(16 << 20)
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    while server.is_alive() and not signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, 0.2):
        pass
    if server.is_alive():
        os.close(os.open(folder / "stop", os.O_WRONLY))
        server.join(30)
    if ended.get("error"):
        print(ended["error"].decode(errors="replace"), file=sys.stderr)
    sys.stdout.flush()
    os._exit(1 if server.is_alive() or ended.get("error") else 0)


main()
