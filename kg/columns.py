"""The graph in columns: what a snapshot needs of Neo4j, read in few and large pieces."""

import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import Progress

from kg.errors import ConfigError
from kg.normalise import normalise_name
from kg.schema import source_label

if TYPE_CHECKING:
    from kg.store import GraphStore

# A chunk comes as a few lists: a record for each node is 80 times slower to read.
CHUNK = 20_000
COUNT = """
MATCH (e:Entity) WHERE NOT e:Tombstone
  AND (size($sources) = 0 OR any(source IN e.sources WHERE source IN $sources)) RETURN count(e) AS count
"""
ENTITIES = """
MATCH (e:Entity) WHERE e.id > $after AND NOT e:Tombstone
  AND (size($sources) = 0 OR any(source IN e.sources WHERE source IN $sources))
WITH e ORDER BY e.id LIMIT $chunk
WITH collect(e) AS all
RETURN [e IN all | e.id] AS id, [e IN all | e.name] AS name, [e IN all | e.definition] AS definition,
       [e IN all | labels(e)] AS labels, [e IN all | coalesce(e.sources, [])] AS sources,
       [e IN all | coalesce(e.names, [])] AS names, [e IN all | coalesce(e.name_kinds, [])] AS name_kinds
"""
TRIPLES = """
MATCH (head:Entity)-[r]->(tail:Entity) WHERE head.id > $after AND head.id <= $last
RETURN collect(head.id) AS head, collect(type(r)) AS relation, collect(tail.id) AS tail
"""
SOURCES = """
MATCH (s:Source) WHERE size($sources) = 0 OR s.id IN $sources
RETURN s.id AS id, s.release AS release, s.sha256 AS sha256, s.licence AS licence ORDER BY id
"""
UNNAMED = frozenset(
    {
        "ObjectProperty",
        "DatatypeProperty",
        "AnnotationProperty",
        "Property",
        "Ontology",
        "Axiom",
        "Deprecated",
    }
)
"""Kinds whose names are no aliases: text that says ``has part`` mentions no thing, and obsolete ones are not meant."""
ENTITY_COLUMNS = pa.schema(
    [("id", pa.string()), ("name", pa.string()), ("definition", pa.string()), ("types", pa.list_(pa.string()))]
)
ALIAS_WEIGHTS = {"pref": 1.0}
OTHER_ALIAS_WEIGHT = 0.5


def read_graph(store: "GraphStore", sources: Sequence[str]) -> tuple[pa.Table, list[dict[str, Any]], pa.Table]:
    """Entities, names of those that text can mention (alias, entity, kind, language), and triples between entities."""
    total = store.read(COUNT, sources=list(sources))[0]["count"]
    if not total:
        of = f" of {' or '.join(sources)}" if sources else ""
        raise ConfigError(f"The graph has no entities{of}; load some first: python -m ingest load SOURCE PATH")
    entities: list[pa.Table] = []
    triples: list[pa.Table] = []
    names: list[dict[str, Any]] = []
    after = ""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("Reading the graph", total=total)
        while chunk := store.read(ENTITIES, sources=list(sources), after=after, chunk=CHUNK, timeout_s=600)[0]:
            if not chunk["id"]:
                break
            last = chunk["id"][-1]
            gone = [{"Entity", *map(source_label, of)} for of in chunk["sources"]]
            types = [sorted(set(labels) - drop) for labels, drop in zip(chunk["labels"], gone, strict=True)]
            columns = {"id": chunk["id"], "name": chunk["name"], "definition": chunk["definition"], "types": types}
            entities.append(pa.table(columns, schema=ENTITY_COLUMNS))
            for entity, name, its_names, kinds, its_types in zip(
                chunk["id"], chunk["name"], chunk["names"], chunk["name_kinds"], types, strict=True
            ):
                if UNNAMED.isdisjoint(its_types):
                    names += _names_of(entity, name, its_names, kinds)
            edges = store.read(TRIPLES, after=after, last=last, timeout_s=600)[0]
            triples.append(pa.table({column: pa.array(edges[column], pa.string()) for column in edges}))
            after = last
            progress.advance(task, len(chunk["id"]))
    entity_table, triple_table = pa.concat_tables(entities), pa.concat_tables(triples)
    inside = [pc.is_in(triple_table[end], value_set=entity_table["id"].combine_chunks()) for end in ("head", "tail")]
    return entity_table, names, triple_table.filter(pc.and_(*inside))


def _names_of(entity: str, name: str | None, names: Sequence[str], kinds: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for alias, tag in zip_longest(names, kinds[: len(names)], fillvalue="syn@"):
        kind, _, language = tag.partition("@")
        rows.append({"alias": alias, "entity": entity, "kind": kind, "language": language})
    if name is not None and name not in names:
        rows.append({"alias": name, "entity": entity, "kind": "pref", "language": ""})
    return rows


def aliases_with_priors(names: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The aliases with P(entity | alias): shared, in parts by kind, by all entities with that alias in normal form."""
    normal = [normalise_name(row["alias"]) for row in names]
    weights: dict[str, dict[str, float]] = {}
    for row, name in zip(names, normal, strict=True):
        weight = ALIAS_WEIGHTS.get(row["kind"], OTHER_ALIAS_WEIGHT)
        of_name = weights.setdefault(name, {})
        of_name[row["entity"]] = max(weight, of_name.get(row["entity"], 0.0))
    totals = {name: sum(of_name.values()) for name, of_name in weights.items()}
    return [
        {**row, "prior": weights[name][row["entity"]] / totals[name]} for row, name in zip(names, normal, strict=True)
    ]


def read_sources(store: "GraphStore", sources: Sequence[str]) -> list[dict[str, Any]]:
    """What was loaded and under which licence; not when, since equal graphs make equal snapshots."""
    rows = store.read(SOURCES, sources=list(sources))
    return [{key: value for key, value in row.items() if key != "licence" or value} for row in rows]
