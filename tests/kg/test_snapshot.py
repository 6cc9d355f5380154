import json
from pathlib import Path

import pytest

from kg.errors import ConfigError, InputError
from kg.snapshot import Snapshot, latest_snapshot, write_snapshot
from tests.builders import tiny_snapshot


def test_equal_content_in_any_order_gives_equal_bytes(tmp_path: Path) -> None:
    first = tiny_snapshot(tmp_path / "a", names=("X", "Y"), triples=[("ex:0", "R", "ex:1"), ("ex:1", "Q", "ex:0")])
    second = tiny_snapshot(tmp_path / "b", names=("X", "Y"), triples=[("ex:1", "Q", "ex:0"), ("ex:0", "R", "ex:1")])
    assert first.hash == second.hash
    for file in ("entities", "aliases", "triples", "relations"):
        assert (tmp_path / f"a/{file}.parquet").read_bytes() == (tmp_path / f"b/{file}.parquet").read_bytes()


def test_triples_use_the_index_of_entities_and_relations(tmp_path: Path) -> None:
    snapshot = tiny_snapshot(tmp_path / "s")
    head, relation, tail = snapshot.triples[0]
    assert (snapshot.ids[head], snapshot.relations[relation], snapshot.ids[tail]) == (
        "ex:0",
        "LISTED_ON",
        "ex:3",
    )
    assert snapshot.names[snapshot.index["ex:2"]] == "Corvus Fund"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    tiny_snapshot(tmp_path / "s")
    with (tmp_path / "s/triples.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="triples.parquet"):
        Snapshot.load(tmp_path / "s")


def test_a_folder_that_is_no_snapshot_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="python -m kg snapshot"):
        Snapshot.load(tmp_path)


def test_a_triple_to_nowhere_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ex:9"):
        tiny_snapshot(tmp_path / "s", triples=[("ex:0", "R", "ex:9")])
    assert not (tmp_path / "s").exists()


def test_the_latest_snapshot_is_the_highest_complete_version(tmp_path: Path) -> None:
    for version in (2, 10):
        tiny_snapshot(tmp_path / f"v{version}")
    (tmp_path / "v11").mkdir()
    assert latest_snapshot(tmp_path) == tmp_path / "v10"
    assert json.loads((tmp_path / "v10/manifest.json").read_text())["counts"]["entities"] == 4


def test_an_empty_graph_makes_an_empty_snapshot(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "s", entities=[], aliases=[], triples=[])
    assert Snapshot.load(tmp_path / "s").triples.shape == (0, 3)
