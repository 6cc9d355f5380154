"""What has to be written so that the graph holds a release: the difference to what it holds of that source."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.release import Release
from kg.schema import quote_name, source_label
from kg.store import GraphStore

PAGE = 5_000
READ_NODES = """
MATCH (e:Entity) USING INDEX e:Entity(id)
WHERE e.id > $after AND e:{label} AND $source IN e.sources
WITH e ORDER BY e.id LIMIT $page
WITH collect(e) AS all
RETURN [e IN all | e.iri] AS iri, [e IN all | e.id] AS id,
       [e IN all | [i IN range(0, size(e.sources) - 1) WHERE e.sources[i] = $source | e.hashes[i]][0]] AS hash
"""
READ_EDGES = """
MATCH (h:Entity) USING INDEX h:Entity(id)
WHERE h.id > $after AND h.id <= $last AND h:{label}
MATCH (h)-[r]->() WHERE $source IN r.sources
RETURN collect(h.id) AS head, collect(r.sid) AS sid, collect(type(r)) AS relation
"""
READ_SOURCES = """
MATCH (s:Source)
RETURN s.id AS id, s.release AS release, s.sha256 AS sha256, s.licence AS licence, s.loaded_at AS loaded_at,
       s.exact AS exact
"""
COUNT_ENTITIES = "MATCH (e:Entity) RETURN count(e) AS number"
COUNT_TOMBSTONES = "MATCH (e:Tombstone) RETURN count(e) AS number"
NODES = pa.schema([("iri", pa.string()), ("id", pa.string()), ("hash", pa.string())])
EDGES = pa.schema([("head", pa.string()), ("sid", pa.string()), ("relation", pa.string())])


@dataclass(frozen=True)
class Held:
    """What the graph holds of a source."""

    nodes: pa.Table
    """``iri``, ``id``, ``hash``."""
    edges: pa.Table
    """``head`` (an id), ``sid``, ``relation``."""


NOTHING = Held(NODES.empty_table(), EDGES.empty_table())


def held_in_graph(store: GraphStore, source: str) -> Held:
    """Read the graph; in lists, since a record for each row is 80 times slower."""
    label = quote_name(source_label(source))
    nodes, edges, after = [NODES.empty_table()], [EDGES.empty_table()], ""
    while True:
        page = store.read(READ_NODES.format(label=label), source=source, after=after, page=PAGE, timeout_s=600)[0]
        if not page["id"]:
            return Held(pa.concat_tables(nodes), pa.concat_tables(edges))
        nodes.append(pa.table(page, schema=NODES))
        found = store.read(
            READ_EDGES.format(label=label), source=source, after=after, last=page["id"][-1], timeout_s=600
        )[0]
        edges.append(pa.table(found, schema=EDGES))
        after = page["id"][-1]


def held_by_release(release: Release) -> Held:
    """The same without asking the graph, when it is known to hold exactly this release."""
    return Held(
        pa.Table.from_batches(release.nodes(*NODES.names), NODES),
        pa.Table.from_batches(release.edges(*EDGES.names), EDGES),
    )


@dataclass(frozen=True)
class Difference:
    """Row numbers of a release that are to be written, and rows of what is held that are to go."""

    release: Release
    held: Held

    @cached_property
    def nodes(self) -> pa.Table:
        return pa.Table.from_batches(self.release.nodes(*NODES.names), NODES)

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        """Of each node of the release, its row in what is held; -1 where it is new."""
        return _places(self.nodes["iri"], self.held.nodes["iri"])

    @cached_property
    def added(self) -> NDArray[np.bool_]:
        return self._place < 0

    @cached_property
    def changed(self) -> NDArray[np.bool_]:
        """Nodes that are held with other content."""
        return self._differs("hash")

    @cached_property
    def moved(self) -> NDArray[np.bool_]:
        """Nodes that are held under another id."""
        return self._differs("id")

    @cached_property
    def gone(self) -> pa.Table:
        """Nodes that the release does not have: ``iri``, ``id``, ``hash``."""
        return self.held.nodes.filter(pa.array(_places(self.held.nodes["iri"], self.nodes["iri"]) < 0))

    @cached_property
    def _edge_places(self) -> tuple[NDArray[np.bool_], pa.Table]:
        new = pa.Table.from_batches(self.release.edges("sid", "relation"), pa.schema([EDGES.field(1), EDGES.field(2)]))
        ours, theirs = _key(new), _key(self.held.edges)
        return _places(ours, theirs) < 0, self.held.edges.filter(pa.array(_places(theirs, ours) < 0))

    @property
    def added_edges(self) -> NDArray[np.bool_]:
        return self._edge_places[0]

    @property
    def gone_edges(self) -> pa.Table:
        """``head``, ``sid``, ``relation``."""
        return self._edge_places[1]

    @property
    def num_written(self) -> int:
        """Nodes and relationships to write, without those that go."""
        return int(self.added.sum() + self.changed.sum() + self.added_edges.sum())

    @property
    def num_gone(self) -> int:
        return int(self.gone.num_rows + self.gone_edges.num_rows)

    def _differs(self, column: str) -> NDArray[np.bool_]:
        known = self._place >= 0
        differs = np.zeros(len(known), dtype=bool)
        before = self.held.nodes[column].take(pa.array(self._place[known]))
        now = self.nodes[column].filter(pa.array(known))
        differs[known] = pc.not_equal(now, before).to_numpy()
        return differs


def find_difference(store: GraphStore, release: Release, previous: Release | None = None) -> Difference:
    """Between ``release`` and what the graph holds of its source."""
    sources = read_sources(store)
    said = sources.get(release.source)
    if said is None:
        return Difference(release, NOTHING)
    known = previous is not None and said["exact"] and said["sha256"] == previous.sha256 and len(sources) == 1
    if known and previous is not None and num_asserted(store) == previous.num_nodes:
        return Difference(release, held_by_release(previous))
    return Difference(release, held_in_graph(store, release.source))


def read_sources(store: GraphStore) -> dict[str, dict[str, Any]]:
    """What was loaded, by id."""
    return {row["id"]: row for row in store.read(READ_SOURCES)}


def num_asserted(store: GraphStore) -> int:
    """Entities that some source asserts; Neo4j keeps these counts."""
    return int(store.read(COUNT_ENTITIES)[0]["number"] - store.read(COUNT_TOMBSTONES)[0]["number"])


def rows_where(
    batches: Iterator[pa.RecordBatch], wanted: NDArray[np.bool_], size: int
) -> Iterator[list[dict[str, Any]]]:
    """The rows of ``batches`` where ``wanted`` is True, as dictionaries, at most ``size`` at a time."""
    start = 0
    for batch in batches:
        rows = np.flatnonzero(wanted[start : start + batch.num_rows])
        start += batch.num_rows
        for first in range(0, len(rows), size):
            yield batch.take(pa.array(rows[first : first + size])).to_pylist()


def _places(values: pa.ChunkedArray, within: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each value is in ``within``; -1 where it is not."""
    found = pc.fill_null(pc.index_in(values, value_set=within), -1)
    places: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return places


def _key(edges: pa.Table) -> pa.ChunkedArray:
    """A statement under its type: which type a predicate has depends on what other predicates there are."""
    return pc.binary_join_element_wise(edges["sid"], edges["relation"], " ")
