"""Which id each node has in the graph: nodes meet at their IRIs, since each source declares prefixes of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ingest.difference import COUNT_TOMBSTONES, Difference
from kg.store import GraphStore

BATCH = 5000
KNOWN = "MATCH (e:Entity) WHERE e.iri IN $iris OR e.id IN $ids RETURN collect([e.iri, e.id, e.sources]) AS rows"


@dataclass(frozen=True)
class Ids:
    """From ids in a release to ids in the graph."""

    called: dict[str, str] = field(default_factory=dict)
    """Id in the release → id in the graph, where it is another one."""
    there: set[str] = field(default_factory=set)
    """Ids in the graph of nodes that are new to this source and not to the graph."""
    renamed: dict[str, str] = field(default_factory=dict)
    """IRI → new id, of nodes in the graph."""

    def __call__(self, entity_id: str) -> str:
        return self.called.get(entity_id, entity_id)


def settle_ids(store: GraphStore, difference: Difference, *, alone: bool, remove: bool, prune: bool) -> Ids:
    """The ids of all that is new or called otherwise.

    A node that another source asserts, too, keeps its id. Where the id that a node is to have is another source's,
    its IRI is its id; tombstones and nodes that go give way.

    Args:
        alone, remove, prune: as ``ingest.load`` means them.
    """
    source, ids = difference.release.source, Ids()
    asked = difference.nodes.filter(pa.array(difference.added | difference.moved))
    there: dict[str, tuple[str, Sequence[str]]] = {}
    holders: dict[str, tuple[str, Sequence[str]]] = {}
    for iri, entity_id, owners in _nodes_in_question(store, difference, asked, alone=alone):
        there[iri], holders[entity_id] = (entity_id, owners), (iri, owners)
    gone = set(difference.gone["iri"].to_pylist())
    for iri, wanted in zip(asked["iri"].to_pylist(), asked["id"].to_pylist(), strict=True):
        held, sources = there.get(iri, (None, ()))
        if held is not None and set(sources) - {source}:
            final = held
        else:
            holder, owners = holders.get(wanted, (iri, ()))
            stays = holder in gone and not remove
            final = iri if set(owners) - {source} or (stays and holder != iri) else wanted
            if holder != iri and final == wanted and (not owners or holder in gone) and not (prune and owners):
                ids.renamed[holder] = holder
        if final != wanted:
            ids.called[wanted] = final
        if held is not None and held != final:
            ids.renamed[iri] = final
        if held is not None and source not in sources:
            ids.there.add(final)
    return ids


def _nodes_in_question(
    store: GraphStore, difference: Difference, asked: pa.Table, *, alone: bool
) -> Iterator[tuple[str, str, Sequence[str]]]:
    """IRI, id and sources of nodes in the graph that have an IRI or an id of those asked for."""
    if alone and not store.read(COUNT_TOMBSTONES)[0]["number"]:
        held, source = difference.held.nodes, difference.release.source
        for table in (held.filter(pc.is_in(held["iri"], asked["iri"].combine_chunks())), difference.gone):
            yield from ((row["iri"], row["id"], [source]) for row in table.to_pylist())
    else:
        for batch in asked.to_batches(BATCH):
            yield from store.read(KNOWN, iris=batch["iri"].to_pylist(), ids=batch["id"].to_pylist())[0]["rows"]
