"""A dictionary that is an older one with changes links as one that is built anew."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from kg.linking import Linker
from kg.snapshot import write_snapshot

STARTS, ENDS = ("mar", "ton", "vel", "kir", "sop", "gan", "fel", "hus"), ("rin", "das", "lum", "pek", "nor")
WORDS = [start + vowel + end for start in STARTS for vowel in "aoi" for end in ENDS]
Graph = dict[str, tuple[list[str], str]]
"""Names and definition of each entity."""


def graph_of(seed: int, size: int) -> Graph:
    draw = random.Random(seed)
    return {
        f"ex:{i:04}": ([" ".join(draw.sample(WORDS, draw.choice((2, 2, 3)))) for _ in range(2)], draw.choice(WORDS))
        for i in range(size)
    }


def changed(graph: Graph, seed: int, number: int) -> Graph:
    """Some entities renamed, defined otherwise, removed and added."""
    draw = random.Random(seed)
    graph = dict(graph)
    for id in draw.sample(sorted(graph), number):
        names, definition = graph[id]
        match draw.randrange(4):
            case 0:
                del graph[id]
            case 1:
                graph[id] = ([*names, f"{draw.choice(WORDS)} corporation"], definition)
            case 2:
                graph[id] = (names[:1], f"{draw.choice(WORDS)} {draw.choice(WORDS)}")
            case 3:
                graph[f"ex:{draw.randrange(10_000):04}x"] = ([f"new {draw.choice(WORDS)}", names[0]], definition)
    return graph


def write(folder: Path, graph: Graph, triples: Sequence[tuple[str, str, str]] = ()) -> Path:
    bearers: dict[str, set[str]] = {}
    for id, (names, _) in graph.items():
        for name in names:
            bearers.setdefault(name, set()).add(id)
    return write_snapshot(
        folder,
        entities=[{"id": id, "name": names[0], "definition": text, "types": []} for id, (names, text) in graph.items()],
        aliases=[
            {"alias": name, "entity": id, "prior": 1 / len(ids), "kind": "pref", "language": "en"}
            for name, ids in bearers.items()
            for id in ids
        ],
        triples=[triple for triple in triples if triple[0] in graph and triple[2] in graph],
    )


def texts_of(*graphs: Mapping[str, tuple[list[str], str]]) -> list[str]:
    names = sorted({name for graph in graphs for names, _ in graph.values() for name in names})
    return [" and the ".join(names[i : i + 5]) for i in range(0, len(names), 5)]


def test_a_chain_of_changes_links_as_what_is_built_anew(tmp_path: Path) -> None:
    graphs = [graph_of(1, 1500)]
    for seed in range(3):
        graphs.append(changed(graphs[-1], seed, 6))
    ids = sorted(graphs[0])
    triples = [(ids[i], "NEAR", ids[(7 * i) % len(ids)]) for i in range(len(ids))]
    texts = texts_of(*graphs)
    for number, graph in enumerate(graphs, 1):
        linker = Linker.load(write(tmp_path / f"all/v{number}", graph, triples))
        assert (tmp_path / f"all/v{number}/dictionary/changes").is_dir() == (number > 1)
        anew = Linker.load(write(tmp_path / f"alone{number}/v1", graph, triples))
        assert linker.link_batch(texts) == anew.link_batch(texts)
    old, new = Linker.load(tmp_path / "all/v1"), Linker.load(tmp_path / "all/v4")
    assert old.link_batch(texts) != new.link_batch(texts)


def test_files_that_stay_are_not_copied(tmp_path: Path) -> None:
    graph = graph_of(1, 1500)
    Linker.load(write(tmp_path / "v1", graph))
    Linker.load(write(tmp_path / "v2", changed(graph, 0, 5)))
    one, two = (tmp_path / version / "dictionary/gram_names.npy" for version in ("v1", "v2"))
    assert one.stat().st_ino == two.stat().st_ino


def test_an_older_dictionary_may_go(tmp_path: Path) -> None:
    graph = graph_of(1, 1500)
    Linker.load(write(tmp_path / "v1", graph))
    now = changed(graph, 0, 5)
    linker = Linker.load(write(tmp_path / "v2", now))
    (tmp_path / "v1").rename(tmp_path / "gone")
    assert Linker.load(tmp_path / "v2").link_batch(texts_of(now)) == linker.link_batch(texts_of(now))


def test_an_older_snapshot_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    graphs = [graph_of(1, 1500)]
    for seed in range(2):
        graphs.append(changed(graphs[-1], seed, 5))
    for number in (1, 2):
        Linker.load(write(tmp_path / f"v{number}", graphs[number - 1]))
    with (tmp_path / "v2/aliases.parquet").open("ab") as file:
        file.write(b"x")
    linker = Linker.load(write(tmp_path / "v3", graphs[2]))
    one, three = (tmp_path / version / "dictionary/gram_names.npy" for version in ("v1", "v3"))
    assert one.stat().st_ino == three.stat().st_ino
    anew = Linker.load(write(tmp_path / "alone/v1", graphs[2]))
    assert linker.link_batch(texts_of(graphs[2])) == anew.link_batch(texts_of(graphs[2]))


@pytest.mark.parametrize("number", [200, 1400])
def test_many_changes_are_built_anew(tmp_path: Path, number: int) -> None:
    graph = graph_of(1, 1500)
    Linker.load(write(tmp_path / "v1", graph))
    Linker.load(write(tmp_path / "v2", changed(graph, 0, number)))
    assert not (tmp_path / "v2/dictionary/changes").exists()


def test_names_that_are_new_are_found_by_spelling_and_those_that_went_are_not(tmp_path: Path) -> None:
    graph = graph_of(1, 1500)
    Linker.load(write(tmp_path / "v1", graph | {"ex:old": (["quixotic zymurgy"], "")}))
    linker = Linker.load(write(tmp_path / "v2", graph | {"ex:new": (["jubilant xylophone"], "")}))
    assert (tmp_path / "v2/dictionary/changes").is_dir()
    assert linker.candidates("jubilant xylofone")[0].id == "ex:new"
    assert "ex:old" not in {candidate.id for candidate in linker.candidates("quixotic zymurgie")}
