"""A release into Neo4j: exactly the difference to what the graph holds of that source, and nothing else.

Nothing is merged by the server: ``MERGE`` of relationships was measured at 40 times the cost of ``CREATE``. Since what
to write is the difference to what is there, a load that was interrupted is simply run again, and one that was finished
writes nothing. A difference that is small enough is one transaction, so readers never see a part of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ingest.claims import GONE, claim_of, claims_of, node_of
from ingest.difference import Difference, find_difference, num_asserted, read_sources, rows_where
from ingest.identity import settle_ids
from ingest.release import Release, unpacked
from ingest.report import Report
from kg.errors import StoreFailed
from kg.schema import quote_name
from kg.store import CommitUnknown, GraphStore, WriteTransaction

T = TypeVar("T")
_Node: TypeAlias = tuple[frozenset[str], frozenset[str], dict[str, Any]]
"""Labels before, labels, properties."""
BATCH = 5000
ATOMIC = 20_000
"""Rows up to which a difference is written in one transaction; the memory of one is a quarter of the server's heap."""
RETRIES = 3

READ_NODES = "MATCH (e:Entity) WHERE e.id IN $ids RETURN collect([e.id, labels(e), properties(e)]) AS rows"
KNOWN_RELATIONSHIPS = """
MATCH (h:Entity)-[r]->() WHERE h.id IN $heads RETURN collect([r.sid + ' ' + type(r), r.sources]) AS rows
"""
REPLACE_NODES = "UNWIND $rows AS row MATCH (e:Entity {id: row.id}) SET e = row"
RENAME_NODES = "UNWIND $rows AS row MATCH (e:Entity {iri: row[0]}) SET e.id = row[1]"
DELETE_NODES = "MATCH (e:Entity) WHERE e.id IN $ids DETACH DELETE e"
CREATE_RELATIONSHIPS = """
UNWIND $rows AS row
MATCH (h:Entity {id: row.head}) MATCH (t:Entity {id: row.tail})
CREATE (h)-[r:$(row.relation)]->(t) SET r = row.properties
"""
CREATE_RELATIONSHIPS_OF_ONE_TYPE = """
UNWIND $rows AS row
MATCH (h:Entity {{id: row.head}}) MATCH (t:Entity {{id: row.tail}})
CREATE (h)-[r:{relation}]->(t) SET r = row.properties
"""
SET_SOURCES = """
UNWIND $rows AS row MATCH (:Entity {id: row.head})-[r]->() WHERE r.sid + ' ' + type(r) = row.key
SET r.sources = row.sources
"""
DELETE_RELATIONSHIPS = """
UNWIND $rows AS row MATCH (:Entity {id: row.head})-[r]->()
WHERE r.sid + ' ' + type(r) IN row.keys AND r.sources = [$source] DELETE r
"""
LEAVE_RELATIONSHIPS = """
UNWIND $rows AS row MATCH (:Entity {id: row.head})-[r]->() WHERE r.sid + ' ' + type(r) IN row.keys
SET r.sources = [name IN r.sources WHERE name <> $source]
"""
OLD_TOMBSTONES = "MATCH (e:Tombstone) WHERE e.gone_from = $source RETURN collect(e.id) AS ids"
BEGIN_SOURCE = "MERGE (s:Source {id: $id}) SET s.exact = false"
RECORD_SOURCE = """
MERGE (s:Source {id: $id})
SET s.release = $release, s.sha256 = $sha256, s.licence = $licence, s.exact = $exact, s.loaded_at = $loaded_at
"""


def load(
    store: GraphStore,
    release: Release,
    report: Report,
    *,
    difference: Difference | None = None,
    previous: Release | None = None,
    remove: bool = False,
    prune: bool = False,
) -> None:
    """Bring the graph, whose schema is there, to hold ``release``.

    Args:
        difference: to what the graph holds, where it has been worked out already.
        previous: what was loaded before, if it is at hand; saves reading the graph where that says it holds just this.
        remove: take away what the source no longer asserts, as a refresh does; otherwise it stays.
        prune: delete the nodes that nobody asserts any more, instead of leaving tombstones.

    Raises:
        StoreFailed: the connection broke in the middle of a commit again and again.
    """
    for _ in range(RETRIES):
        try:
            difference = difference or find_difference(store, release, previous)
            _Writer(store, difference, report, remove=remove, prune=prune).write()
            return
        except CommitUnknown:
            difference = previous = None  # worked out anew from the graph, it knows whether that commit happened
    raise StoreFailed(f"The connection to Neo4j broke {RETRIES} times while committing; check its log and run again.")


