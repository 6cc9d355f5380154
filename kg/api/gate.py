"""A gate before work: so many requests run, so many wait, the others are told to come back, and none waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from http import HTTPStatus
from threading import Event, Lock
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.routing import APIRoute
from prometheus_client.registry import Collector
from starlette.types import Lifespan

RETRY_AFTER_S = 1
DEADLINE_S = 10.0
T = TypeVar("T")


class Gate:
    """Admits requests to the routes made with ``route_class`` and runs their work in threads of its own.

    A request that comes while ``workers + queue`` are inside is refused with 429 before its body is read. One that is
    not answered after ``deadline_s``, its body included, is answered with 503: the server is too busy or the work too
    much, and no other server is asked, which is what 504 would say. Its work is dropped when it had not begun.
    """

    def __init__(self, name: str, *, workers: int, queue: int, deadline_s: float = DEADLINE_S) -> None:
        self.name, self.workers, self.queue, self.deadline_s = name, workers, queue, deadline_s
        self.refused = self.overdue = self.busy = 0
        self._inside = 0
        self._lock = Lock()
        self._seat: ContextVar[_Seat] = ContextVar("seat")
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=f"kgfuse-{name}")

    @property
    def waiting(self) -> int:
        """Requests inside that no worker is at work for: in the queue, or with a part of their body to come."""
        return max(0, self._inside - self.busy)

    async def run(self, work: Callable[[Event], T]) -> T:
        """What ``work`` gives, from a worker thread.

        Args:
            work: is given an event that is set when nobody waits for it any more; one that takes long looks at it.
        """
        abandoned = Event()
        try:
            seat = self._seat.get(None)
            return await asyncio.wrap_future(self._threads.submit(self._work, work, abandoned, seat))
        finally:
            abandoned.set()

    def _work(self, work: Callable[[Event], T], abandoned: Event, seat: "_Seat | None") -> T:
        with self._lock:
            self.busy += 1
        try:
            return work(abandoned)
        finally:
            with self._lock:
                self.busy -= 1
            # Here and not in the event loop: when that is late, the place is for the next request meanwhile.
            self._leave(seat)

    def route_class(self) -> type[APIRoute]:
        """The class of routes whose requests pass this gate."""
        gate = self

        class GatedRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Any]:
                answer = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    return await gate._pass(answer, request)

                return handler

        return GatedRoute

    async def _pass(self, answer: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
        with self._lock:
            full = self._inside >= self.workers + self.queue
            self._inside += not full
        if full:
            self.refused += 1
            raise _try_again(
                HTTPStatus.TOO_MANY_REQUESTS, f"{self.queue} requests are waiting already; try again in a second."
            )
        seat = _Seat()
        self._seat.set(seat)
        try:
            async with asyncio.timeout(self.deadline_s) as deadline:
                return await answer(request)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            self.overdue += 1
            raise _try_again(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"There was no answer within {self.deadline_s:g} s; try again, or ask for less at once.",
            ) from error
        finally:
            self._leave(seat)

    def _leave(self, seat: "_Seat | None") -> None:
        with self._lock:
            if seat is not None and seat.taken:
                seat.taken = False
                self._inside -= 1


class _Seat:
    """One request inside."""

    taken = True


class GatedRouter(APIRouter):
    """Routes behind one gate, and what an app tells of them at ``/readyz`` and ``/metrics``."""

    def __init__(self, gate: Gate, *, tag: str, lifespan: Lifespan[FastAPI] | None = None) -> None:
        super().__init__(tags=[tag], route_class=gate.route_class(), lifespan=lifespan)
        self.gates = [gate]
        self.states: dict[str, Callable[[], str]] = {}
        """By what it is the state of: a word."""
        self.collectors: list[Collector] = []


def _try_again(status: HTTPStatus, detail: str) -> HTTPException:
    return HTTPException(status, detail, headers={"Retry-After": str(RETRY_AFTER_S)})
