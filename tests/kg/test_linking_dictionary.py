import fcntl
import os
from pathlib import Path

from kg.linking import Linker
from kg.linking.dictionary import Dictionary
from kg.snapshot import Snapshot
from tests.builders import tiny_snapshot

TEXT = "Acme Bank owns the Corvus Fund"


def test_the_dictionary_is_compiled_once_and_the_same_for_the_same_snapshot(tmp_path: Path) -> None:
    one, two = tiny_snapshot(tmp_path / "a/v1"), tiny_snapshot(tmp_path / "b/v7")
    Dictionary.open(one), Dictionary.open(two)
    files = sorted(path.name for path in (tmp_path / "a/v1/dictionary").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b/v7/dictionary").iterdir())
    for name in files:
        first, second = (tmp_path / "a/v1/dictionary" / name), (tmp_path / "b/v7/dictionary" / name)
        assert first.read_bytes() == second.read_bytes()
    stamp = (tmp_path / "a/v1/dictionary").stat().st_mtime_ns
    Dictionary.open(one)
    assert (tmp_path / "a/v1/dictionary").stat().st_mtime_ns == stamp


def test_a_damaged_or_foreign_dictionary_is_built_anew(tmp_path: Path) -> None:
    snapshot = tiny_snapshot(tmp_path / "v1")
    expected = Linker.load(snapshot).link(TEXT)
    for name in ("names.marisa", "entity.npy", "manifest.json"):
        file = tmp_path / "v1/dictionary" / name
        file.write_bytes(file.read_bytes()[:-3] + b"\xff\xff\xff")
        assert Linker.load(tmp_path / "v1").link(TEXT) == expected
    other = tiny_snapshot(tmp_path / "v2", names=("Zeta Holding", "Eta Holding", "Theta", "Iota"))
    (tmp_path / "v1/dictionary").rename(tmp_path / "v2/dictionary")
    assert [link.text for link in Linker.load(other).link("Zeta Holding, not Acme Bank")] == ["Zeta Holding"]


def test_nothing_is_left_beside_the_dictionary(tmp_path: Path) -> None:
    Dictionary.open(tiny_snapshot(tmp_path / "v1"))
    assert not list(tmp_path.glob("v1/.*"))
    Snapshot.load(tmp_path / "v1")


def test_what_was_left_of_a_dictionary_when_it_was_killed_is_removed_by_the_next(tmp_path: Path) -> None:
    snapshot = tiny_snapshot(tmp_path / "v1")
    left, held, fresh = (snapshot.path / f".dictionary-{name}" for name in ("left", "held", "fresh"))
    for folder in (left, held, fresh):
        folder.mkdir()
        (folder / "names.marisa").touch()
    for folder in (left, held):
        os.utime(folder, (0, 0))
    holder = os.open(held, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_SH)
    Dictionary.open(snapshot)
    os.close(holder)
    assert sorted(snapshot.path.glob(".*")) == sorted([held, fresh])