class _Writer:
    """Writes one difference."""

    def __init__(self, store: GraphStore, difference: Difference, report: Report, *, remove: bool, prune: bool) -> None:
        self.store, self.difference, self.report = store, difference, report
        self.release, self.source = difference.release, difference.release.source
        self.remove, self.prune = remove, prune
        self.sources = read_sources(store)
        self.alone = self.sources.keys() <= {self.source} and num_asserted(store) == difference.held.nodes.num_rows
        """No node is another source's, so what is new to this source is new to the graph."""
        self.ids = settle_ids(store, difference, alone=self.alone, remove=remove, prune=prune)
        self.transaction: WriteTransaction | None = None
        """The only one, when the difference is small."""

    def write(self) -> None:
        difference, manifest = self.difference, self.release.manifest
        num_rows = difference.num_written + len(self.ids.renamed) + (difference.num_gone if self.remove else 0)
        stays = 0 if self.remove else difference.num_gone
        if stays:
            self.report.notes.append(
                f"{difference.gone.num_rows:,} entities and {difference.gone_edges.num_rows:,} relationships that an "
                "earlier release gave stay; `python -m ingest refresh` takes them away"
            )
        said = {
            "release": manifest.get("release", ""),
            "sha256": self.release.sha256,
            "licence": manifest.get("licence") or None,
            "exact": not stays,
        }
        old = self.store.read(OLD_TOMBSTONES, source=self.source)[0]["ids"] if self.prune else []
        if not num_rows and not old and self.sources.get(self.source, {}).items() >= said.items():
            return
        atomic = num_rows <= ATOMIC
        if not atomic:
            self._run(BEGIN_SOURCE, id=self.source)
        with self.store.transaction() if atomic else nullcontext() as self.transaction, progress_bars() as progress:
            if self.remove:
                self._take_away(progress)
                self._run(DELETE_NODES, ids=old)
            self._rename()
            self._write_nodes(progress)
            self._write_edges(progress)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._run(RECORD_SOURCE, id=self.source, loaded_at=now, **said)

    @contextmanager
    def _batch(self) -> Iterator[WriteTransaction]:
        """The one transaction of a small difference, or one for this batch alone."""
        with nullcontext(self.transaction) if self.transaction else self.store.transaction() as transaction:
            yield transaction

    def _run(self, query: str, **parameters: Any) -> None:
        with self._batch() as transaction:
            transaction.run(query, **parameters)

    def _take_away(self, progress: Progress) -> None:
        """Relationships and nodes that the source asserts no longer."""
        heads: dict[str, list[str]] = defaultdict(list)
        for row in self.difference.gone_edges.to_pylist():
            heads[row["head"]].append(f"{row['sid']} {row['relation']}")
        rows = [{"head": head, "keys": keys} for head, keys in heads.items()]
        for batch in _shown(progress, "relationships that go", batches(rows, BATCH), len(rows)):
            with self._batch() as transaction:
                counters = transaction.run(DELETE_RELATIONSHIPS, rows=batch, source=self.source)
                self.report.removed.update(relationships=counters["relationships_deleted"])
                if not self.alone:
                    transaction.run(LEAVE_RELATIONSHIPS, rows=batch, source=self.source)
        ids = self.difference.gone["id"].to_pylist()
        for part in _shown(progress, "entities that go", batches(ids, BATCH), len(ids)):
            with self._batch() as transaction:
                self._leave(transaction, part)

    def _leave(self, transaction: WriteTransaction, ids: Sequence[str]) -> None:
        """Of nodes, the claim of this source; those that nobody claims then are deleted, or become tombstones."""
        nodes: list[_Node] = []
        deleted: list[str] = []
        for entity_id, labels, properties in transaction.rows(READ_NODES, ids=ids)[0]["rows"]:
            claims = claims_of(labels, properties)
            claims.pop(self.source, None)
            if claims:
                nodes.append((frozenset(labels), *node_of(properties["iri"], entity_id, claims)))
            elif self.prune:
                deleted.append(entity_id)
            else:
                tombstone = {
                    "id": entity_id,
                    "iri": properties["iri"],
                    "name": properties.get("name"),
                    "gone_from": self.source,
                    "gone_in": self.release.manifest.get("release", ""),
                }
                nodes.append((frozenset(labels), GONE, {**tombstone, "sources": [], "hashes": []}))
        transaction.run(DELETE_NODES, ids=deleted)
        self.report.removed.update(nodes=len(ids))
        self._replace(transaction, nodes)

    def _rename(self) -> None:
        renamed = self.ids.renamed
        if renamed:
            with self._batch() as transaction:  # in two steps, since two nodes may change places
                for step in ([[iri, f"~{iri}"] for iri in renamed], [list(pair) for pair in renamed.items()]):
                    transaction.run(RENAME_NODES, rows=step)

    def _write_nodes(self, progress: Progress) -> None:
        difference, release = self.difference, self.release
        added = rows_where(release.nodes(), difference.added, BATCH)
        for rows in _shown(progress, "new entities", added, int(difference.added.sum())):
            fresh: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
            known = []
            for row in rows:
                row["id"] = self.ids(row["id"])
                if row["id"] in self.ids.there:
                    known.append(row)
                else:
                    claim = claim_of(row, self.source)
                    labels, properties = node_of(row["iri"], row["id"], {self.source: claim})
                    fresh[labels].append(properties)
            with self._batch() as transaction:
                for labels, created in fresh.items():
                    names = ":".join(map(quote_name, sorted(labels)))
                    counters = transaction.run(f"UNWIND $rows AS row CREATE (e:{names}) SET e = row", rows=created)
                    self.report.written.update(nodes=counters["nodes_created"], properties=counters["properties_set"])
                self._claim(transaction, known)
        changed = rows_where(release.nodes(), difference.changed, BATCH)
        for rows in _shown(progress, "changed entities", changed, int(difference.changed.sum())):
            for row in rows:
                row["id"] = self.ids(row["id"])
            with self._batch() as transaction:
                self._claim(transaction, rows)

    def _claim(self, transaction: WriteTransaction, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write what this source says now of nodes that are there."""
        said = {row["id"]: row for row in rows}
        nodes: list[_Node] = []
        for entity_id, labels, properties in transaction.rows(READ_NODES, ids=list(said))[0]["rows"]:
            claims = claims_of(labels, properties) | {self.source: claim_of(said[entity_id], self.source)}
            nodes.append((frozenset(labels), *node_of(properties["iri"], entity_id, claims)))
        self.report.written.update(nodes=len(nodes), properties=self._replace(transaction, nodes))

    def _replace(self, transaction: WriteTransaction, nodes: Sequence["_Node"]) -> int:
        """Give nodes other labels and properties; the number of properties set."""
        if not nodes:
            return 0
        relabelled: dict[tuple[frozenset[str], frozenset[str]], list[str]] = defaultdict(list)
        for before, labels, properties in nodes:
            if before != labels:
                relabelled[before - labels, labels - before].append(properties["id"])
        counters = transaction.run(REPLACE_NODES, rows=[properties for _, _, properties in nodes])
        for (gone, new), ids in relabelled.items():
            clauses = [f"SET e:{':'.join(map(quote_name, sorted(new)))}"] if new else []
            clauses += [f"REMOVE e:{':'.join(map(quote_name, sorted(gone)))}"] if gone else []
            transaction.run(f"MATCH (e:Entity) WHERE e.id IN $ids {' '.join(clauses)}", ids=ids)
        return counters["properties_set"]

    def _write_edges(self, progress: Progress) -> None:
        wanted = self.difference.added_edges
        dynamic = bool(wanted.any()) and self.store.dynamic_types_work
        parts = rows_where(self.release.edges(), wanted, BATCH)
        for batch in _shown(progress, "relationships", parts, int(wanted.sum())):
            rows = [
                {
                    "head": self.ids(row["head"]),
                    "tail": self.ids(row["tail"]),
                    "relation": row["relation"],
                    "properties": {**unpacked(row["properties"]), "sid": row["sid"], "sources": [self.source]},
                }
                for row in batch
            ]
            with self._batch() as transaction:
                if not self.alone:
                    rows = self._share(transaction, rows)
                self._create(transaction, rows, dynamic=dynamic)

    def _share(self, transaction: WriteTransaction, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add this source to the relationships that others assert already; the rows that are left."""
        heads = sorted({row["head"] for row in rows})
        known = dict(transaction.rows(KNOWN_RELATIONSHIPS, heads=heads)[0]["rows"])
        left, shared = [], []
        for row in rows:
            key = f"{row['properties']['sid']} {row['relation']}"
            if key not in known:
                left.append(row)
            elif self.source not in known[key]:
                sources = sorted({*known[key], self.source})
                shared.append({"head": row["head"], "key": key, "sources": sources})
        if shared:
            counters = transaction.run(SET_SOURCES, rows=shared)
            self.report.written.update(properties=counters["properties_set"])
        return left

    def _create(self, transaction: WriteTransaction, rows: Sequence[dict[str, Any]], *, dynamic: bool) -> None:
        if not rows:
            return
        if dynamic:
            counters = [transaction.run(CREATE_RELATIONSHIPS, rows=rows)]
        else:
            by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in rows:
                by_type[row["relation"]].append(row)
            counters = [
                transaction.run(CREATE_RELATIONSHIPS_OF_ONE_TYPE.format(relation=quote_name(relation)), rows=part)
                for relation, part in sorted(by_type.items())
            ]
        created = sum(counter["relationships_created"] for counter in counters)
        if created != len(rows):
            raise StoreFailed(
                f"Neo4j made {created} of {len(rows)} relationships; an end is missing. Nothing of it is kept."
            )
        self.report.written.update(relationships=created, properties=sum(c["properties_set"] for c in counters))


def progress_bars() -> Progress:
    """Bars on the terminal, nothing where there is none."""
    columns = (TextColumn("{task.description:21}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _shown(progress: Progress, what: str, parts: Iterable[list[T]], total: int) -> Iterator[list[T]]:
    bar = progress.add_task(what, total=total) if total else None
    for part in parts:
        yield part
        if bar is not None:
            progress.advance(bar, len(part))


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
