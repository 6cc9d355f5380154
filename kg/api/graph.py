"""The graph over HTTP: entities, neighbours and search, read from Neo4j; 503 while it is away."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from threading import Event
from typing import Annotated, Any, TypeAlias

from fastapi import FastAPI, HTTPException, Path, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from kg.api.connection import Connection
from kg.api.cypher import CypherLimits, add_cypher
from kg.api.gate import Gate, GatedRouter
from kg.api.problems import ok, problems
from kg.store import GraphStore

WORKERS, QUEUE = 8, 64  # they wait for Neo4j, not for a core
AWAY = (400, 422, 429, 502, 503)
ENTITY = """
MATCH (e:Entity {id: $id}) RETURN properties(e) AS properties, labels(e) AS labels
"""
NEIGHBOURS = """
MATCH (e:Entity {id: $id})-[r]-(n:Entity) WHERE $relation IS NULL OR type(r) = $relation
RETURN type(r) AS relation, startNode(r) = e AS outgoing, n.id AS id, n.name AS name
ORDER BY relation, outgoing DESC, id LIMIT $limit
"""
SEARCH = """
CALL db.index.fulltext.queryNodes('entity_names', $words, {limit: $limit}) YIELD node, score
RETURN node.id AS id, node.name AS name, node.definition AS definition, score
"""
SHOWN = {"id", "iri", "name", "names", "definition", "definitions", "sources"}
HIDDEN = SHOWN | {"name_kinds", "name_origins", "hashes", "claims", "gone_in", "gone_from"}
"""Shown by themselves, or what the loading of sources keeps on a node for itself."""
ENTITY_EXAMPLE = {
    "id": "fibo:CreditUnion",
    "iri": "https://spec.edmcouncil.org/fibo/ontology/FBC/FunctionalEntities/FinancialServicesEntities/CreditUnion",
    "name": "credit union",
    "names": ["credit union", "member-owned bank"],
    "definition": "financial institution that is owned by its members",
    "definitions": ["financial institution that is owned by its members"],
    "sources": ["fibo"],
    "labels": ["Class", "Entity", "Fibo"],
    "properties": {},
}
NEIGHBOURS_EXAMPLE = [
    {"relation": "SUBCLASS_OF", "outgoing": True, "id": "fibo:DepositoryInstitution", "name": "depository institution"}
]
SEARCH_EXAMPLE = [
    {
        "id": "fibo:CreditUnion",
        "name": "credit union",
        "definition": "financial institution that is owned by its members",
        "score": 4.2,
    }
]
Id: TypeAlias = Annotated[str, Path(description="CURIE of an entity", examples=["fibo:CreditUnion"])]
Relation: TypeAlias = Annotated[
    str | None, Query(description="Only relationships of this type", examples=["SUBCLASS_OF"])
]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=500, description="Rows at most")]
Words: TypeAlias = Annotated[
    str,
    Query(min_length=1, max_length=200, description="The last one may be a part of a word", examples=["credit uni"]),
]
_LUCENE_SYNTAX = re.compile(r'[+\-&|!(){}\[\]^"~*?:\\/<>=]')


class EntityView(BaseModel):
    """An entity as the graph has it."""

    id: str
    iri: str | None = None
    name: str | None = None
    names: list[str] = []
    definition: str | None = None
    definitions: list[str] = []
    sources: list[str] = []
    labels: list[str]
    properties: dict[str, bool | int | float | str | list[bool | int | float | str]]


class NeighbourView(BaseModel):
    """An entity one relationship away."""

    relation: str
    outgoing: bool
    id: str
    name: str | None


class FoundView(BaseModel):
    """An entity whose names fit a search, best first."""

    id: str
    name: str | None
    definition: str | None
    score: float


def graph_router(
    open_store: Callable[[], AbstractContextManager[GraphStore]], *, cypher: CypherLimits | None = None
) -> GatedRouter:
    """``GET /entities/…`` and ``GET /search`` on the store that ``open_store`` gives; closed with the app.

    Args:
        open_store: called when the graph is first asked for, and again after it was away.
        cypher: adds ``POST /cypher`` with these limits.
    """
    gate = Gate("graph", workers=WORKERS, queue=QUEUE)
    connection = Connection(open_store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(connection.close)

    router = GatedRouter(gate, tag="graph", lifespan=lifespan)
    router.states["graph"] = lambda: connection.state

    def found(entity_id: str) -> dict[str, Any]:
        rows = connection.rows(ENTITY, id=entity_id)
        if not rows:
            raise HTTPException(404, f"The graph has no entity {entity_id!r}.")
        return rows[0]

    # Ids may hold slashes, so the longer path comes first.
    @router.get(
        "/entities/{id:path}/neighbours",
        summary="Entities one relationship away",
        responses=ok(NEIGHBOURS_EXAMPLE) | problems(404, *AWAY),
    )
    async def neighbours(id: Id, relation: Relation = None, limit: Limit = 100) -> list[NeighbourView]:
        def work(_: Event) -> list[NeighbourView]:
            found(id)
            rows = connection.rows(NEIGHBOURS, id=id, relation=relation, limit=limit)
            return [NeighbourView.model_validate(row) for row in rows]

        return await gate.run(work)

    @router.get("/entities/{id:path}", summary="One entity", responses=ok(ENTITY_EXAMPLE) | problems(404, *AWAY))
    async def entity(id: Id) -> EntityView:
        row = await gate.run(lambda _: found(id))
        shown = {name: value for name, value in row["properties"].items() if name in SHOWN}
        other = {name: _plain(value) for name, value in row["properties"].items() if name not in HIDDEN}
        return EntityView(**shown, labels=sorted(row["labels"]), properties=other)

    @router.get("/search", summary="Entities by words of their names", responses=ok(SEARCH_EXAMPLE) | problems(*AWAY))
    async def search(q: Words, limit: Limit = 20) -> list[FoundView]:
        words = [word.lower() for word in _LUCENE_SYNTAX.sub(" ", q).split()]
        if not words:
            return []
        words.append(words[-1] + "*")  # the last word may still be being typed
        rows = await gate.run(lambda _: connection.rows(SEARCH, words=" ".join(words), limit=limit))
        return [FoundView.model_validate(row) for row in rows]

    if cypher is not None:
        add_cypher(router, connection, cypher)
    return router


def _plain(value: Any) -> Any:
    """A property as JSON can hold it: dates, times and points as text."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
