"""What the API does when there is too much: queue, deadline, figures, and how it stops."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from kg.api import create_app, graph_router, link_router
from kg.api.gate import Gate, GatedRouter
from kg.errors import StoreUnavailable
from kg.linking import Linker
from kg.store import GraphStore
from tests.builders import tiny_snapshot

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return Linker.load(tiny_snapshot(tmp_path_factory.mktemp("kg") / "v1"))


class Slow:
    """An app with ``POST /slow``, which works until ``go`` is set, and is told when it is no longer wanted."""

    def __init__(self, *, workers: int = 1, queue: int = 1, deadline_s: float = 30) -> None:
        self.gate = Gate("slow", workers=workers, queue=queue, deadline_s=deadline_s)
        self.go, self.begun, self.abandoned = Event(), 0, Event()
        router = GatedRouter(self.gate, tag="slow")

        def work(abandoned: Event) -> str:
            self.begun += 1
            while not self.go.wait(0.01):
                if abandoned.is_set():
                    self.abandoned.set()
            return "done"

        @router.post("/slow")
        async def slow(body: dict[str, int]) -> str:
            return await self.gate.run(work)

        self.app = create_app(router)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60)


async def until(condition: object, *, within_s: float = 20) -> None:
    assert callable(condition)
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        await asyncio.sleep(0.01)


def figures(text: str) -> dict[tuple[str, ...], float]:
    """Samples of ``/metrics`` by name and label values, as Prometheus reads them."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_beyond_the_queue_are_told_to_come_back_and_the_others_are_answered() -> None:
    slow = Slow(workers=2, queue=3)

    async def scenario() -> None:
        async with client_of(slow.app) as client:
            inside = [asyncio.create_task(client.post("/slow", json={})) for _ in range(5)]
            await until(lambda: slow.gate.waiting == 3 and slow.gate.busy == 2)
            for _ in range(3):
                refused = await client.post("/slow", json={})
                assert (refused.status_code, refused.headers["content-type"]) == (429, PROBLEM)
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.json()["status"] == 429
            for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
                assert (await client.get(path)).status_code == 200
            now = figures((await client.get("/metrics")).text)
            assert now["kgfuse_queue_length", "slow"] == 3
            assert now["kgfuse_queue_limit", "slow"] == 3
            assert now["kgfuse_workers_busy", "slow"] == now["kgfuse_workers", "slow"] == 2
            assert now["kgfuse_requests_refused_total", "slow", "full"] == 3
            assert now["kgfuse_http_requests_total", "/slow", "429"] == 3
            assert now["kgfuse_http_requests_in_flight",] == 6  # the one that asks is one of them
            slow.go.set()
            assert [answer.status_code for answer in await asyncio.gather(*inside)] == [200] * 5
            assert slow.begun == 5  # those that were refused have cost no work
            assert (await client.post("/slow", json={})).status_code == 200
            after = figures((await client.get("/metrics")).text)
            assert after["kgfuse_queue_length", "slow"] == after["kgfuse_workers_busy", "slow"] == 0
            assert after["kgfuse_http_requests_total", "/slow", "200"] == 6
            assert after["kgfuse_http_request_seconds_count", "/slow"] == 9

    asyncio.run(scenario())


def test_a_request_without_an_answer_in_time_is_given_up_and_its_work_is_not_begun() -> None:
    slow = Slow(workers=1, queue=1, deadline_s=0.3)

    async def scenario() -> None:
        async with client_of(slow.app) as client:
            for answer in await asyncio.gather(*(client.post("/slow", json={}) for _ in range(2))):
                assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
                assert int(answer.headers["retry-after"]) >= 1
                assert "0.3 s" in answer.json()["detail"]
            assert slow.begun == 1
            assert slow.abandoned.wait(10)  # the one that runs learns of it
            slow.go.set()
            await until(lambda: slow.gate.busy == 0)
            assert slow.begun == 1
            assert (await client.post("/slow", json={})).status_code == 200
            assert (
                figures((await client.get("/metrics")).text)["kgfuse_requests_refused_total", "slow", "deadline"] == 2
            )

    asyncio.run(scenario())


