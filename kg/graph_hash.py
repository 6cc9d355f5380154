"""One sha256 for the content of the graph, whatever the order in which it was loaded."""

import hashlib
import json

from kg.store import GraphStore

# Columns of a chunk come as a few lists: rows of one record each are 80 times slower to read.
NODES = """
MATCH (n) WHERE NOT n:LoadChunk
WITH collect([labels(n), CASE WHEN n:Source THEN n{.id, .release, .sha256} ELSE properties(n) END]) AS everything
UNWIND range(0, size(everything), 5000) AS start RETURN everything[start..start + 5000] AS rows
"""
RELATIONSHIPS = """
MATCH (a)-[r]->(b)
WITH collect([a.id, type(r), b.id, properties(r)]) AS everything
UNWIND range(0, size(everything), 5000) AS start RETURN everything[start..start + 5000] AS rows
"""


def graph_hash(store: GraphStore) -> str:
    """Hash of all nodes (labels, properties) and relationships (ends, type, properties).

    Each is hashed by itself and the hashes are added up modulo 2^256, so order does not count and nothing is sorted.
    When a source was loaded, and the markers of an unfinished load, are left out.
    """
    total = 0
    for query in (NODES, RELATIONSHIPS):
        for chunk in store.stream(query):
            for row in chunk["rows"]:
                if isinstance(row[0], list):
                    row = [sorted(row[0]), row[1]]
                text = json.dumps(row, sort_keys=True, default=str, ensure_ascii=False)
                total += int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
    return f"{total % 2**256:064x}"
