"""Entities and triples into Neo4j: work out what is missing or changed, and write exactly that.

Nothing is merged by the server: ``MERGE`` of relationships was measured at 40 times the cost of ``CREATE``. Since what
to write is the difference to what is there, a load that was interrupted is simply run again, and one that was finished
writes nothing.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, zip_longest
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ingest.report import Report
from kg.errors import StoreFailed
from kg.schema import KINDS, ensure_schema, quote_name, source_label
from kg.store import CommitUnknown, GraphStore, WriteTransaction
from kg.types import Entity, Triple

T = TypeVar("T")
BATCH = 5000
RETRIES = 3

KNOWN_IRIS = "MATCH (e:Entity) WHERE e.iri IN $iris RETURN collect([e.iri, e.id]) AS rows"
KNOWN_IDS = "MATCH (e:Entity) WHERE e.id IN $ids RETURN collect([e.id, e.iri]) AS rows"
KNOWN_ENTITIES = """
MATCH (e:Entity) WHERE e.id IN $ids
RETURN collect([e.id, labels(e), e.sources, e.hashes]) AS rows
"""
KNOWN_RELATIONSHIPS = """
MATCH (h:Entity)-[r]->() WHERE h.id IN $heads
RETURN collect([r.sid, r.sources]) AS rows
"""
REPLACE_ENTITIES = """
UNWIND $rows AS row MATCH (e:Entity {id: row.id}) SET e = row.properties
"""
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
ADD_SOURCE_TO_RELATIONSHIPS = """
UNWIND $rows AS row
MATCH (:Entity {id: row.head})-[r]->() WHERE r.sid = row.sid SET r.sources = row.sources
"""
READ_ENTITIES = "MATCH (e:Entity) WHERE e.id IN $ids RETURN collect([e.id, properties(e)]) AS rows"
RECORD_SOURCE = """
MERGE (s:Source {id: $id})
SET s.release = $release, s.sha256 = $sha256, s.licence = $licence, s.loaded_at = $loaded_at
"""
READ_SOURCES = """
MATCH (s:Source)
RETURN s.id AS id, s.release AS release, s.sha256 AS sha256, s.licence AS licence, s.loaded_at AS loaded_at
"""


def load(store: GraphStore, source: str, items: Iterable[Entity | Triple], report: Report) -> None:
    """Bring the graph to hold ``items``; nothing is taken away (that is what a refresh is for).

    Raises:
        StoreFailed: the connection broke in the middle of a commit again and again.
    """
    entities: list[Entity] = []
    triples: list[Triple] = []
    for item in items:
        if isinstance(item, Entity):
            entities.append(item)
        else:
            triples.append(item)
    check_kinds(entities)
    ensure_schema(store)
    entities, triples = with_ids_of_graph(store, entities, triples)
    for _ in range(RETRIES):
        try:
            _write_difference(store, source, entities, triples, report)
            record_source(store, source, entities, triples, report)
            return
        except CommitUnknown:
            continue  # the difference, worked out anew, knows whether that commit happened
    raise StoreFailed(f"The connection to Neo4j broke {RETRIES} times while committing; check its log and run again.")


def with_ids_of_graph(
    store: GraphStore, entities: Sequence[Entity], triples: Sequence[Triple]
) -> tuple[list[Entity], list[Triple]]:
    """The same under the ids that their IRIs have in the graph, since each source declares prefixes of its own.

    Where an id belongs to another IRI already, the IRI itself is the id.
    """
    renamed: dict[str, str] = {}
    for batch in _batches(entities, BATCH):
        ids = dict(store.read(KNOWN_IRIS, iris=[entity.iri for entity in batch])[0]["rows"])
        iris = dict(store.read(KNOWN_IDS, ids=[entity.id for entity in batch])[0]["rows"])
        for entity in batch:
            if ids.get(entity.iri, entity.id) != entity.id:
                renamed[entity.id] = ids[entity.iri]
            elif iris.get(entity.id, entity.iri) != entity.iri:
                renamed[entity.id] = entity.iri
    if not renamed:
        return list(entities), list(triples)
    return [replace(entity, id=renamed.get(entity.id, entity.id)) for entity in entities], [
        replace(triple, head=renamed.get(triple.head, triple.head), tail=renamed.get(triple.tail, triple.tail))
        for triple in triples
    ]


def check_kinds(entities: Iterable[Entity]) -> None:
    """A kind outside the fixed list is a mistake of a source module, found before anything is written."""
    for entity in entities:
        unknown = set(entity.kinds) - KINDS
        if unknown:
            raise ValueError(f"{entity.id}: unknown kinds {sorted(unknown)}")


def record_source(
    store: GraphStore, source: str, entities: Sequence[Entity], triples: Sequence[Triple], report: Report
) -> None:
    """Write the ``:Source`` node unless it says the same already."""
    digest = hashlib.sha256()
    for row in sorted([content_hash(entity) for entity in entities] + [triple.sid for triple in triples]):
        digest.update(row.encode())
    known = {row["id"]: row for row in store.read(READ_SOURCES)}.get(source)
    said = (report.release, digest.hexdigest(), report.licence or None)
    if known and (known["release"], known["sha256"], known["licence"]) == said:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    store.write(RECORD_SOURCE, id=source, release=said[0], sha256=said[1], licence=said[2], loaded_at=now)


def _write_difference(
    store: GraphStore, source: str, entities: Sequence[Entity], triples: Sequence[Triple], report: Report
) -> None:
    columns = (TextColumn("{task.description:14}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("entities", total=len(entities))
        for batch in _batches(entities, BATCH):
            with store.transaction() as transaction:
                _write_entities(transaction, source, batch, report)
            progress.advance(bar, len(batch))
        bar = progress.add_task("relationships", total=len(triples))
        dynamic = store.dynamic_types_work
        for part in _batches(sorted(triples, key=lambda triple: triple.head), BATCH):
            with store.transaction() as transaction:
                _write_triples(transaction, source, part, report, dynamic=dynamic)
            progress.advance(bar, len(part))


def _write_entities(transaction: WriteTransaction, source: str, batch: Sequence[Entity], report: Report) -> None:
    ids = [entity.id for entity in batch]
    known = {row[0]: row[1:] for row in transaction.rows(KNOWN_ENTITIES, ids=ids)[0]["rows"]}
    fresh: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    changed: list[Entity] = []
    for entity in batch:
        if entity.id not in known:
            fresh[labels_of(entity)].append(node_properties(entity))
        else:
            _, sources, hashes = known[entity.id]
            if dict(zip(sources, hashes, strict=True)).get(source) != content_hash(entity):
                changed.append(entity)
    for labels, rows in sorted(fresh.items()):
        names = ":".join(quote_name(label) for label in labels)
        counters = transaction.run(f"UNWIND $rows AS row CREATE (e:{names}) SET e = row", rows=rows)
        report.written.update(nodes=counters["nodes_created"], properties=counters["properties_set"])
    if changed:
        _rewrite(transaction, source, changed, known, report)


def _rewrite(
    transaction: WriteTransaction, source: str, changed: Sequence[Entity], known: Mapping[str, Any], report: Report
) -> None:
    """Entities that are there with other content: this source's own before, or another source's."""
    before = dict(transaction.rows(READ_ENTITIES, ids=[entity.id for entity in changed])[0]["rows"])
    rows = []
    relabelled: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
    for entity in changed:
        labels = set(known[entity.id][0])
        mine = dict(zip(before[entity.id]["sources"], before[entity.id]["hashes"], strict=True))
        others = {name: digest for name, digest in mine.items() if name != source}
        properties = node_properties(entity)
        wanted = set(labels_of(entity))
        if others:
            properties, wanted = combine(before[entity.id], labels, entity, others)
        rows.append({"id": entity.id, "properties": properties})
        key = (tuple(sorted(labels - wanted)), tuple(sorted(wanted - labels)))
        if any(key):
            relabelled[key].append(entity.id)
    counters = transaction.run(REPLACE_ENTITIES, rows=rows)
    report.written.update(nodes=len(rows), properties=counters["properties_set"])
    for (gone, new), ids in sorted(relabelled.items()):
        clauses = [f"SET e:{':'.join(map(quote_name, new))}"] if new else []
        clauses += [f"REMOVE e:{':'.join(map(quote_name, gone))}"] if gone else []
        transaction.run(f"MATCH (e:Entity) WHERE e.id IN $ids {' '.join(clauses)}", ids=ids)


def combine(
    before: Mapping[str, Any], labels: set[str], entity: Entity, others: Mapping[str, str]
) -> tuple[dict[str, Any], set[str]]:
    """Properties and labels of a node that several sources speak of.

    A source that only refers to it adds itself; one that describes what others only refer to gives the description;
    where two describe it, lists are joined and single values stay as they are.
    """
    mine = node_properties(entity)
    wanted = labels | set(labels_of(entity))
    joined: dict[str, Any] = dict(before)
    if entity.kinds == ("Stub",):
        wanted = labels | {source_label(entity.source)}
    elif all(digest == stub_hash(entity) for digest in others.values()):
        joined = mine
        wanted = {*labels_of(entity), *map(source_label, others)}
    else:
        joined = {**mine, **before}
        both = [("definitions",), ("tail",), ("names", "name_kinds", "name_origins")]
        for keys in both:
            rows: dict[tuple[str, ...], tuple[str, ...]] = {}
            for side in (before, mine):
                for row in zip_longest(*(side.get(key, []) for key in keys), fillvalue=""):  # origins may be absent
                    rows[row[:2]] = max(rows.get(row[:2], row), row)
            for position, key in enumerate(keys):
                joined[key] = [row[position] for row in rows.values()]
        if not any(joined["name_origins"]):
            del joined["name_origins"]
    claims = {**others, entity.source: content_hash(entity)}
    joined["sources"] = sorted(claims)
    joined["hashes"] = [claims[name] for name in sorted(claims)]
    return joined, wanted


def _write_triples(
    transaction: WriteTransaction, source: str, batch: Sequence[Triple], report: Report, *, dynamic: bool
) -> None:
    heads = sorted({triple.head for triple in batch})
    known = dict(transaction.rows(KNOWN_RELATIONSHIPS, heads=heads)[0]["rows"])
    fresh = [triple for triple in batch if triple.sid not in known]
    shared = [triple for triple in batch if triple.sid in known and source not in known[triple.sid]]
    rows = [
        {
            "head": triple.head,
            "tail": triple.tail,
            "relation": triple.relation,
            "properties": {**triple.properties, "sid": triple.sid, "sources": [source]},
        }
        for triple in fresh
    ]
    if dynamic:
        counters = [transaction.run(CREATE_RELATIONSHIPS, rows=rows)] if rows else []
    else:
        by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            by_type[str(row["relation"])].append(row)
        counters = [
            transaction.run(CREATE_RELATIONSHIPS_OF_ONE_TYPE.format(relation=quote_name(relation)), rows=part)
            for relation, part in sorted(by_type.items())
        ]
    created = sum(counter["relationships_created"] for counter in counters)
    if created != len(rows):
        raise StoreFailed(
            f"Neo4j made {created} of {len(rows)} relationships; an end is missing. Nothing of it is kept."
        )
    report.written.update(relationships=created, properties=sum(counter["properties_set"] for counter in counters))
    if shared:
        added = [
            {"head": triple.head, "sid": triple.sid, "sources": sorted({*known[triple.sid], source})}
            for triple in shared
        ]
        report.written.update(properties=transaction.run(ADD_SOURCE_TO_RELATIONSHIPS, rows=added)["properties_set"])


def labels_of(entity: Entity) -> tuple[str, ...]:
    return ("Entity", source_label(entity.source), *sorted(entity.kinds))


def node_properties(entity: Entity) -> dict[str, Any]:
    """What a node of one source holds; absent values are left out."""
    properties: dict[str, Any] = {
        **entity.properties,
        "id": entity.id,
        "iri": entity.iri,
        "name": entity.name,
        "names": [name.text for name in entity.names],
        "name_kinds": [f"{name.kind}@{name.language}" for name in entity.names],
        "name_origins": [name.origin for name in entity.names] if any(name.origin for name in entity.names) else [],
        "definition": entity.definition,
        "definitions": list(entity.definitions),
        "tail": list(entity.tail),
        "sources": [entity.source],
        "hashes": [content_hash(entity)],
    }
    return {key: value for key, value in properties.items() if value not in (None, [])}


def content_hash(entity: Entity) -> str:
    """Hash of all that a source says of an entity; equal content gives an equal hash in every release."""
    said = [
        entity.iri,
        sorted(entity.kinds),
        entity.name,
        [(name.text, name.kind, name.language, *filter(None, [name.origin])) for name in entity.names],
        entity.definition,
        entity.definitions,
        dict(sorted(entity.properties.items())),
        entity.tail,
    ]
    text = json.dumps(said, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def stub_hash(entity: Entity) -> str:
    """The hash for a source that only refers to the entity."""
    return content_hash(Entity(id=entity.id, iri=entity.iri, source="", kinds=("Stub",)))


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
