"""The smallest valid objects for tests; real code paths, no stand-ins."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kg.linking import Linker
from kg.snapshot import Snapshot, write_snapshot
from kg.store import GraphStore

COMPANIES = ("Acme Bank", "Borealis Insurance", "Corvus Fund", "Delta Exchange")


def tiny_snapshot(
    folder: Path,
    *,
    names: Sequence[str] = COMPANIES,
    triples: Sequence[tuple[str, str, str]] = (
        ("ex:0", "OWNS", "ex:1"),
        ("ex:1", "INSURES", "ex:2"),
        ("ex:2", "LISTED_ON", "ex:3"),
        ("ex:0", "LISTED_ON", "ex:3"),
    ),
) -> Snapshot:
    """A snapshot with one entity ``ex:<i>`` per name and one alias each."""
    write_snapshot(
        folder,
        entities=[
            {"id": f"ex:{i}", "name": name, "definition": f"{name} is a company.", "types": ["Individual"]}
            for i, name in enumerate(names)
        ],
        aliases=[
            {"alias": name, "entity": f"ex:{i}", "prior": 1.0, "kind": "pref", "language": "en"}
            for i, name in enumerate(names)
        ],
        triples=list(triples),
        sources=[{"id": "ex", "release": "1"}],
    )
    return Snapshot.load(folder)


def linker_of(
    folder: Path,
    names: Mapping[str, Sequence[str]],
    *,
    definitions: Mapping[str, str] | None = None,
    triples: Sequence[tuple[str, str, str]] = (),
    priors: Mapping[tuple[str, str], float] | None = None,
    threshold: float = 0.3,
) -> Linker:
    """A linker over entities with the names given; the first name is the preferred one."""
    write_snapshot(
        folder,
        entities=[
            {"id": id, "name": aliases[0], "definition": (definitions or {}).get(id), "types": ["Class"]}
            for id, aliases in names.items()
        ],
        aliases=[
            {
                "alias": alias,
                "entity": id,
                "prior": (priors or {}).get((alias, id), 1.0),
                "kind": "pref",
                "language": "en",
            }
            for id, aliases in names.items()
            for alias in aliases
        ],
        triples=list(triples),
    )
    return Linker.load(folder, threshold=threshold)


def write_tiny_graph(store: GraphStore) -> None:
    """Two companies, one owning the other, in place of all that is there."""
    store.write("MATCH (n) DETACH DELETE n")
    store.write(
        "CREATE (a:Entity:Ex:Class {id: 'ex:0', iri: 'urn:0', name: 'Acme Bank', names: ['Acme Bank', 'Acme']}), "
        "(b:Entity:Ex:Class {id: 'ex:1', iri: 'urn:1', name: 'Borealis'}), "
        "(a)-[:OWNS {sid: 's', since: date('2020-01-31')}]->(b)"
    )
