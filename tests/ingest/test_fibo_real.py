"""FIBO in the graph counts what rdflib counts in its files, and loading it again changes nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rdflib
from rdflib import OWL, RDF, RDFS

from ingest.run import load_source
from kg.graph_hash import graph_hash
from kg.store import GraphStore

pytestmark = pytest.mark.neo4j
KINDS = {
    "Class": OWL.Class,
    "ObjectProperty": OWL.ObjectProperty,
    "DatatypeProperty": OWL.DatatypeProperty,
    "AnnotationProperty": OWL.AnnotationProperty,
    "Ontology": OWL.Ontology,
    "Datatype": RDFS.Datatype,
}
HANDFUL = (
    "fibo_2026-07/FND/AgentsAndPeople",
    "fibo_2026-07/FBC/ProductsAndServices",
    "omg_commons_lcc/LCC/Countries/Regions",
)
ALL = ("fibo_2026-07", "omg_commons_lcc")
COUNT = {
    "nodes": "MATCH (n:Fibo) RETURN count(n) AS n",
    "stubs": "MATCH (n:Fibo:Stub) RETURN count(n) AS n",
    "deprecated": "MATCH (n:Fibo:Deprecated) RETURN count(n) AS n",
    "names": "MATCH (n:Fibo) WHERE n.name IS NOT NULL RETURN count(n) AS n",
    "subclasses": "MATCH (:Fibo)-[r:SUBCLASS_OF]->(:Fibo) WHERE r.derived IS NULL RETURN count(r) AS n",
    "instances": "MATCH (:Fibo)-[r:INSTANCE_OF]->(:Fibo) WHERE r.derived IS NULL RETURN count(r) AS n",
    "stated": "MATCH (:Fibo)-[r]->(:Fibo) WHERE r.derived IS NULL RETURN count(r) AS n",
    "restricted": "MATCH (:Fibo)-[r]->(:Fibo) WHERE r.quantifier IN ['some', 'only', 'value'] RETURN count(r) AS n",
}


class Counting(rdflib.Graph):
    """Counts statements as they come: two of FIBO's files make a statement twice."""

    added = 0

    def add(self, triple: Any) -> "Counting":
        self.added += 1
        super().add(triple)
        return self


def files(folders: list[Path]) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.rglob("*.rdf"))]


def counted_by_rdflib(folders: list[Path]) -> dict[str, int]:
    """What the files say, each statement once, without a look at the code that is tested."""
    graph, read = rdflib.Graph(), 0
    for file in files(folders):
        one = Counting()
        one.parse(file)
        read += one.added
        graph += one
    named = {subject for subject in graph.subjects() if isinstance(subject, rdflib.URIRef)}
    types = {subject: set(graph.objects(subject, RDF.type)) for subject in named}
    known = {*KINDS.values(), OWL.NamedIndividual, RDF.Property, RDFS.Class}
    others = {s for s, found in types.items() if not found & known and any(isinstance(t, rdflib.URIRef) for t in found)}
    links = [(s, p, o) for s, p, o in graph if s in named and isinstance(o, rdflib.URIRef)]
    labelled = {subject for subject, predicate, _ in graph if predicate == RDFS.label and subject in named}
    deprecated = {s for s, o in graph.subject_objects(OWL.deprecated) if s in named and str(o) == "true"}
    return {
        "read": read,
        **{kind: sum(1 for found in types.values() if iri in found) for kind, iri in KINDS.items()},
        "Individual": len({s for s, found in types.items() if OWL.NamedIndividual in found} | others),
        "described": len(named),
        "labelled": len(labelled),
        "deprecated": len(deprecated),
        "subclasses": sum(1 for _, p, _ in links if p == RDFS.subClassOf),
        "instances": sum(1 for _, p, o in links if p == RDF.type and o not in known),
        "stated": sum(1 for _, p, o in links if not (p == RDF.type and o in known)),
    }


def counted_in_neo4j(store: GraphStore) -> dict[str, int]:
    kinds = {kind: f"MATCH (n:Fibo:{kind}) RETURN count(n) AS n" for kind in (*KINDS, "Individual")}
    return {name: store.read(query)[0]["n"] for name, query in {**COUNT, **kinds}.items()}


def differences(store: GraphStore, folders: list[Path]) -> Iterator[str]:
    """Load, count both, load again: each line is something that is not as it should be."""
    report = load_source("fibo", folders)
    ours, theirs = counted_in_neo4j(store), counted_by_rdflib(folders)
    for what in theirs.keys() & ours.keys():
        if ours[what] != theirs[what]:
            yield f"{what}: {ours[what]} in the graph, {theirs[what]} in the files"
    if ours["nodes"] - ours["stubs"] != theirs["described"]:
        yield f"{ours['nodes']} nodes, {ours['stubs']} of them stubs; the files describe {theirs['described']}"
    if ours["names"] < theirs["labelled"]:
        yield f"{ours['names']} names for {theirs['labelled']} labelled"
    if report.read != theirs["read"]:
        yield f"read {report.read} statements of {theirs['read']}"
    if not report.balances or report.num_quarantined:
        yield f"report: {report.as_json()}"
    if report.written["nodes"] != ours["nodes"]:
        yield f"wrote {report.written['nodes']} nodes, the graph has {ours['nodes']}"
    if (
        min(ours[kind] for kind in ("Class", "ObjectProperty", "Individual", "Ontology", "subclasses", "restricted"))
        < 5
    ):
        yield f"suspiciously little: {ours}"
    before = graph_hash(store)
    again = load_source("fibo", folders).as_json()["written"]
    if any(again.values()):
        yield f"the second load wrote {again}"
    if graph_hash(store) != before:
        yield "the second load changed the graph"


def test_some_folders_of_fibo_are_in_the_graph_as_they_are_in_the_files(store: GraphStore, data: Path) -> None:
    assert list(differences(store, [data / "kg" / name for name in HANDFUL])) == []


@pytest.mark.slow
def test_all_of_fibo_is_in_the_graph_as_it_is_in_the_files(store: GraphStore, data: Path) -> None:
    folders = [data / "kg" / name for name in ALL]
    assert list(differences(store, folders)) == []
    assert store.read("MATCH (s:Source {id: 'fibo'}) RETURN s.release AS r") == [{"r": "2026-07-01"}]


@pytest.mark.slow
def test_a_newer_fibo_on_an_older_one_holds_all_that_the_newer_one_says(store: GraphStore, data: Path) -> None:
    commons = data / "kg" / "omg_commons_lcc"
    nodes = "MATCH (n:Fibo) WHERE NOT n:Stub RETURN collect([n.iri, n.hashes]) AS rows"
    links = "MATCH (:Fibo)-[r]->(:Fibo) RETURN collect(r.sid) AS sids"
    load_source("fibo", [data / "kg" / "fibo_2026-07", commons])
    entities, sids = dict(store.read(nodes)[0]["rows"]), set(store.read(links)[0]["sids"])
    while store.write("MATCH (n) WITH n LIMIT 20000 DETACH DELETE n")["nodes_deleted"]:
        continue
    load_source("fibo", [data / "kg" / "fibo_2025Q1", commons])
    report = load_source("fibo", [data / "kg" / "fibo_2026-07", commons])
    assert 0 < report.written["relationships"] < len(sids) / 2
    assert set(store.read(links)[0]["sids"]) >= sids
    assert entities.items() <= dict(store.read(nodes)[0]["rows"]).items()
