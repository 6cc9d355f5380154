"""A client that sends requests when they are due, whatever has become of those before, and times them from then."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from statistics import quantiles
from threading import Event, Thread
from typing import Any

import psutil

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
