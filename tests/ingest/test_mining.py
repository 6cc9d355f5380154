"""A starter graph from a few sentences: which terms, which relations, with which evidence; and how it fails."""

import gzip
import json
from pathlib import Path

import pytest

from ingest.__main__ import main
from ingest.mining.corpus import Sentence
from ingest.mining.relations import likelihood_ratio, stated
from ingest.mining.terms import c_values
from ingest.report import Report
from ingest.sources import READERS
from kg.errors import InputError
from kg.types import Entity, Triple

TEXT = """Metal alloys such as carbon steel, brass and bronze resist rust. Carbon steel is a metal alloy.
The price of carbon steel fell. The price of brass fell, too. A bronze price is low. Nobody likes rust.
Brass and other metal alloys melt. A furnace melts the slag. Slag floats in the furnace.
Slag leaves a furnace. In the furnace, slag cools. The strong furnace takes slag. Steel is a metal. Tool steel and
alloy steel differ. Tool steel wears. Alloy steel lasts.
"""


def mined(folder: Path, text: str = TEXT, *options: str) -> tuple[list[list[str]], list[list[str]]]:
    file = folder / "alloys.txt"
    file.write_text(text, encoding="utf-8")
    assert main(["mine", str(file), "--out", str(folder / "out"), "--min-count", "2", *options]) == 0
    tables = [(folder / "out" / name).read_text("utf-8").splitlines() for name in ("names.tsv", "edges.tsv")]
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["edges.tsv", "names.tsv"]
    names, edges = ([line.split("\t") for line in table] for table in tables)
    return names, edges


def test_a_candidate_is_worth_what_it_occurs_beyond_longer_ones() -> None:
    values = c_values({("soft", "contact", "lens"): 4, ("contact", "lens"): 7, ("lens",): 9, ("rigid", "lens"): 2})
    assert values[("soft", "contact", "lens")] == 2 * 4
    assert values[("contact", "lens")] == pytest.approx(1.585 * (7 - 4), abs=1e-3)
    assert values[("lens",)] == pytest.approx(9 - (4 + 7 + 2) / 3)


def test_terms_are_runs_between_stop_words_and_the_heads_of_three_of_them(tmp_path: Path) -> None:
    names, _ = mined(tmp_path)
    assert names[0] == ["id", "name", "kind", "source"]
    terms = {row[0] for row in names[1:]}
    assert {"carbon-steel", "metal-alloy", "tool-steel", "alloy-steel", "steel"} <= terms
    assert not terms & {"the", "rust", "brass", "slag"}  # one word, and the head of no longer term
    assert ["metal-alloy", "metal alloys", "S", "mined"] in names
    assert mined(tmp_path)[0] == names


def test_every_edge_has_its_evidence(tmp_path: Path) -> None:
    _, edges = mined(tmp_path)
    assert edges[0] == ["head", "tail", "relation", "mined", "method", "count", "score", "document", "example"]
    assert edges[1:] == [
        ["alloy-steel", "steel", "SUBCLASS_OF", "true", "head", "2", "", "", ""],
        [
            *("carbon-steel", "metal-alloy", "SUBCLASS_OF", "true", "is a, such as", "2", "", "alloys.txt:1"),
            "Metal alloys such as carbon steel, brass and bronze resist rust.",
        ],
        ["carbon-steel", "steel", "SUBCLASS_OF", "true", "head", "3", "", "", ""],
        ["tool-steel", "steel", "SUBCLASS_OF", "true", "head", "2", "", "", ""],
    ]


def test_what_meets_more_often_than_by_chance_is_related(tmp_path: Path) -> None:
    facts = "Here the blast furnace, there the molten slag. " * 3 + "".join(
        f"Word{i} stands alone. " for i in range(60)
    )
    _, edges = mined(tmp_path, facts)
    (edge,) = edges[1:]
    assert edge[:6] == ["blast-furnace", "molten-slag", "RELATED_TO", "true", "co-occurrence", "3"]
    assert float(edge[6]) == pytest.approx(likelihood_ratio(3, 3, 3, 63), abs=0.01)
    assert edge[7:] == ["alloys.txt:1", "Here the blast furnace, there the molten slag."]


