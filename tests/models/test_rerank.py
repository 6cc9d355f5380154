"""What gold links teach the linker, on a small world where it is known what there is to learn."""

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kg.errors import ConfigError, InputError
from kg.linking import Linker
from kg.snapshot import Snapshot, write_snapshot
from kg.types import Link
from models.rerank.__main__ import main
from models.rerank.confidence import best_threshold, curve_of
from models.rerank.gold import GoldText, read_gold
from models.rerank.training import train_ranker

CITIES = ["Arvo", "Belm", "Cruz", "Dorn", "Elba", "Fenn"]
PEOPLE = ["Ilan", "Joro", "Kell", "Lumo", "Mert", "Nell"]
FILLER = ["met near the river", "said that", "was seen with", "wrote about", "asked for", "and the crowd saw"]


def world(folder: Path) -> Snapshot:
    """Two persons bear each name and live in different cities; each city is named once. ``Crowd`` is a name that texts
    never mean; ``the old harbour`` is what texts call Arvo."""
    entities = {f"ex:{city}": city for city in CITIES} | {"ex:crowd": "Crowd"}
    triples = []
    for number, person in enumerate(PEOPLE):
        for half in (0, 1):
            home = CITIES[(number + 3 * half) % len(CITIES)]
            entities[f"ex:{person}{half}"] = person
            triples.append((f"ex:{person}{half}", "LIVES_IN", f"ex:{home}"))
    bearers = {name: sum(other == name for other in entities.values()) for name in entities.values()}
    write_snapshot(
        folder,
        entities=[{"id": id, "name": name, "types": []} for id, name in entities.items()],
        aliases=[
            {"alias": name, "entity": id, "prior": 1 / bearers[name], "kind": "pref", "language": ""}
            for id, name in entities.items()
        ],
        triples=triples,
    )
    return Snapshot.load(folder)


def gold_texts(seed: int, number: int) -> list[GoldText]:
    draw = random.Random(seed)
    texts = []
    for i in range(number):
        person, half = draw.randrange(len(PEOPLE)), draw.randrange(2)
        city = CITIES[(person + 3 * half) % len(CITIES)]
        name = "the old harbour" if city == "Arvo" and draw.random() < 0.7 else city
        text = f"{PEOPLE[person]} {draw.choice(FILLER)} in {name}, {draw.choice(FILLER)}."
        at = text.index(name, len(PEOPLE[person]))
        mentions = ((0, len(PEOPLE[person]), (f"ex:{PEOPLE[person]}{half}",)), (at, at + len(name), (f"ex:{city}",)))
        texts.append(GoldText(f"{seed}-{i}", text, mentions))
    return texts


def share_right(linker: Linker, texts: Sequence[GoldText]) -> float:
    """F1 of spans with their entities."""
    right = given = wanted = 0
    for text in texts:
        found = {(link.start, link.end, link.id) for link in linker.link(text.text) if link.id is not None}
        gold = {(start, end, ids[0]) for start, end, ids in text.mentions}
        right, given, wanted = right + len(found & gold), given + len(found), wanted + len(gold)
    return 2 * right / (given + wanted)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return world(tmp_path_factory.mktemp("world") / "v1")


