"""What the API does at a fixed rate of requests, below, at and far above what it can; nothing is asserted.

``python tests/benchmarks/api.py`` prints a table; ``--json`` writes it with the machine that it was measured on.

The load is open: requests are sent when they are due, whatever has become of those before, and their time counts from
when they were due. Names are MeSH descriptors, texts are abstracts of BC5CDR. Client and server share the machine;
``lag`` says how late the client was, and figures with a lag near their latency are figures of the client.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import psutil
from measuring import ROOT, machine
from rich.console import Console
from rich.table import Table

from kg.errors import ConfigError, KGError
from kg.linking import Linker
from kg.local_server import LocalServer
from kg.settings import Settings
from kg.snapshot import write_snapshot
from tests.kg.serving import served

FACTORS = (0.5, 1, 2, 10)
"""Of the capacity."""
CONNECTIONS = 1_000
"""A client has at most; a request that finds none free is counted as not sent."""
LOOK_S = 0.25
PROBE_S = 0.02
SOUND = 10
"""Probes in a row that are as fast as half the capacity's p99: then the server has recovered."""


@dataclass
class Load:
    """What became of the requests of one rate; times in ms, memory in MB."""

    factor: float
    rate: float
    """Requests due in a second."""
    due: int = 0
    accepted: int = 0
    refused: int = 0
    overdue: int = 0
    """Answered 503."""
    failed: int = 0
    """Cut off or not answered; must be 0."""
    unsent: int = 0
    latency: dict[str, float] = field(default_factory=dict)
    """Of those that were accepted, from when they were due."""
    refusal: dict[str, float] = field(default_factory=dict)
    lag: dict[str, float] = field(default_factory=dict)
    """Of the client: from when a request was due to when it was sent."""
    health: dict[str, float] = field(default_factory=dict)
    """Of ``/healthz`` meanwhile."""
    memory: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    """Cores that client and server used."""
    recovered_s: float | None = None
    """From the last request that was due until the server was as fast as at half its capacity."""

    @property
    def share_refused(self) -> float:
        return self.refused / max(self.due, 1)