def test_a_body_that_never_ends_is_given_up_at_the_deadline() -> None:
    slow = Slow(deadline_s=0.3)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async def scenario() -> None:
        async with client_of(slow.app) as client:
            answer = await client.post("/slow", content=body(), headers={"Content-Type": "application/json"})
            assert answer.status_code == 503
            assert slow.begun == slow.gate.waiting == 0

    asyncio.run(scenario())


def test_a_batch_that_is_given_up_ends_after_the_text_at_hand(linker: Linker) -> None:
    router = link_router(linker, workers=1, queue=1, deadline_s=0.2)
    app = create_app(router, max_body_bytes=100_000_000)

    async def scenario() -> None:
        async with client_of(app) as client:
            text = "Acme Bank owns five Corvus Funds. " * 3_000
            assert (await client.post("/link/batch", json={"texts": [text] * 200})).status_code == 503
            await until(lambda: router.gates[0].busy == 0, within_s=60)
            linked = figures((await client.get("/metrics")).text)["kgfuse_texts_linked_total",]
            assert 0 < linked < 200

    asyncio.run(scenario())


def test_the_figures_say_what_answers_and_never_a_path_or_a_text(linker: Linker) -> None:
    def away() -> GraphStore:
        raise StoreUnavailable("No Neo4j answers at bolt://secret-host:7687.")

    app = create_app(link_router(linker), graph_router(away))

    async def scenario() -> None:
        async with client_of(app) as client:
            assert (await client.get("/readyz")).json()["parts"] == {"links": "ready", "graph": "idle"}
            await client.post("/link", json={"text": "Acme Bank secret-text"})
            await client.post("/link/batch", json={"texts": ["Acme Bank", "Corvus Fund"]})
            await client.get("/entities/secret-id")
            await client.get("/secret-path")
            await client.request("SECRET", "/link")
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["parts"]) == (200, {"links": "ready", "graph": "away"})
            answer = await client.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain; version=")
            assert "secret" not in answer.text.lower()
            now = figures(answer.text)
            assert now["kgfuse_texts_linked_total",] == 3
            assert now["kgfuse_snapshot_info", linker.snapshot.hash, "v1"] == 1
            assert now["kgfuse_snapshot_entities",] == linker.snapshot.num_entities
            assert now["kgfuse_http_requests_total", "/link", "200"] == 1
            assert now["kgfuse_http_requests_total", "/link", "405"] == 1
            assert now["kgfuse_http_requests_total", "/entities/{id:path}", "503"] == 1
            assert now["kgfuse_http_requests_total", "none", "404"] == 1
            assert now["process_resident_memory_bytes",] > 1e6

    asyncio.run(scenario())


def test_the_figures_of_two_apps_are_apart(linker: Linker) -> None:
    router = link_router(linker)
    apps = create_app(router), create_app(router)

    async def scenario() -> None:
        async with client_of(apps[0]) as first, client_of(apps[1]) as second:
            await first.post("/link", json={"text": "Acme Bank"})
            counted = "kgfuse_http_requests_total", "/link", "200"
            assert figures((await first.get("/metrics")).text)[counted] == 1
            assert counted not in figures((await second.get("/metrics")).text)

    asyncio.run(scenario())


def test_figures_are_for_those_with_the_token(linker: Linker) -> None:
    async def scenario() -> None:
        async with client_of(create_app(link_router(linker), token="0123456789abcdef")) as client:
            assert (await client.get("/metrics")).status_code == 401
            allowed = await client.get("/metrics", headers={"Authorization": "Bearer 0123456789abcdef"})
            assert figures(allowed.text)["kgfuse_http_requests_total", "none", "401"] == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("options", [("--workers", "0"), ("--queue", "-1"), ("--deadline", "0")])
def test_limits_that_let_nothing_through_are_refused_in_one_line(
    options: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kg.__main__ import main

    monkeypatch.setenv("KGFUSE_HOME", str(tmp_path))
    assert main(["api", *options]) == 2
    assert capfd.readouterr().err.count("\n") == 1
