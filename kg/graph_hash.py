"""One sha256 for the content of the graph, whatever the order in which it was loaded."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from kg.store import GraphStore

# A page comes as one row of lists, which is 80 times faster to read than rows of one record each; pages keep the
# memory of the transaction bounded, and the index on id gives them in order.
ENTITIES = """
MATCH (n:Entity) WHERE n.id > $after AND NOT n:Tombstone
WITH n ORDER BY n.id LIMIT $size
RETURN max(n.id) AS last,
       collect([labels(n), properties(n), [(n)-[r]->(m) | [n.id, type(r), m.id, properties(r)]]]) AS nodes
"""
OTHERS = """
MATCH (n) WHERE NOT n:Entity
RETURN collect([labels(n), CASE WHEN n:Source THEN n{.id, .release, .sha256} ELSE properties(n) END,
                [(n)-[r]->(m) | [n.id, type(r), m.id, properties(r)]]]) AS nodes
"""
PAGE_SIZE = 10_000


def graph_hash(store: GraphStore) -> str:
    """Hash of all nodes (labels, properties) and relationships (ends, type, properties).

    Each is hashed by itself and the hashes are added up modulo 2^256, so order does not count and nothing is sorted.
    When a source was loaded is left out, and so are tombstones: they remember what the graph does not hold any more.
    """
    total = 0
    for labels, properties, relationships in _nodes(store):
        total += _digest([sorted(labels), properties]) + sum(map(_digest, relationships))
    return f"{total % 2**256:064x}"


def _nodes(store: GraphStore) -> Iterator[list[Any]]:
    yield from store.read(OTHERS, timeout_s=600)[0]["nodes"]
    last = ""
    while last is not None:
        (page,) = store.read(ENTITIES, timeout_s=600, after=last, size=PAGE_SIZE)
        yield from page["nodes"]
        last = page["last"]


def _digest(row: list[Any]) -> int:
    text = json.dumps(row, sort_keys=True, default=_typed, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")


def _typed(value: object) -> list[str]:
    """Dates, times, points and bytes; the name keeps a date apart from a string that looks like it."""
    return [type(value).__name__, str(value)]
