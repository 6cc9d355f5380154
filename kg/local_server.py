"""The project's own Neo4j: a separate process on 127.0.0.1 that lives as long as someone uses it.

Whoever uses the server holds a shared lock on ``users.lock``. The kernel drops it when its holder dies, however it
dies, and the supervisor (``kg.neo4j_process``) ends a server that nobody holds, unless ``python -m kg start`` said to
keep it. So no server outlives its users, and none is taken from a second user when the first one ends.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kg import neo4j_jars, neo4j_process
from kg.errors import ConfigError, StoreFailed, StoreUnavailable

STORES = ("databases", "transactions")
"""Folders of ``data`` in which the database ``neo4j`` has its files; the one with users and passwords is ``system``."""
START_TIMEOUT_S = 180
"""Recovery after a crash is part of the start; 25 s were measured on a loaded machine."""


@dataclass(frozen=True)
class Address:
    """Where a server listens and how to log in."""

    uri: str
    user: str
    password: str = field(repr=False)


class LocalServer:
    """The server whose store is in ``home/neo4j``; one server for one store."""

    def __init__(self, home: Path, *, heap_mb: int = 1024) -> None:
        self.folder = home.absolute() / "neo4j"
        self.heap_mb = heap_mb
        self._use: int | None = None

    def start(self, *, keep: bool = False) -> Address:
        """Start the server, or join the one that runs, and hold it until ``release`` or the end of this process.

        Args:
            keep: leave it running when nobody holds it, until ``stop``.

        Raises:
            ConfigError: the folder cannot be written.
            StoreUnavailable: it does not come up; the message has the last line of its log.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.folder / "start.lock").touch()
        except OSError as error:
            reason = f"{self.folder} cannot be written ({error.strerror})"
            raise ConfigError(f"{reason}; set KGFUSE_HOME to a folder that can.") from error
        with self._deciding():
            if self._use is None:
                self._use = os.open(self.folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._use, fcntl.LOCK_SH)  # waits while a supervisor is ending its server
            try:
                self._settle()
                running = self._running()
                if keep:
                    (self.folder / "keep").touch()
                elif running is None:
                    (self.folder / "keep").unlink(missing_ok=True)  # of a server that is no more
                return self._address(running or self._launch())
            except BaseException:
                if self._running() is None:
                    (self.folder / "keep").unlink(missing_ok=True)
                self.release()
                raise

    def release(self) -> None:
        """Say that this process needs the server no longer."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def stop(self) -> bool:
        """Stop the server for everyone; False when none runs."""
        if not self.folder.is_dir():
            return False
        with self._deciding():
            (self.folder / "keep").unlink(missing_ok=True)
            return self._end()

    def replace_store(
        self, build: Callable[[Path], None], *, may: Callable[[Address], None], check: Callable[[Address], None]
    ) -> None:
        """Put the store that ``build`` makes in place of the present one; users and passwords stay.

        Whatever happens in between, a kill included, whoever starts the server next finds one of the two whole: the
        old one until ``check`` is through, the new one from then on.

        Args:
            build: makes the store in the folder given, a home for Neo4j's admin tool; the server runs meanwhile.
            may: asked of the present store when nobody else can use it any more; raises to keep it.
            check: asked of the new store when nobody else can use it yet; raises to have the old one back.

        Raises:
            StoreUnavailable: another process uses the server, or is replacing the store.
        """
        self.start()
        try:
            with self._building() as new:
                (new / "conf").mkdir(parents=True)
                neo4j_process.write_config(new, self.heap_mb)
                build(new)
                with self._deciding():
                    self._become_only_user()
                    may(self._address(self._running() or self._launch()))
                    self._end()
                    try:
                        self._move(new / "data")
                        check(self._address(self._launch()))
                    except BaseException:
                        self._settle()
                        raise
                    (self.folder / "old").rename(self.folder / "gone")  # from here on the new one counts
                    shutil.rmtree(self.folder / "gone")
        finally:
            self.release()

    def status(self) -> dict[str, Any]:
        """What ``python -m kg status`` prints."""
        running = self._running()
        state = {"running": running is not None, "version": neo4j_jars.VERSION, "folder": str(self.folder)}
        if running is None:
            return state
        keep = (self.folder / "keep").exists()
        return {**state, "uri": f"bolt://127.0.0.1:{running['port']}", "pid": running["pid"], "kept": keep}

    @property
    def _log(self) -> Path:
        return self.folder / "logs" / "console.log"

    @contextlib.contextmanager
    def _deciding(self) -> Iterator[None]:
        """One process at a time decides whether the server runs."""
        with (self.folder / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _building(self) -> Iterator[Path]:
        """An empty folder on the disk of the store, for one process at a time, which is gone afterwards."""
        new = self.folder / "new"
        with (self.folder / "build.lock").open("w") as lock:
            if not _taken(lock.fileno()):
                raise StoreUnavailable(f"Another bulk load into {self.folder} is running; wait for its end.")
            shutil.rmtree(new, ignore_errors=True)
            try:
                yield new
            finally:
                shutil.rmtree(new, ignore_errors=True)

    def _become_only_user(self) -> None:
        assert self._use is not None
        for _ in range(2):  # a supervisor that looks for users holds the lock for a moment, too
            fcntl.flock(self._use, fcntl.LOCK_SH)  # waits while a supervisor is ending its server
            if _taken(self._use):
                return
        raise StoreUnavailable(
            "Another process uses the local Neo4j, so its store cannot be replaced; end that process and run again."
        )

    def _move(self, new: Path) -> None:
        """The present store to ``old``, the new one in its place; the server is stopped."""
        (self.folder / "old").mkdir()
        for name in STORES:
            (self.folder / "data" / name / "neo4j").rename(self.folder / "old" / name)
        for name in STORES:
            (new / name / "neo4j").rename(self.folder / "data" / name / "neo4j")

    def _settle(self) -> None:
        """After a ``replace_store`` that did not come to its end: the old store is back, nothing else is left."""
        old, new = self.folder / "old", self.folder / "new"
        if old.exists():
            self._end()
            for name in STORES:
                if (old / name).exists():
                    place = self.folder / "data" / name / "neo4j"
                    shutil.rmtree(place, ignore_errors=True)
                    (old / name).rename(place)
            old.rmdir()
        shutil.rmtree(self.folder / "gone", ignore_errors=True)
        if new.exists():
            with (self.folder / "build.lock").open("w") as lock:
                if _taken(lock.fileno()):
                    shutil.rmtree(new, ignore_errors=True)

    def _end(self) -> bool:
        """End the server, whoever uses it; False when none runs."""
        supervisor = self._supervisor()
        if supervisor is None:
            return self._end_leftovers()
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGTERM)
        deadline = time.monotonic() + neo4j_process.STOP_TIMEOUT_S + 10
        while self._supervisor() is not None:
            if time.monotonic() > deadline:
                raise StoreFailed(f"Neo4j did not stop (supervisor {supervisor}); see {self._log}")
            time.sleep(0.05)
        return True

    def _supervisor(self) -> int | None:
        """Process id of the supervisor: whoever holds its lock, so that neither a stale file nor a reused id counts."""
        try:
            with (self.folder / "server.lock").open("r+", encoding="utf-8") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask are no supervisor
                except BlockingIOError:
                    while not (pid := lock.read()):  # it writes right after it locks
                        lock.seek(0)
                    return int(pid)
        except FileNotFoundError:
            pass
        return None

    def _running(self) -> dict[str, Any] | None:
        """Process id and port of the server, once it listens."""
        if self._supervisor() is None:
            return None
        try:
            state: dict[str, Any] = json.loads((self.folder / "server.json").read_text(encoding="utf-8"))
            dead = psutil.Process(state["pid"]).status() == psutil.STATUS_ZOMBIE  # its supervisor is about to notice
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return None if dead else state

    def _launch(self) -> dict[str, Any]:
        """Wait for a server that is coming up already (its starter was killed), or start one."""
        from rich.console import Console

        for name in ("conf", "data", "logs", "import"):
            (self.folder / name).mkdir(exist_ok=True)
        started, deadline = False, time.monotonic() + START_TIMEOUT_S
        with Console(stderr=True).status("Starting Neo4j") as status:
            while time.monotonic() < deadline:
                if (running := self._running()) is not None:
                    return running
                if self._supervisor() is None:
                    if started:
                        break
                    status.stop()  # downloads have a bar of their own
                    neo4j_jars.ensure_jars()
                    status.start()
                    self._start_supervisor()
                    started = True
                time.sleep(0.05)
        raise StoreUnavailable(f"The local Neo4j did not start; {self._last_words()}")

    def _start_supervisor(self) -> None:
        self._end_leftovers()
        neo4j_process.write_config(self.folder, self.heap_mb)
        if not (self.folder / "password").exists():
            self._set_first_password()
        with self._log.open("w", encoding="utf-8") as log:
            subprocess.run(
                [sys.executable, "-m", "kg.neo4j_process", str(self.folder), str(self.heap_mb)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parent.parent,  # where ``kg`` is found; and no folder of the user is held
                start_new_session=True,  # Ctrl-C in the terminal is not for the server
                check=False,
            )

    def _end_leftovers(self) -> bool:
        """End a server whose supervisor was killed; True when there was one."""
        option = neo4j_process.home_option(self.folder)
        left = [process for process in psutil.process_iter(["cmdline"]) if option in (process.info["cmdline"] or ())]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(left, timeout=neo4j_process.STOP_TIMEOUT_S)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait()
        return bool(left)

    def _last_words(self) -> str:
        lines = []
        for log in (self.folder / "logs" / "neo4j.log", self._log):
            if log.exists():
                lines += log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its log in {self._log.parent} ends with: {(lines or ['(nothing)'])[-1].strip()[:300]}"

    def _address(self, running: dict[str, Any]) -> Address:
        return Address(f"bolt://127.0.0.1:{running['port']}", "neo4j", self._password())

    def _password(self) -> str:
        return (self.folder / "password").read_text(encoding="utf-8")

    def _set_first_password(self) -> None:
        if (self.folder / "data" / "databases").exists():
            raise StoreUnavailable(
                f"The store {self.folder} lost its file 'password'; put it back, or remove the folder to begin anew."
            )
        part = self.folder / "password.part"
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(24))
        words = ("dbms", "set-initial-password", f"@{part}")  # not seen by ``ps``
        with neo4j_process.admin_tool(self.folder, *words, heap_mb=256, brief=True) as tool:
            said = tool.communicate()[0].strip().splitlines() or ["(nothing)"]
        if tool.returncode:
            raise StoreFailed(f"Neo4j's admin tool could not set the first password: {said[-1][:300]}")
        part.rename(self.folder / "password")


def _taken(lock: int) -> bool:
    """Whether nobody held the lock; it is then ours alone."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