def test_the_likelihood_ratio_is_that_of_dunning() -> None:
    assert likelihood_ratio(110, 2552, 221, 31777) == pytest.approx(270.72, abs=0.01)  # "the swiss", his table 2
    assert likelihood_ratio(5, 50, 10, 100) == 0.0  # just as often as by chance
    assert likelihood_ratio(10, 10, 10, 100) > likelihood_ratio(8, 10, 10, 100) > 10.83


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("<0> such as <1> , the <2> and <3> .", [(1, 0, "such as"), (2, 0, "such as"), (3, 0, "such as")]),
        ("<0> , including <1>", [(1, 0, "including")]),
        ("<1> , <2> and other <0> rise", [(1, 0, "and other"), (2, 0, "and other")]),
        ("a <1> is a kind of <0> .", [(1, 0, "is a")]),
        ("<1> is a <0> company", []),  # the beginning of a longer name
        ("the price of <1> is a <0> .", []),
        ("<1> are <0>", []),
        ("<0> such as <0>", []),
    ],
)
def test_patterns_say_what_is_below_what(line: str, found: list[tuple[int, int, str]]) -> None:
    assert list(stated(line)) == found


def test_a_mined_table_is_loaded_with_its_evidence(tmp_path: Path) -> None:
    mined(tmp_path)
    report = Report("mined")
    items = list(READERS["table"]([tmp_path / "out"], "mined", report, "m").items)
    (edge,) = [item for item in items if isinstance(item, Triple) and item.tail == "m:metal-alloy"]
    assert edge.properties == {
        **{"mined": True, "method": "is a, such as", "count": 2, "document": "alloys.txt:1"},
        "example": "Metal alloys such as carbon steel, brass and bronze resist rust.",
    }
    entity = next(item for item in items if isinstance(item, Entity) and item.id == "m:metal-alloy")
    assert {name.text for name in entity.names} == {"metal alloy", "metal alloys"}
    assert report.balances


def test_json_lines_and_archives_in_folders_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    row = json.dumps({"text": "Carbon steel bends.\nCarbon steel\tbreaks."}).encode()
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(gzip.compress(row + b"\n"))
    (tmp_path / "in" / "ignored.csv").write_text("x")
    assert main(["mine", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--min-count", "2"]) == 0
    assert "carbon-steel\tCarbon steel\tP\tmined" in (tmp_path / "out" / "names.tsv").read_text()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"x", "holds no text; expected .txt or .jsonl"),
        ("a.txt", b"Z\xfcrich", r"a.txt:1: expected UTF-8 \(UnicodeDecodeError"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": 1}\n', r"a.jsonl:2: expected a JSON object with text \(KeyError"),
        ("a.txt.gz", gzip.compress(b"many words " * 99)[:-9], "a.txt.gz: cannot be read"),
        ("a.jsonl", b'{"text": "x\\ud800"}\n', r"a.jsonl:1: expected a JSON object with text \(UnicodeEncodeError"),
        ("a.jsonl", b"[" * 100_000, r"a.jsonl:1: expected a JSON object with text \(ValueError: nested too deeply"),
        ("a.txt.gz", gzip.compress(b" " * (20 << 20)), "a.txt.gz: unpacks to more than 250 times its size"),
        ("a.txt", b"x" * (65 << 20), "a.txt:1: longer than 64 MiB"),
        ("a.txt", b"Nothing twice.", "no term occurs 3 times"),
    ],
)
def test_a_corpus_that_cannot_be_mined_is_named_and_nothing_is_written(
    name: str, content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["mine", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()
    with pytest.raises(InputError, match=reason):
        raise InputError("", said[-1])
    assert not (tmp_path / "out").exists()


def test_every_path_has_to_hold_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "empty").mkdir()
    for name, reason in (("none", "no such file or folder"), ("empty", "holds no text")):
        words = [str(tmp_path / "a.txt"), str(tmp_path / name), "--out", str(tmp_path / "out")]
        assert main(["mine", *words]) == 2
        assert f"{tmp_path / name}: {reason}" in capsys.readouterr().err.replace("\n", "")


def test_noun_chunks_of_a_spacy_pipeline_are_candidates(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    for word in ("furnace", "slag"):
        ruler.add([[{"LOWER": word}]], {"POS": "NOUN", "DEP": "nsubj"})
    ruler.add([[{"LOWER": {"NOT_IN": ["furnace", "slag"]}}]], {"POS": "VERB", "DEP": "ROOT"})
    nlp.to_disk(tmp_path / "model")
    from ingest.mining.terms import find_terms

    found = [Sentence("Hot furnace melts slag", "d:1")] * 3
    counts = find_terms(found, limit=9, min_count=1, spacy_model=None)
    assert ("hot", "furnace", "melts", "slag") in counts
    assert find_terms(found, limit=9, min_count=1, spacy_model=str(tmp_path / "model")) == {}  # chunks of one word


def test_a_pipeline_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("Carbon steel. " * 5)
    assert main(["mine", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--spacy", "no_such_model"]) == 2
    assert "--spacy no_such_model: expected an installed pipeline" in capsys.readouterr().err.replace("\n", " ")
