"""Free Cypher over HTTP, off unless asked for: what reads the graph is run, with limits on time, rows and bytes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from kg.api.connection import Connection
from kg.api.gate import DEADLINE_S, Gate, GatedRouter
from kg.api.problems import ok, problems
from kg.confined import ConfinedCypher

EXAMPLE: dict[str, Any] = {
    "query": "MATCH (e:Entity {id: $id})-[r]->(n) RETURN type(r) AS relation, n.name AS name LIMIT 2",
    "parameters": {"id": "fibo:CreditUnion"},
}
TABLE = {"columns": ["relation", "name"], "rows": [["SUBCLASS_OF", "depository institution"]], "truncated": False}
MAX_QUERY = 20_000  # code points


@dataclass(frozen=True, kw_only=True)
class CypherLimits:
    """What one statement may take."""

    timeout_s: float = 10
    rows: int = 1_000
    max_bytes: int = 1_000_000
    """Of all rows, as JSON."""
    workers: int = 2
    queue: int = 16


class CypherRequest(BaseModel):
    """A statement that reads the graph."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})
    query: str = Field(min_length=1, max_length=MAX_QUERY, description="One Cypher statement.")
    parameters: dict[str, Any] = Field({}, description="Values of its $names.")


class CypherAnswer(BaseModel):
    """Rows of a query."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool = Field(description="There was more than the limit of rows or of bytes.")


def add_cypher(router: GatedRouter, connection: Connection, limits: CypherLimits) -> None:
    """Add ``POST /cypher`` behind a gate of its own, so that slow statements hold up nothing else."""
    gate = Gate("cypher", workers=limits.workers, queue=limits.queue, deadline_s=limits.timeout_s + DEADLINE_S)
    every = [ConfinedCypher() for _ in range(limits.workers)]
    idle: SimpleQueue[ConfinedCypher] = SimpleQueue()
    for one in every:
        idle.put(one)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for one in every:
            await run_in_threadpool(one.close)

    def answer(request: CypherRequest) -> str:
        confined = idle.get()
        try:
            with connection.store() as store:
                return confined.run(
                    store.address,
                    request.query,
                    request.parameters,
                    timeout_s=limits.timeout_s,
                    limit=limits.rows,
                    max_bytes=limits.max_bytes,
                )
        finally:
            idle.put(confined)

    cypher = GatedRouter(gate, tag="graph", lifespan=lifespan)

    @cypher.post(
        "/cypher",
        summary="Rows of a Cypher statement that reads the graph",
        response_model=CypherAnswer,
        responses=ok(TABLE) | problems(400, 413, 422, 429, 502, 503),
    )
    async def run(request: CypherRequest) -> Response:
        return Response(await gate.run(lambda _: answer(request)), media_type="application/json")

    router.include_router(cypher)
    router.gates.append(gate)
