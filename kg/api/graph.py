"""The graph over HTTP: entities, neighbours and search, read from Neo4j; 503 while it is away."""

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from kg.api.problems import RETRY_AFTER_S
from kg.errors import StoreUnavailable
from kg.store import GraphStore

QUERY_TIMEOUT_S = 10
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
HIDDEN = SHOWN | {"name_kinds", "name_origins", "content_hash"}
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


class Connection:
    """The store of one app: opened when first needed, and again after it was lost."""

    def __init__(self, open_store: Callable[[], AbstractContextManager[GraphStore]]) -> None:
        self._open_store, self._lock, self._held = open_store, Lock(), ExitStack()
        self._store: GraphStore | None = None
        self._away: tuple[float, StoreUnavailable] | None = None

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """All rows of a query; not retried, so that a caller is not kept waiting.

        Raises:
            StoreUnavailable: Neo4j is away, or was a moment ago.
        """
        store = self._opened()
        try:
            return list(store.stream(query, timeout_s=QUERY_TIMEOUT_S, **parameters))
        except StoreUnavailable:
            with self._lock:
                if self._store is store:
                    self._close()
            raise

    def close(self) -> None:
        with self._lock:
            self._close()

    def _opened(self) -> GraphStore:
        with self._lock:
            if self._store is None:
                if self._away and time.monotonic() - self._away[0] < RETRY_AFTER_S:
                    raise StoreUnavailable(str(self._away[1]))
                try:
                    self._store, self._away = self._held.enter_context(self._open_store()), None
                except StoreUnavailable as error:
                    self._away = time.monotonic(), error
                    raise
            return self._store

    def _close(self) -> None:
        self._store = None
        self._held.close()


def graph_router(open_store: Callable[[], AbstractContextManager[GraphStore]]) -> APIRouter:
    """``GET /entities/…`` and ``GET /search`` on the store that ``open_store`` gives; closed with the app."""
    connection = Connection(open_store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(connection.close)

    router = APIRouter(tags=["graph"], lifespan=lifespan)
    limit = Query(ge=1, le=500)

    def found(entity_id: str) -> dict[str, Any]:
        rows = connection.rows(ENTITY, id=entity_id)
        if not rows:
            raise HTTPException(404, f"The graph has no entity {entity_id!r}.")
        return rows[0]

    # Ids may hold slashes, so the longer path comes first.
    @router.get("/entities/{id:path}/neighbours", summary="Entities one relationship away")
    def neighbours(id: str, relation: str | None = None, limit: Annotated[int, limit] = 100) -> list[NeighbourView]:
        found(id)
        rows = connection.rows(NEIGHBOURS, id=id, relation=relation, limit=limit)
        return [NeighbourView.model_validate(row) for row in rows]

    @router.get("/entities/{id:path}", summary="One entity")
    def entity(id: str) -> EntityView:
        row = found(id)
        shown = {name: value for name, value in row["properties"].items() if name in SHOWN}
        other = {name: _plain(value) for name, value in row["properties"].items() if name not in HIDDEN}
        return EntityView(**shown, labels=sorted(row["labels"]), properties=other)

    @router.get("/search", summary="Entities by words of their names")
    def search(
        q: Annotated[str, Query(min_length=1, max_length=200)], limit: Annotated[int, limit] = 20
    ) -> list[FoundView]:
        words = [word.lower() for word in _LUCENE_SYNTAX.sub(" ", q).split()]
        if not words:
            return []
        words.append(words[-1] + "*")  # the last word may still be being typed
        return [FoundView.model_validate(row) for row in connection.rows(SEARCH, words=" ".join(words), limit=limit)]

    return router


def _plain(value: Any) -> Any:
    """A property as JSON can hold it: dates, times and points as text."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
