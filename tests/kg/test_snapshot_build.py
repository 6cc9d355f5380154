import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kg.errors import ConfigError, InputError
from kg.snapshot import Snapshot, build_snapshot
from kg.store import GraphStore

pytestmark = pytest.mark.neo4j

NODES: list[dict[str, Any]] = [
    {
        "labels": ["Entity", "Fibo", "Class"],
        "id": "fibo:Bank",
        "name": "bank",
        "names": ["bank", "banking institution"],
        "name_kinds": ["pref@en", "syn@en"],
        "definition": "takes deposits",
        "sources": ["fibo"],
    },
    {
        "labels": ["Entity", "Fibo", "Class"],
        "id": "fibo:Shore",
        "name": "shore",
        "names": ["shore", "Bank"],
        "name_kinds": ["pref@en", "syn@"],
        "sources": ["fibo"],
    },
    {"labels": ["Entity", "Fibo", "Stub"], "id": "fibo:Nameless", "sources": ["fibo"]},
    {
        "labels": ["Entity", "Fibo", "Class", "Deprecated"],
        "id": "fibo:Old",
        "name": "old bank",
        "names": ["old bank"],
        "name_kinds": ["pref@en"],
        "sources": ["fibo"],
    },
    {
        "labels": ["Entity", "Fibo", "ObjectProperty"],
        "id": "fibo:has",
        "name": "has",
        "names": ["has"],
        "sources": ["fibo"],
    },
    {"labels": ["Entity", "MyGraph", "Item"], "id": "my:1", "name": "Ünïcode 😀", "sources": ["my-graph"]},
]
EDGES = [
    ("fibo:Bank", "SUBCLASS_OF", "fibo:Nameless"),
    ("fibo:Old", "REPLACED_BY", "fibo:Bank"),
    ("my:1", "SAME_AS", "fibo:Bank"),
]
LOAD = """
UNWIND $nodes AS row CALL (row) { CREATE (n:$(row.labels)) SET n = row.properties }
"""
LINK = """
UNWIND $edges AS row MATCH (head:Entity {id: row[0]}), (tail:Entity {id: row[2]}) CREATE (head)-[:$(row[1])]->(tail)
"""


def fill(
    store: GraphStore, nodes: Sequence[dict[str, Any]] = NODES, edges: Sequence[tuple[str, str, str]] = EDGES
) -> None:
    rows = [
        {"labels": node["labels"], "properties": {k: v for k, v in node.items() if k != "labels"}} for node in nodes
    ]
    store.write(LOAD, nodes=rows)
    store.write(LINK, edges=[list(edge) for edge in edges])
    store.write("CREATE (:Source {id: 'fibo', release: '2026Q3', sha256: 'ab', loaded_at: datetime()})")


def test_the_graph_becomes_entities_aliases_and_triples(store: GraphStore, tmp_path: Path) -> None:
    fill(store)
    snapshot = Snapshot.load(build_snapshot(store, tmp_path))
    assert snapshot.ids == sorted(node["id"] for node in NODES)
    rows = {row["id"]: row for row in snapshot.entities.to_pylist()}
    assert rows["fibo:Bank"] == {
        "id": "fibo:Bank",
        "name": "bank",
        "definition": "takes deposits",
        "types": ["Class"],
    }
    assert (rows["fibo:Old"]["types"], rows["my:1"]["types"]) == (["Class", "Deprecated"], ["Item"])
    assert (rows["fibo:Nameless"]["name"], rows["fibo:Nameless"]["definition"]) == (None, None)
    named = [
        (snapshot.ids[head], snapshot.relations[relation], snapshot.ids[tail])
        for head, relation, tail in snapshot.triples
    ]
    assert sorted(named) == sorted(EDGES)
    assert snapshot.manifest["sources"] == [{"id": "fibo", "release": "2026Q3", "sha256": "ab"}]


def test_priors_share_a_name_between_its_entities_and_the_gone_have_none(store: GraphStore, tmp_path: Path) -> None:
    fill(store)
    snapshot = Snapshot.load(build_snapshot(store, tmp_path))
    aliases = [
        (row["alias"], snapshot.ids[row["entity"]], round(row["prior"], 4), row["kind"], row["language"])
        for row in snapshot.aliases.to_pylist()
    ]
    assert aliases == [
        ("Bank", "fibo:Shore", 0.3333, "syn", ""),
        ("bank", "fibo:Bank", 0.6667, "pref", "en"),
        ("banking institution", "fibo:Bank", 1.0, "syn", "en"),
        ("shore", "fibo:Shore", 1.0, "pref", "en"),
        ("Ünïcode 😀", "my:1", 1.0, "pref", ""),
    ]


