"""The bulk path gives the graph of the transactional one, or leaves the empty graph as it was."""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.bulk import bulk_load, bulk_possible
from ingest.load import load
from ingest.release import Release, write_release
from ingest.report import Report
from ingest.sources import READERS
from kg.errors import KGError, StoreFailed, StoreUnavailable
from kg.graph_hash import graph_hash
from kg.local_server import LocalServer
from kg.schema import ensure_schema
from kg.settings import Settings
from kg.store import GraphStore, open_store
from kg.types import Entity, Name, PropertyValue, Triple

pytestmark = pytest.mark.neo4j
ROOT = Path(__file__).parent.parent.parent
NASTY = (
    'a "quoted", and\tparted; text',
    "two\nlines\r\n",
    "back\\slash \\n \\",
    "unit\x1fseparator and \x00 and \x7f",
    " padded ",
    "",
    "😀 ﷽ e\u0301",
    "long " * 50_000,
    "null",
    "[1,2]",
    "'single' `back`",
)
COUNT = "MATCH (n) RETURN count(n) AS n"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A home of our own, whose store is replaced."""
    settings = Settings(home=tmp_path / "home")
    yield settings
    LocalServer(settings.home).stop()


def entity(key: str, /, **said: Any) -> Entity:
    return Entity(**{"id": f"x:{key}", "iri": f"http://x/{key}", "source": "my-graph", "kinds": ("Item",), **said})


def edge(head: str, relation: str, tail: str, /, **properties: PropertyValue) -> Triple:
    sid = hashlib.blake2b(f"{head} {relation} {tail}".encode(), digest_size=16).hexdigest()
    return Triple(
        head=f"x:{head}", relation=relation, tail=f"x:{tail}", source="my-graph", sid=sid, properties=properties
    )


def nasty_items() -> list[Entity | Triple]:
    """Every hard string in every place, every type, more keys than there are columns, keys of two types."""
    items: list[Entity | Triple] = [
        entity("all", kinds=("Class", "Deprecated"), names=tuple(Name(text=text) for text in NASTY), tail=NASTY),
        entity("stub", kinds=("Stub",)),
        entity("empties", name="", definition="", definitions=("",), tail=("", ""), names=(Name(text=""),)),
        entity("origins", names=(Name(text="a", origin="X/PT/1"), Name(text="b", kind="syn", language="en-GB"))),
        entity("types", properties={"n": 2**63 - 1, "m": -(2**63), "f": 0.1, "t": True, "u": False, "l": ["a", ""]}),
        entity("others", properties={"n": "seven", "f": 7, "t": "true", "l": "a", "m": [], "id": "not this"}),
        entity("many", properties={f"P{i}": i for i in range(200)}),
        entity("keys", properties={"with space": "1", "a:b": "2", "`": "3", "Ünï": "4", ":ID": "5", "n:int": "6"}),
    ]
    for i, text in enumerate(NASTY):
        items.append(entity(f"n{i}", name=text, definition=text, properties={"text": text, "texts": [text, text]}))
        items.append(edge(f"n{i}", f"REL_{i}", "all", text=text, texts=[text], n=i, rare=bool(i % 2)))
        items.append(edge(f"n{i}", "SELF", f"n{i}", **{f"q_P{j}": j for j in range(100 * (i == 3))}))
    return items


def in_bulk(settings: Settings, release: Release) -> tuple[str, Report]:
    """Hash of the graph that ``bulk_load`` makes, and its report."""
    report = Report(release.source)
    bulk_load(settings, release, report)
    with open_store(settings) as store:
        assert bulk_possible(settings, store) == "the graph is not empty"
        return graph_hash(store), report


def test_the_graph_is_the_one_of_the_transactional_path(store: GraphStore, settings: Settings, tmp_path: Path) -> None:
    items = nasty_items()
    release = write_release(tmp_path / "release", items, source="my-graph")
    ensure_schema(store)
    load(store, release, Report(release.source))
    properties = sum(
        row["n"]
        for row in store.read(
            "MATCH (e:Entity) RETURN sum(size(keys(e))) AS n UNION ALL MATCH ()-[r]->() RETURN sum(size(keys(r))) AS n"
        )
    )

    digest, report = in_bulk(settings, release)

    assert digest == graph_hash(store)
    assert report.path == "bulk"
    assert report.written == {
        "nodes": release.num_nodes,
        "relationships": release.num_edges,
        "properties": properties,
    }
    assert not {"new", "old", "gone"} & {path.name for path in (settings.home / "neo4j").iterdir()}


@pytest.mark.slow
def test_all_of_fibo_in_bulk_is_all_of_fibo(store: GraphStore, settings: Settings, tmp_path: Path, data: Path) -> None:
    report = Report("fibo")
    items = READERS["fibo"]([data / "kg" / "fibo_2026-07"], "fibo", report, "fibo").items
    release = write_release(tmp_path / "release", items, source="fibo")
    ensure_schema(store)
    load(store, release, Report(release.source))

    assert in_bulk(settings, release)[0] == graph_hash(store)


def test_a_graph_that_holds_something_or_is_elsewhere_is_not_filled_in_bulk(store: GraphStore, home: Path) -> None:
    assert bulk_possible(Settings(home=home), store) is None
    elsewhere = Settings(home=home, neo4j_uri="bolt://127.0.0.1:7687")
    assert bulk_possible(elsewhere, store) == "NEO4J_URI is set, and only the local Neo4j can be filled in bulk"
    store.write("CREATE (:Note)")
    assert bulk_possible(Settings(home=home), store) == "the graph is not empty"


@pytest.mark.slow
def test_what_cannot_be_loaded_leaves_the_graph_empty(settings: Settings, tmp_path: Path) -> None:
    tries: Sequence[tuple[list[Entity | Triple], str]] = [
        ([entity("a"), edge("a", "R", "nowhere")], "missing node x:nowhere"),
        ([entity("a"), entity("b", iri="http://x/a")], "entity_iri"),
    ]
    for i, (items, said) in enumerate(tries):
        release = write_release(tmp_path / f"release{i}", items, source="my-graph")
        with pytest.raises(KGError, match=said) as caught:
            bulk_load(settings, release, Report("my-graph"))
        assert len(str(caught.value).splitlines()) == 1
        with open_store(settings) as store:
            assert bulk_possible(settings, store) is None
        assert not {"new", "old", "gone"} & {path.name for path in (settings.home / "neo4j").iterdir()}


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    settings = Settings(home=disk / "home")
    try:
        release = write_release(tmp_path / "release", nasty_items(), source="my-graph")
        server = LocalServer(settings.home)
        server.start(keep=True)
        server.release()
        filler = disk / "filler"
        for free in (0, 3):  # MiB: too little for our own files, and for the importer
            space = os.statvfs(disk)
            with filler.open("wb") as file, contextlib.suppress(OSError):  # the server writes its log meanwhile
                os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - free * 2**20)
            with pytest.raises(StoreFailed, match="disk of .* is full; the graph is empty as before") as caught:
                bulk_load(settings, release, Report("my-graph"))
            assert len(str(caught.value).splitlines()) == 1
            assert not (settings.home / "neo4j" / "new").exists()
            filler.unlink()
        with open_store(settings) as store:
            assert store.read(COUNT) == [{"n": 0}]
    finally:
        LocalServer(settings.home).stop()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_server_that_another_process_uses_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", [entity("a")], source="my-graph")
    hold = "import sys; from pathlib import Path; from kg.local_server import LocalServer\n"
    hold += "print(LocalServer(Path(sys.argv[1])).start().uri, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(settings.home)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        with pytest.raises(StoreUnavailable, match="Another process uses the local Neo4j"):
            bulk_load(settings, release, Report("my-graph"))
        assert LocalServer(settings.home).status()["running"]
        other.communicate()
