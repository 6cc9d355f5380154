"""A load writes exactly the difference: nothing the second time, nothing of another source, the same after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.report import Report
from ingest.run import load_source
from kg.errors import ConfigError, InputError
from kg.graph_hash import graph_hash
from kg.store import GraphStore, Row
from tests.ingest.faults import empty, statements

pytestmark = pytest.mark.neo4j
ROOT = Path(__file__).parent.parent.parent
PREFIXES = """
@prefix ex: <http://e/> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
"""
BANKS = """
ex:Bank a owl:Class ; rdfs:label "bank"@en , "Bank"@de ; skos:definition "It takes deposits." ;
  rdfs:subClassOf ex:Company , [ a owl:Restriction ; owl:onProperty ex:holds ; owl:someValuesFrom ex:Licence ] .
ex:holds a owl:ObjectProperty .
ex:acme a ex:Bank ; rdfs:label "Acme" ; ex:size 7 ; ex:note "a" , "b" ; ex:owns ex:delta .
"""
NODES = "MATCH (n:Entity) RETURN n.id AS id, labels(n) AS labels, properties(n) AS properties"
EDGES = "MATCH (h:Entity)-[r]->(t:Entity) RETURN h.id AS head, type(r) AS relation, t.id AS tail, r.sources AS sources"
UNCHANGED = {"nodes": 0, "relationships": 0, "properties": 0}


@pytest.fixture
def folder(tmp_path: Path, store: GraphStore) -> Path:
    """An empty folder, and an empty graph."""
    return tmp_path


def load(folder: Path, turtle: str, source: str = "one", *, prefixes: str = PREFIXES) -> Report:
    file = folder / f"{source}.ttl"
    file.write_text(prefixes + turtle, encoding="utf-8")
    return load_source("rdf", [file], source_id=source)


def written(report: Report) -> dict[str, int]:
    return dict(report.as_json()["written"])


def node(store: GraphStore, id_: str) -> Row:
    (row,) = [row for row in store.read(NODES) if row["id"] == id_]
    return row


def edges(store: GraphStore) -> dict[tuple[str, str, str], list[str]]:
    rows = store.read(EDGES)
    found = {(row["head"], row["relation"], row["tail"]): row["sources"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_the_graph_holds_what_was_read(folder: Path, store: GraphStore) -> None:
    load(folder, BANKS)
    bank, acme = node(store, "ex:Bank"), node(store, "ex:acme")
    assert sorted(bank["labels"]) == ["Class", "Entity", "One"]
    assert bank["properties"]["name"] == "bank"
    assert list(zip(bank["properties"]["names"], bank["properties"]["name_kinds"], strict=True)) == [
        ("Bank", "pref@de"),
        ("bank", "pref@en"),
    ]
    assert bank["properties"]["definition"] == "It takes deposits."
    assert (acme["properties"]["size"], acme["properties"]["tail"]) == (7, ["ex:note=a", "ex:note=b"])
    assert acme["properties"]["iri"] == "http://e/acme"
    assert edges(store) == {
        ("ex:Bank", "SUBCLASS_OF", "ex:Company"): ["one"],
        ("ex:Bank", "HOLDS", "ex:Licence"): ["one"],
        ("ex:acme", "INSTANCE_OF", "ex:Bank"): ["one"],
        ("ex:acme", "OWNS", "ex:delta"): ["one"],
    }
    (derived,) = store.read("MATCH ()-[r:HOLDS]->() RETURN properties(r) AS p")
    assert {**derived["p"], "sid": ""} == {"derived": True, "quantifier": "some", "sources": ["one"], "sid": ""}


def test_counts_of_the_report_are_counts_of_the_graph(folder: Path, store: GraphStore) -> None:
    report = load(folder, BANKS)
    (nodes,) = store.read("MATCH (n:Entity) RETURN count(n) AS number, sum(size(keys(n))) AS properties")
    (links,) = store.read("MATCH ()-[r]->() RETURN count(r) AS number, sum(size(keys(r))) AS properties")
    assert written(report) == {
        "nodes": nodes["number"],
        "relationships": links["number"],
        "properties": nodes["properties"] + links["properties"],
    }
    assert report.balances


def test_loading_twice_writes_nothing_and_changes_nothing(folder: Path, store: GraphStore) -> None:
    load(folder, BANKS)
    before = graph_hash(store)
    sources = store.read("MATCH (s:Source) RETURN properties(s) AS p")
    assert written(load(folder, BANKS)) == UNCHANGED
    assert graph_hash(store) == before
    assert store.read("MATCH (s:Source) RETURN properties(s) AS p") == sources


def test_a_changed_release_writes_exactly_the_difference(folder: Path, store: GraphStore) -> None:
    load(folder, BANKS)
    changed = BANKS.replace('"Acme"', '"Acme plc"').replace("ex:size 7", "ex:size 8")
    report = load(folder, changed + "ex:new a ex:Bank ; ex:owns ex:acme .")
    assert written(report) | {"properties": 0} == {"nodes": 2, "relationships": 2, "properties": 0}
    acme = node(store, "ex:acme")["properties"]
    assert (acme["name"], acme["names"], acme["size"]) == ("Acme plc", ["Acme plc"], 8)
    assert edges(store).keys() >= {("ex:new", "INSTANCE_OF", "ex:Bank"), ("ex:new", "OWNS", "ex:acme")}
    fresh = graph_hash(store)
    store.write("MATCH (n) DETACH DELETE n")
    load(folder, changed + "ex:new a ex:Bank ; ex:owns ex:acme .")
    assert graph_hash(store) == fresh


def test_what_a_release_no_longer_says_of_an_entity_leaves_its_node(folder: Path, store: GraphStore) -> None:
    load(folder, "ex:a a owl:Class ; rdfs:label 'a' ; ex:size 7 ; owl:deprecated true .")
    load(folder, "ex:a a owl:NamedIndividual ; rdfs:label 'a' .")
    row = node(store, "ex:a")
    assert sorted(row["labels"]) == ["Entity", "Individual", "One"]
    assert "size" not in row["properties"]


def test_a_stub_becomes_what_a_later_release_describes(folder: Path, store: GraphStore) -> None:
    load(folder, "ex:a ex:owns ex:b .")
    assert sorted(node(store, "ex:b")["labels"]) == ["Entity", "One", "Stub"]
    load(folder, "ex:a ex:owns ex:b . ex:b a owl:Class ; rdfs:label 'b' .")
    row = node(store, "ex:b")
    assert (sorted(row["labels"]), row["properties"]["name"]) == (["Class", "Entity", "One"], "b")


@pytest.mark.parametrize("first", ["one", "two"])
def test_two_sources_keep_what_each_says_of_a_shared_node(first: str, folder: Path, store: GraphStore) -> None:
    said = {
        "one": "ex:a a owl:Class ; rdfs:label 'a' ; ex:size 7 ; ex:note 'x' , 'y' ; ex:owns ex:b , ex:c .",
        "two": "ex:a a owl:Class ; rdfs:label 'the a' ; ex:code 'z' ; ex:owns ex:c , ex:d .",
    }
    order = sorted(said, reverse=first == "two")
    for source in order:
        load(folder, said[source], source)
    row = node(store, "ex:a")
    assert sorted(row["labels"]) == ["Class", "Entity", "One", "Two"]
    assert sorted(row["properties"]["names"]) == ["a", "the a"]
    assert (row["properties"]["size"], row["properties"]["code"]) == (7, "z")
    assert row["properties"]["tail"] == ["ex:note=x", "ex:note=y"]
    assert row["properties"]["sources"] == ["one", "two"]
    assert edges(store) == {
        ("ex:a", "OWNS", "ex:b"): ["one"],
        ("ex:a", "OWNS", "ex:c"): ["one", "two"],
        ("ex:a", "OWNS", "ex:d"): ["two"],
    }
    before = graph_hash(store)
    assert [written(load(folder, said[source], source)) for source in order] == [UNCHANGED, UNCHANGED]
    assert graph_hash(store) == before


def test_a_source_that_only_refers_to_an_entity_holds_nothing_of_it_back(folder: Path, store: GraphStore) -> None:
    describes, refers = "ex:a a owl:Class ; rdfs:label '{}' .", "ex:x ex:owns ex:a ."
    load(folder, describes.format("old"), "one")
    load(folder, refers, "two")
    assert node(store, "ex:a")["properties"]["name"] == "old"
    load(folder, describes.format("new"), "one")
    row = node(store, "ex:a")
    assert (row["properties"]["name"], row["properties"]["names"]) == ("new", ["new"])
    assert sorted(row["labels"]) == ["Class", "Entity", "One", "Two"]
    before = graph_hash(store)
    assert written(load(folder, refers, "two")) == UNCHANGED
    assert graph_hash(store) == before


def test_sources_with_prefixes_of_their_own_meet_at_the_iri(folder: Path, store: GraphStore) -> None:
    load(folder, "ex:a ex:owns ex:b ; rdfs:label 'a' .", "one")
    other = PREFIXES.replace("ex:", "mine:")
    load(folder, "mine:b mine:owns mine:c ; rdfs:label 'b' .", "two", prefixes=other)
    assert edges(store).keys() == {("ex:a", "OWNS", "ex:b"), ("ex:b", "OWNS", "mine:c")}
    assert node(store, "ex:b")["properties"]["name"] == "b"
    before = graph_hash(store)
    assert written(load(folder, "mine:b mine:owns mine:c ; rdfs:label 'b' .", "two", prefixes=other)) == UNCHANGED
    assert graph_hash(store) == before


def test_one_prefix_for_two_namespaces_does_not_make_one_of_two_things(folder: Path, store: GraphStore) -> None:
    load(folder, "ex:a rdfs:label 'mine' .", "one")
    other = PREFIXES.replace("<http://e/>", "<http://other/>")
    load(folder, "ex:a rdfs:label 'theirs' ; ex:owns ex:b .", "two", prefixes=other)
    names = {row["properties"]["iri"]: row["properties"].get("name") for row in store.read(NODES)}
    assert (names["http://e/a"], names["http://other/a"]) == ("mine", "theirs")
    assert edges(store).keys() == {("http://other/a", "OWNS", "ex:b")}
    assert written(load(folder, "ex:a rdfs:label 'mine' .", "one")) == UNCHANGED


def test_hostile_text_is_only_text(folder: Path, store: GraphStore) -> None:
    bad = "`}) DETACH DELETE n // \\u0060 ' $x {"
    quoted = bad.replace("\\", "\\\\").replace('"', '\\"')
    load(folder, f'ex:a rdfs:label "{quoted}" ; <http://e/x%60-(n)> ex:b ; ex:note "{quoted}"@fr .')
    assert node(store, "ex:a")["properties"]["name"] == bad
    assert len(edges(store)) == 1


@pytest.mark.parametrize("source_id", ["", "-", "日本", "class", "stub", "entity", "source"])
def test_a_data_set_needs_a_name_that_can_be_a_label_of_its_own(source_id: str, folder: Path) -> None:
    (folder / f"{source_id or '-'}.ttl").write_text(PREFIXES + BANKS)
    with pytest.raises(ConfigError, match="--source-id"):
        load_source("rdf", [folder / f"{source_id or '-'}.ttl"], source_id=source_id)


@pytest.mark.parametrize("source_id", ["{folder}/mine", "../mine", "mine/2024", "..", ".mine", "a\0b", "x" * 101])
def test_the_name_of_a_data_set_is_no_path(source_id: str, folder: Path, home: Path) -> None:
    for place in (folder / "mine", home / "mine"):
        place.mkdir(exist_ok=True)
        (place / "precious.txt").write_text("x")
        (place.parent / "mine.jsonl").write_text("x")
    with pytest.raises(ConfigError, match="--source-id is .*; expected a name of letters"):
        load_source("rdf", [folder / "mine"], source_id=source_id.format(folder=folder))
    assert all(
        (place / "precious.txt").exists() and (place.parent / "mine.jsonl").exists()
        for place in (folder / "mine", home / "mine")
    )


@pytest.mark.parametrize(
    "release", ["/{folder}/victim", "../../victim", "v " * 300, ".", "..", "2026/01", "2026 01", "2026_01"]
)
def test_a_release_of_any_name_has_a_lossless_copy_of_its_own(release: str, folder: Path, home: Path) -> None:
    (folder / "victim.parquet").write_text("precious")
    copies = home / "canonical" / "any"
    copies.mkdir(parents=True, exist_ok=True)
    before = set(copies.iterdir())
    (folder / "any.ttl").write_text(PREFIXES + BANKS)
    load_source("rdf", [folder / "any.ttl"], release=release.format(folder=folder))
    assert len(set(copies.iterdir()) - before) == 1
    assert (folder / "victim.parquet").read_text() == "precious"


def test_the_lossless_copy_is_kept_by_source_and_release(folder: Path, home: Path) -> None:
    (folder / "copied.ttl").write_text(PREFIXES + BANKS)
    report = load_source("rdf", [folder / "copied.ttl"], release="2026-01")
    assert report.source == "copied"
    assert [file.name for file in (home / "canonical" / "copied").iterdir()] == ["2026-01.parquet"]


def test_bad_input_leaves_the_graph_as_it_was(folder: Path, store: GraphStore) -> None:
    load(folder, BANKS)
    before = graph_hash(store)
    with pytest.raises(InputError, match="one.ttl"):
        load(folder, BANKS + "ex:x ex:y")
    assert graph_hash(store) == before


@pytest.mark.parametrize(("reader", "name"), [("obo", "d.obo"), ("table", "names.tsv")])
def test_other_readers_write_nothing_the_second_time_too(
    reader: str, name: str, folder: Path, store: GraphStore
) -> None:
    text = {
        "d.obo": "[Term]\nid: X:1\nname: one\nis_a: X:2\n\n[Term]\nid: X:2\nname: two\n",
        "names.tsv": "1\tone\tP\tx\n2\ttwo\tP\tx\n",
    }
    (folder / name).write_text(text[name])
    report = load_source(reader, [folder / name], source_id="small", prefix="x")
    assert written(report)["nodes"] == len(store.read(NODES)) == 2
    before = graph_hash(store)
    assert written(load_source(reader, [folder / name], source_id="small", prefix="x")) == UNCHANGED
    assert graph_hash(store) == before
    assert {row["id"] for row in store.read(NODES)} == {"x:1", "x:2"}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["(n:Entity)", "()-[n]->()"], ids=["nodes", "relationships"])
def test_a_load_that_was_killed_is_completed_by_running_it_again(
    pattern: str, folder: Path, store: GraphStore, cli_env: dict[str, str]
) -> None:
    count = f"MATCH {pattern} RETURN count(n) AS n"
    command = [sys.executable, "-m", "ingest", "load", "rdf", str(statements(folder / "many.nt"))]
    subprocess.run(command, cwd=ROOT, env=cli_env, check=True, capture_output=True)
    whole, wanted = graph_hash(store), store.read(count)[0]["n"]
    empty(store)
    child = subprocess.Popen(
        command, cwd=ROOT, env=cli_env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not store.read(count)[0]["n"]:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    time.sleep(1)  # the server ends the transaction that was open
    left = store.read(count)[0]["n"]
    assert 0 < left < wanted
    assert graph_hash(store) != whole
    report = folder / "report.json"
    again = [*command, "--report", str(report)]
    subprocess.run(again, cwd=ROOT, env=cli_env, check=True, capture_output=True)
    assert graph_hash(store) == whole
    said = json.loads(report.read_text())["written"]
    assert said["nodes" if "Entity" in pattern else "relationships"] == wanted - left
    empty(store)