class Exchange(asyncio.Protocol):
    """A connection that is kept: one request at a time, and the status of its answer."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        self._answer = asyncio.get_running_loop().create_future()
        self._received, self._left = b"", 0
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._received += data
            head, end, body = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._left = int(length) - len(body)
        if self._left <= 0 and self._answer is not None and not self._answer.done():
            self._answer.set_result(int(self._received[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed without an answer"))


class Client:
    """Sends the same texts in turn, over as many connections as are needed."""

    def __init__(self, port: int, texts: Sequence[str]) -> None:
        self.port = port
        self.requests = cycle([post(text) for text in texts])
        self.idle: list[Exchange] = []
        self.open = 0

    async def ask(self, request: bytes) -> int:
        """Status of the answer; 0 when there is no connection to be had, -1 when it was cut off."""
        exchange = None
        while self.idle and exchange is None:
            exchange = self.idle.pop()
            if exchange.transport.is_closing():  # the server ends connections that nobody uses
                self.open -= 1
                exchange = None
        if exchange is None and self.open >= CONNECTIONS:
            return 0
        if exchange is None:
            self.open += 1
            try:
                loop = asyncio.get_running_loop()
                _, exchange = await loop.create_connection(Exchange, "127.0.0.1", self.port)
            except OSError:
                self.open -= 1
                return -1
        try:
            status = await asyncio.wait_for(exchange.ask(request), 60)
        except (OSError, TimeoutError):
            self.open -= 1
            exchange.transport.abort()
            return -1
        if exchange.transport.is_closing():
            self.open -= 1
        else:
            self.idle.append(exchange)
        return status

    async def warm_up(self, number: int) -> None:
        """Ask for every text once: what the server remembers of names is there then."""
        for _ in range(0, number, 4):
            await asyncio.gather(*(self.ask(next(self.requests)) for _ in range(4)))

    async def capacity(self, seconds: float) -> float:
        """Answers in a second to four clients that each send the next request when they have an answer."""
        ends, answered = time.perf_counter() + seconds, 0

        async def one() -> None:
            nonlocal answered
            while time.perf_counter() < ends:
                status = await self.ask(next(self.requests))
                answered += status == 200  # not in one line: += reads before it waits

        await asyncio.gather(*(one() for _ in range(4)))
        return answered / seconds

    async def load(self, factor: float, rate: float, seconds: float, server: psutil.Process) -> Load:
        """Send at ``rate``, and see what becomes of it."""
        load = Load(factor, rate)
        took: dict[int, list[float]] = {}
        lags: list[float] = []
        health: list[float] = []

        async def send(due: float) -> None:
            lags.append(time.perf_counter() - due)
            status = await self.ask(next(self.requests))
            took.setdefault(status, []).append(time.perf_counter() - due)

        async def watch() -> None:
            while True:
                began = time.perf_counter()
                if await self.ask(HEALTH) == 200:
                    health.append(time.perf_counter() - began)
                await asyncio.sleep(LOOK_S)

        me, watching, tasks = psutil.Process(), asyncio.create_task(watch()), set[asyncio.Task[None]]()
        with Memory(server) as memory:
            used = [sum(process.cpu_times()[:2]) for process in (me, server)]
            started, load.due = time.perf_counter(), round(rate * seconds)
            for i in range(load.due):
                due = started + i / rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                elif i % 32 == 0:
                    await asyncio.sleep(0)  # answers are read even when all requests are late
                task = asyncio.create_task(send(due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            wall = time.perf_counter() - started
            cores = [
                (sum(process.cpu_times()[:2]) - before) / wall
                for process, before in zip((me, server), used, strict=True)
            ]
            load.cpu = {"client": round(cores[0], 2), "server": round(cores[1], 2)}
            last = time.perf_counter()
            watching.cancel()
            if tasks:
                await asyncio.wait(tasks)
            load.recovered_s = await self.recovered(last)
        load.memory = memory.figures
        load.accepted, load.refused, load.overdue = (len(took.get(status, [])) for status in (200, 429, 503))
        load.unsent, load.failed = len(took.pop(0, [])), len(took.get(-1, []))
        load.latency, load.refusal = spread(took.get(200, [])), spread(took.get(429, []))
        load.lag, load.health = spread(lags), spread(health)
        return load

    sound_s = 0.1

    async def recovered(self, since: float, *, at_most_s: float = 60) -> float | None:
        """Seconds until SOUND probes in a row are answered within ``sound_s``; None when that takes too long."""
        first, sound = None, 0
        while time.perf_counter() < since + at_most_s:
            began = time.perf_counter()
            status = await self.ask(next(self.requests))
            now = time.perf_counter()
            sound, first = (sound + 1, first or began) if status == 200 and now - began <= self.sound_s else (0, None)
            if sound == SOUND and first is not None:
                return round(first - since, 3)
            await asyncio.sleep(PROBE_S)
        return None


class Memory:
    """Resident memory of a process while the block runs."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._ended, self._seen = process, Event(), [process.memory_info().rss]
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        seen = [rss / 2**20 for rss in self._seen]
        tenth = max(1, len(seen) // 10)
        self.figures = {
            "first": round(seen[0], 1),
            "peak": round(max(seen), 1),
            "last": round(seen[-1], 1),
            # whether it is still growing: the last tenth of the time against the one in the middle
            "growth": round(max(seen[-tenth:]) - max(seen[len(seen) // 2 :][:tenth]), 1),
        }

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._seen.append(self._process.memory_info().rss)


def post(text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    return (
        b"POST /link HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (len(body), body)
    )


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the longest, in ms."""
    if len(seconds) < 2:
        return {}
    percent = quantiles(seconds, n=100, method="inclusive")
    return {"p50": round(1e3 * percent[49], 2), "p99": round(1e3 * percent[98], 2), "max": round(1e3 * max(seconds), 2)}


def mesh(folder: Path, data: Path) -> Path:
    """A snapshot of the MeSH descriptors with their names and the broader ones."""
    source = data / "linking/kb/mesh_descriptors"
    names = [line.split("\t") for line in (source / "names.tsv").read_text("utf-8").splitlines()]
    preferred = {id: name for id, name, kind, *_ in names if kind == "P"}
    edges = [line.split("\t") for line in (source / "edges.tsv").read_text("utf-8").splitlines()]
    return write_snapshot(
        folder,
        entities=[{"id": f"mesh:{id}", "name": name, "types": ["Concept"]} for id, name in preferred.items()],
        aliases=[
            {
                "alias": name,
                "entity": f"mesh:{id}",
                "prior": 1.0,
                "kind": "pref" if kind == "P" else "syn",
                "language": "",
            }
            for id, name, kind in dict.fromkeys((id, name, kind) for id, name, kind, *_ in names)
            if id in preferred
        ],
        triples=[
            (f"mesh:{head}", relation.upper(), f"mesh:{tail}")
            for head, tail, relation in edges
            if head in preferred and tail in preferred
        ],
        sources=[{"id": "mesh", "release": ""}],
    )


def texts(data: Path) -> Iterator[str]:
    for line in (data / "linking/bc5cdr/docs.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)["text"]


def show(loads: Sequence[Load], capacity: float) -> None:
    table = Table(
        caption=f"capacity {capacity:.0f} requests/s; ms: p50 / p99; lag: how late the client was; "
        f"MB: first, peak, growth in the second half; not sent: all {CONNECTIONS:,} connections waited for an answer"
    )
    columns = (
        "load",
        "due/s",
        "accepted/s",
        "429",
        "503",
        "cut",
        "not sent",
        "accepted ms",
        "429 ms",
        "healthz ms",
        "lag ms",
    )
    for name in (*columns, "MB", "cores: client, server", "recovered s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in loads:
        pairs = (
            f"{two['p50']:.1f} / {two['p99']:.1f}" if two else ""
            for two in (one.latency, one.refusal, one.health, one.lag)
        )
        table.add_row(
            f"{one.factor:g}x",
            f"{one.rate:,.0f}",
            f"{one.accepted * one.rate / max(one.due, 1):,.0f}",
            f"{one.share_refused:.1%}",
            f"{one.overdue}",
            f"{one.failed}",
            f"{one.unsent / max(one.due, 1):.1%}",
            *pairs,
            f"{one.memory['first']:.0f}, {one.memory['peak']:.0f}, {one.memory['growth']:+.1f}",
            f"{one.cpu['client']:.2f}, {one.cpu['server']:.2f}",
            "never" if one.recovered_s is None else f"{one.recovered_s:.2f}",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)


async def measure(
    port: int, server: psutil.Process, data: Path, options: argparse.Namespace
) -> tuple[float, list[Load]]:
    client = Client(port, list(texts(data)))
    await client.warm_up(len(list(texts(data))))
    capacity = await client.capacity(options.seconds / 4)
    loads: list[Load] = []
    for factor in FACTORS:
        Console(stderr=True).print(f"{time.strftime('%H:%M:%S')} {factor:g} times {capacity:.0f} requests/s")
        loads.append(await client.load(factor, factor * capacity, options.seconds, server))
        client.sound_s = loads[0].latency.get("p99", 100) / 1e3
    return capacity, loads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("options", nargs="*", help="of `python -m kg api`, after --")
    options = parser.parse_args()
    try:
        data = Settings.from_env().data or ROOT.parent / "shared" / "data"
        if not data.is_dir():
            raise ConfigError(f"No data folder at {data}; set KGFUSE_DATA.")
        with tempfile.TemporaryDirectory(prefix="kgfuse-benchmark-") as work:
            home = Path(work)
            names = len(Linker.load(mesh(home / "snapshots" / "v1", data)).snapshot.aliases)
            about: Mapping[str, Any] = {
                "machine": machine(LocalServer(home)),
                "names": names,
                "seconds": options.seconds,
            }
            with served(home, *options.options) as server:
                capacity, loads = asyncio.run(measure(server.port, psutil.Process(server.process.pid), data, options))
        show(loads, capacity)
        if options.json:
            said = {**about, "capacity": round(capacity, 1), "loads": [asdict(one) for one in loads]}
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    except KGError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; the server is stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
