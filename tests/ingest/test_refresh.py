"""A refresh gives the graph that a fresh load of the new release gives, and writes nothing but the difference."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.report import Report
from ingest.run import Input, load_source, reading, refresh_source
from kg.errors import InputError, StoreUnavailable
from kg.graph_hash import graph_hash
from kg.schema import ensure_schema
from kg.settings import Settings
from kg.snapshot import Snapshot
from kg.store import GraphStore, open_store

pytestmark = pytest.mark.neo4j
PREFIXES = """
@prefix ex: <http://e/> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
"""
OLD = """
ex:Bank a owl:Class ; rdfs:label "bank" ; rdfs:subClassOf ex:Company .
ex:acme a ex:Bank ; rdfs:label "Acme" ; ex:size 7 ; ex:owns ex:delta , ex:gamma .
ex:delta rdfs:label "Delta" . ex:gamma rdfs:label "Gamma" . ex:old rdfs:label "Old" ; ex:owns ex:acme .
ex:a1 rdfs:label "a1" . ex:a2 rdfs:label "a2" . ex:a3 rdfs:label "a3" .
"""
NEW = """
ex:Bank a owl:Class ; rdfs:label "bank" ; rdfs:subClassOf ex:Company .
ex:acme a ex:Bank ; rdfs:label "Acme plc" ; ex:owns ex:delta .
ex:delta rdfs:label "Delta" ; ex:size 3 ; ex:owns ex:gamma . ex:gamma rdfs:label "Gamma" .
ex:a1 rdfs:label "a1" . ex:a2 rdfs:label "a2" . ex:a3 rdfs:label "a3" . ex:new a ex:Bank ; rdfs:label "New" .
"""
NODES_BY_IRI = """
MATCH (n:Entity) WHERE NOT n:Tombstone RETURN n.iri AS iri, labels(n) AS labels, properties(n) AS properties
"""
RELATIONSHIPS_BY_IRI = """
MATCH (h)-[r]->(t) RETURN h.iri AS head, type(r) AS type, t.iri AS tail, properties(r) AS properties
"""
TOMBSTONES = "MATCH (n:Tombstone) RETURN n.id AS id, labels(n) AS labels, properties(n) AS p, COUNT {(n)--()} AS degree"


def turtle(folder: Path, text: str, name: str = "one") -> Path:
    file = folder / f"{name}.ttl"
    file.write_text(PREFIXES + text, encoding="utf-8")
    return file


def load(folder: Path, text: str, name: str = "one") -> Report:
    return load_source("rdf", [turtle(folder, text, name)], source_id=name)


def refresh(folder: Path, text: str, name: str = "one", **how: Any) -> Report:
    return refresh_source("rdf", [turtle(folder, text, name)], source_id=name, **how)


def empty(store: GraphStore) -> None:
    store.write("MATCH (n) DETACH DELETE n")


def fresh_hash(store: GraphStore, folder: Path, *texts: tuple[str, str]) -> str:
    empty(store)
    for text, name in texts:
        load(folder, text, name)
    return graph_hash(store)


@pytest.mark.parametrize("prune", [False, True])
def test_a_refresh_gives_what_a_fresh_load_gives(prune: bool, tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    report = refresh(tmp_path, NEW, prune=prune)
    refreshed = graph_hash(store)
    assert report.changes["entities"] == {"added": 1, "changed": 2, "removed": 1}
    assert report.changes["relationships"] == {"added": 2, "removed": 2}
    assert dict(report.removed) == {"nodes": 1, "relationships": 2}
    assert report.written["relationships"] == 2
    assert len(store.read(TOMBSTONES)) == (0 if prune else 1)
    assert refreshed == fresh_hash(store, tmp_path, (NEW, "one"))


def test_a_refresh_to_the_same_release_writes_nothing(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    refresh(tmp_path, OLD)
    everything = "MATCH (n) RETURN collect(properties(n)) AS p"
    before = graph_hash(store), store.read(everything)
    again = refresh(tmp_path, OLD).as_json()
    assert not any({**again["written"], **again["removed"]}.values())
    assert (graph_hash(store), store.read(everything)) == before


def test_what_is_gone_is_remembered_as_a_tombstone_and_comes_back_whole(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    before = graph_hash(store)
    refresh(tmp_path, NEW, release="2")
    (stone,) = store.read(TOMBSTONES)
    assert (stone["id"], sorted(stone["labels"])) == ("ex:old", ["Deprecated", "Entity", "Tombstone"])
    assert (stone["p"]["name"], stone["p"]["gone_from"], stone["p"]["gone_in"]) == ("Old", "one", "2")
    assert stone["degree"] == 0
    refresh(tmp_path, OLD, release="")
    assert graph_hash(store) == before
    assert {row["id"] for row in store.read(TOMBSTONES)} == {"ex:new"}


def test_a_statement_stays_while_another_source_asserts_it(tmp_path: Path, store: GraphStore) -> None:
    both = [(OLD, "one"), ("ex:old rdfs:label 'older' ; ex:owns ex:acme . ex:acme ex:owns ex:x .", "two")]
    for text, name in both:
        load(tmp_path, text, name)
    refresh(tmp_path, NEW, "one")
    refreshed = graph_hash(store)
    (edge,) = store.read("MATCH ({id: 'ex:old'})-[r:OWNS]->({id: 'ex:acme'}) RETURN r.sources AS sources")
    (node,) = store.read("MATCH (n {id: 'ex:old'}) RETURN n.name AS name, labels(n) AS labels")
    assert edge["sources"] == ["two"]
    assert (node["name"], sorted(node["labels"])) == ("older", ["Entity", "Item", "Two"])
    assert store.read(TOMBSTONES) == []
    assert refreshed == fresh_hash(store, tmp_path, (NEW, "one"), both[1])


def test_a_node_of_two_sources_goes_back_to_what_the_other_says(tmp_path: Path, store: GraphStore) -> None:
    mine = "ex:a rdfs:label 'a' ; ex:size 7 ; ex:note 'x' , 'y' ."
    rest = "ex:b rdfs:label 'b' ; ex:size 8 ; ex:note 'z' . ex:c rdfs:label 'c' . ex:d ex:is ex:e ."
    two = ("ex:a a owl:Class ; rdfs:label 'the a' ; ex:code 'z' .", "two")
    load(tmp_path, mine + rest)
    load(tmp_path, *two)
    refresh(tmp_path, rest)
    refreshed = graph_hash(store)
    assert refreshed == fresh_hash(store, tmp_path, two, (rest, "one"))


def test_the_order_of_sources_does_not_matter(tmp_path: Path, store: GraphStore) -> None:
    said = [
        ("ex:a a owl:Class ; rdfs:label 'a' ; ex:size 7 ; ex:note 'x' , 'y' ; ex:owns ex:b .", "one"),
        ("ex:a a owl:Class ; rdfs:label 'the a' ; ex:size 8 ; ex:note 'w' , 'x' ; ex:owns ex:b .", "two"),
        ("ex:a a owl:NamedIndividual ; rdfs:comment 'said' . ex:b ex:owns ex:a .", "three"),
    ]
    assert len({fresh_hash(store, tmp_path, *order) for order in itertools.permutations(said)}) == 1


def test_an_id_that_becomes_ambiguous_is_the_one_of_a_fresh_load(tmp_path: Path, store: GraphStore) -> None:
    space = "https://spec.edmcouncil.org/fibo/ontology"
    loan = f"<{space}/A/Loans/Loan>"
    one = f"{loan} rdfs:label 'loan' . <{space}/A/Loans/Fee> rdfs:label 'fee' ; ex:of {loan} ."
    two = one + f"<{space}/B/Bonds/Loan> rdfs:label 'lending' ; ex:of {loan} ."
    moved = one.replace("A/Loans/Loan", "C/Cards/Loan")
    for text in (two, one, moved, two):
        load(tmp_path, one)
        refresh(tmp_path, text, force=True)
        refreshed = graph_hash(store)
        assert refreshed == fresh_hash(store, tmp_path, (text, "one"))
        refresh(tmp_path, moved, force=True)
        assert graph_hash(store) == fresh_hash(store, tmp_path, (moved, "one"))


def test_a_node_of_two_sources_keeps_its_id(tmp_path: Path, store: GraphStore) -> None:
    first, second = (f"<https://spec.edmcouncil.org/fibo/ontology/{module}/Loan>" for module in "AB")
    load(tmp_path, f"{first} rdfs:label 'loan' . {second} rdfs:label 'lending' .", "one")
    load(tmp_path, f"{first} rdfs:label 'loan' .", "two")
    refresh(tmp_path, f"{first} rdfs:label 'loan' .", "one", force=True)
    (row,) = store.read("MATCH (e:Entity {name: 'loan'}) RETURN e.id AS id, e.sources AS sources")
    assert row == {"id": "fibo:A.Loan", "sources": ["one", "two"]}  # alone it would be fibo:Loan


@st.composite
def releases(draw: st.DrawFn, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """A few releases of two sources that speak of the same few things."""
    things = [f"<https://spec.edmcouncil.org/fibo/ontology/{name}>" for name in names]
    literal = st.sampled_from(['"a"', '"b"@de', "7", "8", "true"])
    predicate = st.sampled_from(["rdfs:label", "ex:p", "ex:q", "ex:comment"])
    about = st.builds("{} {} {} .".format, st.sampled_from(things), predicate, literal)
    edge = st.builds(
        "{} {} {} .".format, st.sampled_from(things), st.sampled_from(["ex:to", "a"]), st.sampled_from(things)
    )
    text = st.lists(about | edge, min_size=1, max_size=8).map("\n".join)
    return draw(st.lists(st.tuples(text, st.sampled_from(["one", "two"])), min_size=2, max_size=5))


def follow(store: GraphStore, folder: Path, steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Refresh from one to the next in an empty graph; the last release of each source, as a fresh load takes them."""
    empty(store)
    for text, name in steps:
        refresh(folder, text, name, force=True)
        assert not any(refresh(folder, text, name).as_json()["written"].values())
    last = {name: text for text, name in steps}
    return [(last[name], name) for name in dict.fromkeys(name for _, name in steps)]


