"""The hash of a graph says when two graphs are the same."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from kg import graph_hash as module
from kg.graph_hash import graph_hash
from kg.store import GraphStore

pytestmark = pytest.mark.neo4j
ROOT = Path(__file__).parent.parent.parent
NODES = [
    {"id": f"ex:{i}", "iri": f"urn:{i}", "name": f"Näme {i}", "names": [f"Näme {i}", "x"], "flag": i % 2 == 0}
    for i in range(25)
]
EDGES = [
    {"head": f"ex:{i}", "tail": f"ex:{(i * 7 + 1) % 25}", "sid": f"s{i}", "type": "OWNS" if i % 3 else "KNOWS"}
    for i in range(25)
]
CREATE_NODES = "UNWIND $rows AS row CREATE (n:Entity:Ex) SET n = row"
CREATE_EDGES = """
UNWIND $rows AS row MATCH (a:Entity {id: row.head}), (b:Entity {id: row.tail})
CREATE (a)-[:$(row.type) {sid: row.sid, sources: ['ex']}]->(b)
"""
CREATE_SOURCE = "CREATE (:Source {id: 'ex', release: '1', sha256: 'abc', loaded_at: $when})"


def load(store: GraphStore, *, backwards: bool = False, when: str = "2026-01-01") -> None:
    order = -1 if backwards else 1
    store.write("MATCH (n) DETACH DELETE n")
    if backwards:
        store.write(CREATE_SOURCE, when=when)
    store.write(CREATE_NODES, rows=NODES[::order])
    store.write(CREATE_EDGES, rows=EDGES[::order])
    if not backwards:
        store.write(CREATE_SOURCE, when=when)


def test_neither_order_nor_time_nor_size_of_pages_counts(store: GraphStore, monkeypatch: pytest.MonkeyPatch) -> None:
    load(store)
    first = graph_hash(store)
    load(store, backwards=True, when="2026-02-02")
    assert graph_hash(store) == first
    for size in (1, 7, 25, 26):
        monkeypatch.setattr(module, "PAGE_SIZE", size)
        assert graph_hash(store) == first


def test_every_change_counts_and_undoing_it_gives_the_hash_back(store: GraphStore) -> None:
    load(store)
    changes = [
        ("MATCH (n {id: 'ex:3'}) SET n.name = 'Name 3'", "MATCH (n {id: 'ex:3'}) SET n.name = 'Näme 3'"),
        ("MATCH (n {id: 'ex:3'}) SET n.extra = 1", "MATCH (n {id: 'ex:3'}) SET n.extra = null"),
        (
            "MATCH (n {id: 'ex:3'}) SET n.names = ['x', 'Näme 3']",
            "MATCH (n {id: 'ex:3'}) SET n.names = ['Näme 3', 'x']",
        ),
        ("MATCH (n {id: 'ex:3'}) SET n:Class", "MATCH (n {id: 'ex:3'}) REMOVE n:Class"),
        ("MATCH (n {id: 'ex:3'}) SET n.flag = 'false'", "MATCH (n {id: 'ex:3'}) SET n.flag = false"),
        ("MATCH ()-[r {sid: 's4'}]->() SET r.n = 2", "MATCH ()-[r {sid: 's4'}]->() SET r.n = null"),
        ("MATCH (s:Source) SET s.release = '2'", "MATCH (s:Source) SET s.release = '1'"),
        ("CREATE (:Entity {id: 'ex:99', iri: 'urn:99'})", "MATCH (n {id: 'ex:99'}) DELETE n"),
        (
            "MATCH (a {id: 'ex:1'}), (b {id: 'ex:2'}) CREATE (a)-[:SAME_AS]->(b)",
            "MATCH ()-[r:SAME_AS]->() DELETE r",
        ),
        ("MATCH (s:Source), (b {id: 'ex:2'}) CREATE (s)-[:OF]->(b)", "MATCH ()-[r:OF]->() DELETE r"),
    ]
    seen = [graph_hash(store)]
    for change, undo in changes:
        store.write(change)
        seen.append(graph_hash(store))
        store.write(undo)
        assert graph_hash(store) == seen[0], change
    assert len(set(seen)) == len(seen)


def test_the_kind_of_a_value_counts_too(store: GraphStore) -> None:
    hashes = []
    for value in ("1", "1.0", "'1'", "true", "'2020-01-01'", "date('2020-01-01')", "datetime('2020-01-01')", "[1]"):
        store.write(f"MERGE (n:Entity {{id: 'ex:0'}}) SET n.value = {value}")
        hashes.append(graph_hash(store))
    assert len(set(hashes)) == len(hashes)


def test_which_end_is_the_head_counts(store: GraphStore) -> None:
    hashes = []
    for ends in ("(a)-[:R]->(b)", "(b)-[:R]->(a)", "(a)-[:Q]->(b)"):
        store.write("MATCH (n) DETACH DELETE n")
        store.write(f"CREATE (a:Entity {{id: 'ex:a'}}), (b:Entity {{id: 'ex:b'}}), {ends}")
        hashes.append(graph_hash(store))
    assert all(one != other for one, other in pairwise([*hashes, hashes[0]]))


def test_the_command_prints_it(store: GraphStore, cli_env: dict[str, str]) -> None:
    load(store)
    command = [sys.executable, "-m", "kg", "hash"]
    printed = subprocess.run(command, cwd=ROOT, env=cli_env, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == graph_hash(store)
    assert len(printed.strip()) == 64
    assert os.linesep in printed
