"""Links over HTTP; they need the snapshot only and go on while Neo4j is away."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from threading import Event
from typing import Annotated, Any

from fastapi import FastAPI, Response
from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field
from pydantic.types import StringConstraints

from kg.api.gate import DEADLINE_S, Gate, GatedRouter
from kg.api.problems import ok, problems
from kg.linking import Linker
from kg.linking.live import LiveLinker
from kg.linking.offsets import OffsetUnit, offsets_of
from kg.types import Link

MAX_TEXT = 1_000_000  # code points
MAX_TEXTS = 256
WORKERS = 2  # linking holds Python's lock, so more are no faster; the second lets a short text pass a long batch
QUEUE = 64
PROBLEMS = problems(400, 413, 422, 429, 503)

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
EXAMPLE = "The European Central Bank raised rates."
LINKS: dict[str, Any] = {
    "links": [
        {
            "start": 4,
            "end": 25,
            "text": "European Central Bank",
            "id": "fibo:EuropeanCentralBank",
            "name": "European Central Bank",
            "confidence": 1.0,
            "candidates": [{"id": "fibo:EuropeanCentralBank", "name": "European Central Bank", "score": 1.0}],
        }
    ]
}
COUNTED = {"offset_unit": "code-point", "snapshot": "721c3be7"}


class LinkRequest(BaseModel):
    """A text to link."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": EXAMPLE}]})
    text: Text
    offset_unit: OffsetUnit = Field("code-point", description="What start and end of the answer count.")


class LinkBatchRequest(BaseModel):
    """Several texts to link."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": [EXAMPLE, "Bonds fell."]}]})
    texts: list[Text] = Field(max_length=MAX_TEXTS)
    offset_unit: OffsetUnit = "code-point"


class CandidateView(BaseModel):
    """An entity that a mention may denote."""

    id: str
    name: str
    score: float


class LinkView(BaseModel):
    """A mention and the entity that it denotes; ``id`` is null where none is sure enough (NIL)."""

    start: int
    end: int
    text: str
    id: str | None
    name: str | None
    confidence: float
    candidates: list[CandidateView]

    @classmethod
    def all_of(cls, text: str, links: list[Link], unit: OffsetUnit) -> "list[LinkView]":
        """The links of ``text`` with offsets counted in ``unit``."""
        offset = offsets_of(text, unit)
        return [
            cls.model_validate({**link.as_json(), "start": int(offset[link.start]), "end": int(offset[link.end])})
            for link in links
        ]


class Linked(BaseModel):
    """The links of one text, in its order."""

    links: list[LinkView]


class LinkAnswer(Linked):
    """The links of one text and what they count and come from."""

    offset_unit: OffsetUnit
    snapshot: str = Field(description="Hash of the snapshot that answered.")


class LinkBatchAnswer(BaseModel):
    """The links of each text, in the order of the texts."""

    results: list[Linked]
    offset_unit: OffsetUnit
    snapshot: str


def link_router(
    linker: Linker | LiveLinker, *, workers: int = WORKERS, queue: int = QUEUE, deadline_s: float = DEADLINE_S
) -> GatedRouter:
    """``POST /link`` and ``POST /link/batch``; a ``LiveLinker`` is kept on the latest snapshot while the app runs.

    Args:
        linker: answers, or holds what answers.
        workers: texts that are linked at the same time.
        queue: requests that may wait for that; more are refused with 429.
        deadline_s: time until an answer, the body of the request included.
    """
    gate = Gate("links", workers=workers, queue=queue, deadline_s=deadline_s)
    texts = Counter("kgfuse_texts_linked", "Texts linked", registry=None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with linker.following() if isinstance(linker, LiveLinker) else nullcontext():
            yield

    router = GatedRouter(gate, tag="links", lifespan=lifespan)

    def current() -> Linker:
        return linker.current if isinstance(linker, LiveLinker) else linker

    def linked(linker: Linker, text: str, unit: OffsetUnit) -> list[LinkView]:
        links = LinkView.all_of(text, linker.link(text), unit)
        texts.inc()
        return links

    # The answers are made and written as JSON in the worker thread: a long one would hold up the event loop.

    @router.post(
        "/link",
        summary="Entities that a text mentions",
        response_model=LinkAnswer,
        responses=ok(LINKS | COUNTED) | PROBLEMS,
    )
    async def link(request: LinkRequest) -> Response:
        def work(_: Event) -> str:
            linker, unit = current(), request.offset_unit
            answer = LinkAnswer(
                links=linked(linker, request.text, unit), offset_unit=unit, snapshot=linker.snapshot.hash
            )
            return answer.model_dump_json()

        return Response(await gate.run(work), media_type="application/json")

    @router.post(
        "/link/batch",
        summary="Entities that each text mentions",
        response_model=LinkBatchAnswer,
        responses=ok({"results": [LINKS, {"links": []}]} | COUNTED) | PROBLEMS,
    )
    async def link_batch(request: LinkBatchRequest) -> Response:
        def work(abandoned: Event) -> str:
            linker, unit, results = current(), request.offset_unit, []
            for text in request.texts:
                if abandoned.is_set():
                    break
                results.append(Linked(links=linked(linker, text, unit)))
            answer = LinkBatchAnswer(results=results, offset_unit=unit, snapshot=linker.snapshot.hash)
            return answer.model_dump_json()

        return Response(await gate.run(work), media_type="application/json")

    router.states["links"] = lambda: "ready"
    router.collectors += [texts, SnapshotCollector(current, linker if isinstance(linker, LiveLinker) else None)]
    return router


class SnapshotCollector(Collector):
    """Which snapshot answers."""

    def __init__(self, current: Callable[[], Linker], live: LiveLinker | None) -> None:
        self._current, self._live = current, live

    def collect(self) -> Iterator[Metric]:
        snapshot = self._current().snapshot
        info = GaugeMetricFamily(
            "kgfuse_snapshot_info", "The snapshot that links come from", labels=["hash", "version"]
        )
        info.add_metric([snapshot.hash, snapshot.path.name], 1)
        yield info
        yield GaugeMetricFamily("kgfuse_snapshot_entities", "Entities of that snapshot", snapshot.num_entities)
        if self._live is not None:
            said = "Snapshots that could not be loaded"
            yield CounterMetricFamily("kgfuse_snapshot_failures", said, self._live.failures)
