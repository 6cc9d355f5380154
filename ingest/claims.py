"""What several sources say of one node, and the node that follows from it, whatever the order in which they came."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from ingest.release import STUB, node_row, packed, unpacked
from ingest.vocabulary import BOOKKEEPING
from kg.schema import source_label
from kg.types import Entity

GONE = frozenset({"Entity", "Deprecated", "Tombstone"})
"""Labels of what no source asserts any more."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one source says of an entity."""

    source: str
    hash: str
    kinds: tuple[str, ...]
    content: Mapping[str, Any]
    """Properties of the node, without ids and bookkeeping; empty for what the source only refers to."""


def claim_of(row: Mapping[str, Any], source: str) -> Claim:
    """The claim in a row of ``ingest.release.NODES``."""
    listed = ("name", "names", "name_kinds", "name_origins", "definition", "definitions", "tail")
    content = unpacked(row["properties"])
    content |= {key: row[key] for key in listed if row[key] not in (None, [])}
    content = {key: value for key, value in content.items() if value not in (None, [])}
    return Claim(source=source, hash=row["hash"], kinds=tuple(row["kinds"]), content=content)


def claims_of(labels: Iterable[str], properties: Mapping[str, Any]) -> dict[str, Claim]:
    """By source, what a node holds: written out where several describe it, else what is there is what one says."""
    sources, hashes = properties.get("sources", []), properties.get("hashes", [])
    stub = stub_hash(properties["iri"])
    written = properties.get("claims") or [""] * len(sources)
    content = {key: value for key, value in properties.items() if key not in BOOKKEEPING}
    kinds = tuple(sorted(set(labels) - {"Entity", *map(source_label, sources)}))
    claims = {}
    for source, digest, said in zip(sources, hashes, written, strict=True):
        claim = Claim(source=source, hash=digest, kinds=STUB, content={})
        if said:
            whole = json.loads(said)
            claim = replace(claim, kinds=tuple(whole.pop("")), content=whole)
        elif digest != stub:
            claim = replace(claim, kinds=kinds, content=content)
        claims[source] = claim
    return claims


def node_of(iri: str, entity_id: str, claims: Mapping[str, Claim]) -> tuple[frozenset[str], dict[str, Any]]:
    """Labels and properties of the node.

    A source that only refers to it adds itself; where two describe it, lists are joined, and a single value is that
    of the source whose name comes first.
    """
    said = [claims[source] for source in sorted(claims)]
    full = [claim for claim in said if claim.kinds != STUB]
    labels = {"Entity", *(source_label(claim.source) for claim in said)}
    labels.update(*(claim.kinds for claim in full or said))
    properties = {
        **(full[0].content if len(full) == 1 else joined([claim.content for claim in full])),
        "id": entity_id,
        "iri": iri,
        "sources": [claim.source for claim in said],
        "hashes": [claim.hash for claim in said],
    }
    if len(full) > 1:
        properties["claims"] = [
            "" if claim.kinds == STUB else packed({"": claim.kinds, **claim.content}) for claim in said
        ]
    return frozenset(labels), properties


def joined(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several descriptions as one."""
    together: dict[str, Any] = {}
    for content in reversed(contents):
        together |= content
    for keys in (("definitions",), ("tail",), ("names", "name_kinds", "name_origins")):
        rows: dict[tuple[str, ...], tuple[str, ...]] = {}
        for content in contents:
            for row in zip_longest(*(content.get(key, []) for key in keys), fillvalue=""):  # origins may be absent
                rows[row[:2]] = max(rows.get(row[:2], row), row)
        for position, key in enumerate(keys):
            together[key] = [row[position] for row in rows.values()]
    if not any(together["name_origins"]):
        del together["name_origins"]
    return {key: value for key, value in together.items() if value != []}


@lru_cache(maxsize=65_536)
def stub_hash(iri: str) -> str:
    """The hash in the row of a source that only refers to the entity."""
    return str(node_row(Entity(id="", iri=iri, source="", kinds=STUB))[-1])