@pytest.fixture(scope="module")
def ranker(snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "ranker"
    train_ranker(snapshot, gold_texts(1, 150), folder)
    return folder


def test_the_graph_tells_who_is_meant_by_where_they_are(snapshot: Snapshot, ranker: Path) -> None:
    texts = gold_texts(2, 80)
    with_graph, without = (Linker.load(snapshot, ranker=ranker, graph=graph) for graph in (True, False))
    assert share_right(with_graph, texts) > 0.95
    assert share_right(without, texts) < 0.8  # who of two cannot be known


def test_names_that_texts_use_are_learned_and_those_they_never_mean_are_dropped(
    snapshot: Snapshot, ranker: Path
) -> None:
    text = "Ilan wrote about the old harbour and the crowd."

    def named(links: Sequence[Link]) -> list[tuple[str, str | None]]:
        return [(link.text, link.id) for link in links]

    assert ("crowd", "ex:crowd") in named(Linker.load(snapshot).link(text))
    assert named(Linker.load(snapshot, ranker=ranker).link(text)) == [
        ("Ilan", "ex:Ilan0"),
        ("the old harbour", "ex:Arvo"),
    ]


def test_spans_that_are_given_are_ranked_too(snapshot: Snapshot, ranker: Path) -> None:
    linker = Linker.load(snapshot, ranker=ranker)
    text = "Ilan and Zzyzx went to Dorn"
    person, nobody, city = linker.link_spans(text, [(0, 4), (9, 14), (23, 27)])
    assert (person.id, city.id) == ("ex:Ilan1", "ex:Dorn")
    assert nobody.id is None
    assert all(0 <= link.confidence <= 1 for link in (person, nobody, city))
    assert sum(candidate.score for candidate in person.candidates) <= 1 + 1e-6


def test_candidates_that_are_given_are_ranked_and_none_is_added(snapshot: Snapshot, tmp_path: Path) -> None:
    """Texts call persons by a word that is no name of theirs, and who may be meant is given."""
    gold = []
    for text in gold_texts(5, 150):
        (_, end, (id,)), city = text.mentions
        two = tuple(sorted((id, f"{id[:-1]}{1 - int(id[-1])}")))
        called = GoldText(text.id, f"Xxxx{text.text[end:]}", ((0, end, (id,)), city), (two, None))
        gold.append(called)
    train_ranker(snapshot, gold[:100], tmp_path / "ranker")
    linker = Linker.load(snapshot, ranker=tmp_path / "ranker")
    right = 0
    for text in gold[100:]:
        person, _ = linker.link_spans(text.text, [mention[:2] for mention in text.mentions], candidates=text.candidates)
        assert {candidate.id for candidate in person.candidates} == set(text.candidates[0] or ())
        right += person.candidates[0].id in text.mentions[0][2]
    assert right > 45


def test_a_long_text_is_linked_in_parts(snapshot: Snapshot, ranker: Path) -> None:
    """What its mentions say of each other would grow with the square of its length."""
    texts = gold_texts(4, 5_000)
    links = Linker.load(snapshot, ranker=ranker).link("\n".join(text.text for text in texts))
    assert len(links) == 10_000
    named = [link.id for link in links[1::2]]
    assert named == [text.mentions[1][2][0] for text in texts]


def test_the_report_says_what_texts_that_were_not_learned_from_give(snapshot: Snapshot, ranker: Path) -> None:
    report = json.loads((ranker / "manifest.json").read_text())["report"]
    assert report["accuracy"]["graph"] > report["accuracy"]["document"] + 0.15
    assert 0.9 < report["f1"] <= 1
    assert abs(report["f1"] - share_right(Linker.load(snapshot, ranker=ranker), gold_texts(3, 80))) < 0.06
    assert all(0 <= error < 0.1 for error in report["calibration_error"].values())


def test_a_threshold_does_not_part_what_has_one_confidence() -> None:
    rows = [(0.5, number % 2 == 0) for number in range(100)]
    found = best_threshold(rows, curve_of(rows), 50)
    assert found["f1"] == pytest.approx(2 / 3)
    assert (found["precision"], found["recall"]) == (0.5, 1.0)
    rows += [(0.9, True)] * 100
    curve = curve_of(rows)
    found = best_threshold(rows, curve, 150)
    given = [right for confidence, right in rows if np.interp(confidence, *curve) >= found["threshold"]]
    assert found["f1"] == pytest.approx(2 * sum(given) / (len(given) + 150))


def test_the_same_texts_and_seed_make_the_same_ranker(snapshot: Snapshot, ranker: Path, tmp_path: Path) -> None:
    train_ranker(snapshot, gold_texts(1, 150), tmp_path / "again")
    for file in sorted(ranker.iterdir()):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_ranker_runs_without_torch(snapshot: Snapshot, ranker: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from kg.linking import Linker; "
        f"print([link.id for link in Linker.load({str(snapshot.path)!r}, ranker={str(ranker)!r}).link('Ilan in Dorn')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "['ex:Ilan1', 'ex:Dorn']\n"


def test_entities_that_a_later_snapshot_lacks_are_no_candidates(ranker: Path, tmp_path: Path) -> None:
    write_snapshot(
        tmp_path / "v2",
        entities=[{"id": "ex:Dorn", "name": "Dorn", "types": []}],
        aliases=[{"alias": "Dorn", "entity": "ex:Dorn", "prior": 1.0, "kind": "pref", "language": ""}],
        triples=[],
    )
    links = Linker.load(tmp_path / "v2", ranker=ranker, threshold=0).link("Ilan at the old harbour, then Dorn")
    assert [(link.text, link.id) for link in links] == [("Dorn", "ex:Dorn")]


def test_the_command_trains_and_the_linker_uses_it(
    snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gold.jsonl"
    rows = [
        {"id": t.id, "text": t.text, "mentions": [{"start": s, "end": e, "ids": ids} for s, e, ids in t.mentions]}
        for t in gold_texts(1, 60)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "ranker"
    assert main([str(file), "--snapshot", str(snapshot.path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Crosswise on 60 texts" in said
    assert str(out) in said
    assert not list(tmp_path.glob("*.part"))
    assert share_right(Linker.load(snapshot, ranker=out), gold_texts(2, 40)) > 0.9


@pytest.mark.parametrize("out", ["thesis", ".", "thesis/chapter.txt", "thesis/chapter.txt/ranker"])
def test_what_is_no_ranker_is_not_replaced_and_nothing_is_learned_before_that_is_said(
    out: str, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    (thesis / "manifest.json").write_text("{}")  # of a run, say
    monkeypatch.chdir(thesis if out == "." else tmp_path)
    strange = [GoldText(str(n), "A b", ((0, 1, ("no:id",)),)) for n in range(9)]  # learning from these fails
    with pytest.raises(ConfigError, match=r"is neither a ranker nor an empty folder|cannot be written \(Not a dir"):
        train_ranker(snapshot, strange, Path(out))
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["chapter.txt", "manifest.json", "thesis"]


def test_a_ranker_is_replaced_by_a_newer_one(snapshot: Snapshot, ranker: Path, tmp_path: Path) -> None:
    train_ranker(snapshot, gold_texts(2, 40), tmp_path)
    first = (tmp_path / "manifest.json").read_bytes()
    train_ranker(snapshot, gold_texts(1, 150), tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == (ranker / "manifest.json").read_bytes() != first


def test_gold_may_say_which_candidates_a_mention_has(tmp_path: Path) -> None:
    file = tmp_path / "gold.jsonl"
    first, second = (
        {"start": 0, "end": 1, "ids": ["x:1"], "candidates": ["x:1", "x:2"]},
        {"start": 2, "end": 3, "ids": []},
    )
    file.write_text(json.dumps({"id": 7, "text": "a b", "mentions": [first, second]}) + "\n")
    wanted = [GoldText("7", "a b", ((0, 1, ("x:1",)), (2, 3, ())), (("x:1", "x:2"), None))]
    assert list(read_gold(file)) == wanted
    packed = tmp_path / "gold.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert list(read_gold(packed)) == wanted


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "expected"),
        ('{"id": 1, "text": "a"}', "mentions"),
        ('{"id": 1, "text": "abc", "mentions": [{"start": 2, "end": 9, "ids": []}]}', "outside"),
        ("[]", "expected"),
    ],
)
def test_gold_that_is_none_is_refused_by_line(tmp_path: Path, line: str, what: str) -> None:
    file = tmp_path / "gold.jsonl"
    file.write_text('{"id": 0, "text": "a", "mentions": []}\n' + line + "\n")
    with pytest.raises(InputError, match=f"gold.jsonl:2: .*{what}"):
        list(read_gold(file))


def test_gold_that_teaches_nothing_is_refused_and_leaves_nothing(snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 texts"):
        train_ranker(snapshot, gold_texts(1, 2), tmp_path / "few")
    foreign = [GoldText(str(i), "Ilan", ((0, 4, ("other:1",)),)) for i in range(20)]
    with pytest.raises(ConfigError, match="snapshot"):
        train_ranker(snapshot, foreign, tmp_path / "foreign")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["weights.safetensors", "links.parquet", "manifest.json"])
def test_a_damaged_ranker_is_refused(snapshot: Snapshot, ranker: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "ranker"
    copy.mkdir()
    for file in ranker.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content.replace(b'"format": 1', b'"format": 0') if name == "manifest.json" else b"x")
    with pytest.raises(InputError, match="train it anew"):
        Linker.load(snapshot, ranker=copy)


def test_a_folder_that_is_no_ranker_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"models\.rerank"):
        Linker.load(snapshot, ranker=tmp_path)