def test_an_unchanged_graph_gives_the_same_version_and_a_changed_one_the_next(
    store: GraphStore, tmp_path: Path
) -> None:
    fill(store)
    first = build_snapshot(store, tmp_path)
    assert build_snapshot(store, tmp_path) == first == tmp_path / "v1"
    store.write("MATCH (e:Entity {id: 'my:1'}) SET e.name = 'other'")
    assert build_snapshot(store, tmp_path) == tmp_path / "v2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1", "v2"]


def test_snapshots_that_are_made_at_once_are_whole_and_apart(store: GraphStore, tmp_path: Path) -> None:
    names = ["one", "two", "three", "four"]
    for name in names:
        store.write(
            "UNWIND range(1, 3000) AS i CREATE (:Entity:X:Item {id: $s + ':' + i, name: $s + i, sources: [$s]})", s=name
        )
    with ThreadPoolExecutor(len(names)) as pool:
        made = list(pool.map(lambda name: build_snapshot(store, tmp_path, sources=[name]), names))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1", "v2", "v3", "v4"] == sorted(p.name for p in made)
    for name, folder in zip(names, made, strict=True):
        assert {entity.split(":")[0] for entity in Snapshot.load(folder).ids} == {name}


@pytest.mark.parametrize("name", ["triples.parquet", "manifest.json"])
def test_a_damaged_snapshot_is_made_again_as_the_next_version(store: GraphStore, tmp_path: Path, name: str) -> None:
    fill(store)
    file = build_snapshot(store, tmp_path) / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="make the snapshot again"):
        Snapshot.load(tmp_path / "v1")
    assert build_snapshot(store, tmp_path) == tmp_path / "v2"
    assert Snapshot.load(tmp_path / "v2").num_entities == len(NODES)
    assert build_snapshot(store, tmp_path) == tmp_path / "v2"


def test_equal_graphs_give_equal_bytes_whatever_the_order_of_loading(store: GraphStore, tmp_path: Path) -> None:
    fill(store)
    first = build_snapshot(store, tmp_path / "a")
    store.write("MATCH (n) DETACH DELETE n")
    fill(store, NODES[::-1], EDGES[::-1])
    second = build_snapshot(store, tmp_path / "b")
    for file in sorted(path.name for path in first.iterdir()):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_a_graph_larger_than_a_chunk_is_read_whole(store: GraphStore, tmp_path: Path) -> None:
    store.write("UNWIND range(0, 20500) AS i CREATE (:Entity:X:Item {id: 'x:' + i, name: 'n' + i, sources: ['x']})")
    store.write("MATCH (a:Entity {id: 'x:0'}), (b:Entity) CREATE (a)-[:R]->(b), (b)-[:S]->(a)")
    snapshot = Snapshot.load(build_snapshot(store, tmp_path))
    assert snapshot.manifest["counts"] == {"entities": 20501, "aliases": 20501, "triples": 41002, "relations": 2}


def test_sources_restrict_the_entities_and_what_is_between_them(store: GraphStore, tmp_path: Path) -> None:
    fill(store)
    snapshot = Snapshot.load(build_snapshot(store, tmp_path, sources=["fibo"]))
    assert "my:1" not in snapshot.index
    assert len(snapshot.triples) == 2
    with pytest.raises(ConfigError, match="no entities of umls; load some first"):
        build_snapshot(store, tmp_path, sources=["umls"])


def test_a_folder_that_cannot_be_written_is_named(store: GraphStore) -> None:
    fill(store)
    with pytest.raises(ConfigError, match=r"/proc/snapshots cannot be written \(.*\); name a folder that can"):
        build_snapshot(store, Path("/proc/snapshots"))


def test_the_command_prints_the_folder_or_says_to_load_first(
    store: GraphStore, cli_env: dict[str, str], tmp_path: Path
) -> None:
    def command() -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "kg", "snapshot", "--out", str(tmp_path / "s")]
        return subprocess.run(arguments, env={**os.environ, **cli_env}, capture_output=True, text=True, check=False)

    empty = command()
    assert (empty.returncode, empty.stdout) == (2, "")
    assert empty.stderr.count("\n") == 1
    assert "python -m ingest load" in empty.stderr
    assert not (tmp_path / "s").exists()
    fill(store)
    done = command()
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "s/v1"))
