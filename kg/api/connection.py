"""The one store of an app: opened when it is first needed, and again after Neo4j was away."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from typing import Any

from kg.api.problems import RETRY_AFTER_S
from kg.errors import StoreUnavailable
from kg.store import GraphStore

QUERY_TIMEOUT_S = 10


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
        with self.store() as store:
            return list(store.stream(query, timeout_s=QUERY_TIMEOUT_S, **parameters))

    @contextmanager
    def store(self) -> Iterator[GraphStore]:
        """The store for as long as the block lasts; opened anew for the next one when Neo4j went away in this one.

        Raises:
            StoreUnavailable: Neo4j is away, or was a moment ago.
        """
        store = self._opened()
        try:
            yield store
        except StoreUnavailable as error:
            with self._lock:
                if self._store is store:
                    self._close()
                    self._away = time.monotonic(), error
            raise

    @property
    def state(self) -> str:
        """``ready``, ``away``, or ``idle`` while nobody has asked for the graph."""
        return "away" if self._away else "ready" if self._store else "idle"

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