def but_ids(store: GraphStore) -> list[str]:
    """All nodes and relationships, called by their IRIs."""
    rows = store.read(NODES_BY_IRI) + store.read(RELATIONSHIPS_BY_IRI)
    for row in rows:
        row.get("properties", {}).pop("id", None)
        row["labels"] = sorted(row.get("labels", ()))
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


any_chain = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@any_chain
@given(steps=releases(names=("A/x", "A/y", "A/z", "B/u", "B/v")))
def test_any_chain_of_refreshes_gives_what_the_last_releases_give(
    steps: list[tuple[str, str]], tmp_path: Path, store: GraphStore
) -> None:
    last = follow(store, tmp_path, steps)
    refreshed = graph_hash(store)
    assert refreshed == fresh_hash(store, tmp_path, *last)


@pytest.mark.slow
@any_chain
@given(steps=releases(names=("A/x", "A/y", "B/x", "B/y")))
def test_where_ids_are_ambiguous_a_chain_gives_all_but_the_ids(
    steps: list[tuple[str, str]], tmp_path: Path, store: GraphStore
) -> None:
    last = follow(store, tmp_path, steps)
    refreshed = but_ids(store)
    fresh_hash(store, tmp_path, *last)
    assert refreshed == but_ids(store)


def test_a_dry_run_says_what_a_refresh_would_do_and_does_nothing(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    before = graph_hash(store)
    planned = refresh(tmp_path, NEW, dry_run=True)
    assert graph_hash(store) == before
    assert not any(planned.as_json()["written"].values())
    assert refresh(tmp_path, NEW).changes == planned.changes


def test_a_release_that_shrinks_is_refused_unless_forced(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    before = graph_hash(store)
    with pytest.raises(InputError, match=r"lost 9 of the 12 entities .* --force"):
        refresh(tmp_path, "ex:Bank a owl:Class ; rdfs:label 'bank' ; rdfs:subClassOf ex:Company .")
    assert graph_hash(store) == before
    refresh(tmp_path, "ex:Bank a owl:Class ; rdfs:label 'bank' ; rdfs:subClassOf ex:Company .", force=True)
    assert len(store.read(TOMBSTONES)) == 9


def test_a_new_iri_under_the_old_name_is_reported_and_not_merged(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    report = refresh(tmp_path, OLD.replace("ex:gamma", "ex:Gamma").replace("ex:a1 rdfs:label", "ex:a4 rdfs:comment"))
    (pair,) = report.changes["rename_candidates"]
    assert pair == {
        "name": "Gamma",
        "id": "ex:gamma",
        "iri": "http://e/gamma",
        "new_id": "ex:Gamma",
        "new_iri": "http://e/Gamma",
    }


def test_a_refresh_makes_the_snapshot_of_a_fresh_load(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    first = refresh(tmp_path, NEW)
    assert first.snapshot is not None
    refreshed = Snapshot.load(first.snapshot)
    assert "ex:old" not in refreshed.index
    empty(store)
    assert Snapshot.load(str(refresh(tmp_path, NEW).snapshot)).hash == refreshed.hash


def test_a_load_keeps_what_a_refresh_would_take_away_and_says_so(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    report = load(tmp_path, NEW)
    assert any("1 entities and 2 relationships" in note for note in report.notes)
    assert store.read("MATCH ({id: 'ex:old'})-[r]->() RETURN count(r) AS n")[0]["n"] == 1
    refresh(tmp_path, NEW)
    assert graph_hash(store) == fresh_hash(store, tmp_path, (NEW, "one"))


def test_a_graph_that_somebody_else_changed_is_read_and_not_believed(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    store.write("MATCH (n {id: 'ex:acme'}) DETACH DELETE n")
    refresh(tmp_path, OLD)
    assert graph_hash(store) == fresh_hash(store, tmp_path, (OLD, "one"))


def test_a_large_difference_is_written_in_batches_with_the_same_result(
    tmp_path: Path, store: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.load.ATOMIC", 0)
    monkeypatch.setattr("ingest.load.BATCH", 2)
    load(tmp_path, OLD)
    refresh(tmp_path, NEW)
    refreshed = graph_hash(store)
    monkeypatch.undo()
    assert refreshed == fresh_hash(store, tmp_path, (NEW, "one"))


def test_a_second_import_is_refused_while_one_runs(tmp_path: Path, store: GraphStore) -> None:
    load(tmp_path, OLD)
    with open_store(Settings.from_env()) as other, other.exclusive():
        with pytest.raises(StoreUnavailable, match="Another import"):
            load(tmp_path, NEW)
    load(tmp_path, NEW)


def test_a_second_import_leaves_what_the_first_has_read_alone(tmp_path: Path, store: GraphStore, home: Path) -> None:
    file, settings = turtle(tmp_path, OLD), Settings.from_env()
    with reading(Input.of("rdf", [file], source_id="one"), settings, Report("one")) as first:
        load(tmp_path, NEW)
        rows = sum(batch.num_rows for batch in first.nodes())
    assert rows == first.num_nodes
    assert not first.folder.exists()
    (tmp_path / "bad.ttl").write_text("no turtle")
    with pytest.raises(InputError):
        load_source("rdf", [tmp_path / "bad.ttl"], source_id="one")
    assert not any(path.name.startswith("release-") for path in (home / "work").iterdir())


def test_a_refresh_that_changes_nothing_leaves_the_lossless_copy(tmp_path: Path, store: GraphStore, home: Path) -> None:
    load(tmp_path, OLD)
    copy = home / "canonical" / "one" / "unnamed.parquet"
    before = copy.read_bytes()
    refresh(tmp_path, NEW, dry_run=True)
    with pytest.raises(InputError, match="has lost"):
        refresh(tmp_path, "ex:a1 rdfs:label 'a1' .")
    assert copy.read_bytes() == before
    refresh(tmp_path, NEW)
    assert copy.read_bytes() != before


def test_predicates_called_like_our_own_keys_are_refreshed(tmp_path: Path, store: GraphStore) -> None:
    text = "ex:p rdfs:label '{}' ; ex:claims 'A pump.' ; ex:gone_in 'Paris' ; ex:gone_from 'Rome' ."
    load(tmp_path, text.format("Pump"))
    load(tmp_path, "ex:p rdfs:label 'pump' .", "two")
    refresh(tmp_path, text.format("Pumps"))
    (row,) = store.read("MATCH (n {id: 'ex:p'}) RETURN n.name AS name, n.tail AS tail")
    assert row["name"] == "Pumps"
    assert sorted(row["tail"]) == ["ex:claims=A pump.", "ex:gone_from=Rome", "ex:gone_in=Paris"]


def test_a_dry_run_makes_no_schema(tmp_path: Path, store: GraphStore) -> None:
    names = [row["name"] for row in store.read("SHOW CONSTRAINTS YIELD name")]
    try:
        for name in names:
            store.write(f"DROP CONSTRAINT {name}")
        store.write("DROP INDEX entity_names")
        assert refresh(tmp_path, OLD, dry_run=True).changes["entities"]["added"] > 0
        assert store.read("SHOW CONSTRAINTS YIELD name") == []
        assert store.read("MATCH (n) RETURN n") == []
    finally:
        ensure_schema(store)


def test_a_source_that_was_never_loaded_is_loaded(tmp_path: Path, store: GraphStore) -> None:
    refresh(tmp_path, OLD)
    refreshed = graph_hash(store)
    assert refreshed == fresh_hash(store, tmp_path, (OLD, "one"))


@pytest.mark.parametrize("how", [load, refresh])
def test_a_property_and_a_statement_of_each_kind_can_go(
    how: Callable[..., Report], tmp_path: Path, store: GraphStore
) -> None:
    rest = " ".join(f"ex:b{number} rdfs:label 'b' ." for number in range(20))
    said = "ex:a a owl:Class ; rdfs:label 'a' , 'b' ; ex:size 7 ; ex:note 'x' , 'y' ; owl:deprecated true ."
    load(tmp_path, said + rest)
    how(tmp_path, "ex:a a owl:NamedIndividual ; rdfs:label 'a' ." + rest)
    (row,) = store.read("MATCH (n {id: 'ex:a'}) RETURN properties(n) AS p, labels(n) AS labels")
    assert sorted(row["labels"]) == ["Entity", "Individual", "One"]
    assert row["p"].keys() == {"id", "iri", "name", "names", "name_kinds", "sources", "hashes"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("fibo", ["fibo_2025Q1", "omg_commons_lcc"], ["fibo_2026-07", "omg_commons_lcc"]),
        ("obo", ["disease_ontology/v2015-11/doid.obo"], ["disease_ontology/v2016-09/doid.obo"]),
        ("umls", ["umls_open_rrf/2015-11"], ["umls_open_rrf/2016-09"]),
    ],
)
def test_a_refresh_from_one_real_release_to_the_next_gives_what_a_fresh_load_gives(
    source: str, old: list[str], new: list[str], data: Path, store: GraphStore
) -> None:
    before, after = ([data / "kg" / name for name in names] for names in (old, new))
    load_source(source, before)
    report = refresh_source(source, after)
    refreshed, changed = graph_hash(store), report.changes["entities"]
    assert changed["added"] + changed["changed"] == report.written["nodes"] > 0
    assert changed["removed"] == report.removed["nodes"]
    again = refresh_source(source, after).as_json()
    assert not any({**again["written"], **again["removed"]}.values())
    while store.write("MATCH (n) WITH n LIMIT 2000 DETACH DELETE n")["nodes_deleted"]:
        continue
    load_source(source, after)
    assert graph_hash(store) == refreshed
