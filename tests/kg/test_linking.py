import json
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg.errors import ConfigError
from kg.linking import Linker
from kg.snapshot import Snapshot, write_snapshot
from kg.types import Link
from tests.builders import linker_of

SENTENCES = Path(__file__).parent.parent / "data" / "linking_sentences.jsonl"


def found(links: Sequence[Link]) -> list[tuple[str, str | None]]:
    return [(link.text, link.id) for link in links]


COMPANIES = {
    "ex:bank": ["bank"],
    "ex:river": ["riverside", "bank"],
    "ex:acme": ["Acme Bank", "Acme"],
    "ex:acmeuk": ["Acme Bank of England"],
    "ex:cafe": ["Café Crème Group", "CCG"],
    "ex:emoji": ["👩‍🚀 Ventures", "😀"],
    "ex:tokyo": ["東京", "한국은행"],
    "ex:all": ["acute lymphoblastic leukemia", "ALL"],
    "ex:met": ["Met"],
    "ex:number": ["2024", "-"],
    "ex:code": ["mn", "new"],
}


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return linker_of(tmp_path_factory.mktemp("kg") / "v1", COMPANIES)


def test_the_longest_name_on_token_boundaries_wins(linker: Linker) -> None:
    assert found(linker.link("Acme Bank of England, Acme Bank and Acme; Acmes, not Acmeville")) == [
        ("Acme Bank of England", "ex:acmeuk"),
        ("Acme Bank", "ex:acme"),
        ("Acme", "ex:acme"),
        ("Acmes", "ex:acme"),
    ]


def test_spans_are_those_of_the_original_text(linker: Linker) -> None:
    text = "x\N{SOFT HYPHEN}ß  CAFE\N{COMBINING ACUTE ACCENT}\r\nCRÈME GROUP’s"
    (link,) = linker.link(text)
    assert (link.id, text[link.start : link.end]) == ("ex:cafe", "CAFE\N{COMBINING ACUTE ACCENT}\r\nCRÈME GROUP")


def test_names_in_any_script_are_found(linker: Linker) -> None:
    assert found(linker.link("今日は東京に。 한국은행 and 👩‍🚀 Ventures 😀!")) == [
        ("東京", "ex:tokyo"),
        ("한국은행", "ex:tokyo"),
        ("👩‍🚀 Ventures", "ex:emoji"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all cells", []),
        ("ALL cells", ["ALL"]),
        ("METHODS AND ALL RESULTS", []),
        ("we met them", []),
        ("The Met opened", ["Met"]),
        ("in 2024 -", []),
        ("a new 5 mn loan", []),
    ],
)
def test_short_names_insist_on_their_letter_case(linker: Linker, text: str, expected: list[str]) -> None:
    assert [link.text for link in linker.link(text)] == expected


def test_plurals_and_possessives_are_found(tmp_path: Path) -> None:
    linker = linker_of(
        tmp_path / "v1",
        {"a": ["mortgage loan"], "b": ["equities"], "c": ["Crohn's disease"], "d": ["box"], "e": ["MRI"]},
    )
    text = "Mortgage loans, equity, Crohn disease, Crohn’s diseases, boxes and MRIs"
    assert [link.id for link in linker.link(text)] == ["a", "b", "c", "c", "d", "e"]


def test_a_name_is_never_hidden_by_a_plural_of_another(tmp_path: Path) -> None:
    linker = linker_of(tmp_path / "v1", {"a": ["bond"], "b": ["bonds"]})
    assert [link.id for link in linker.link("bonds bond")] == ["b", "a"]


def test_context_decides_between_entities_of_one_name(tmp_path: Path) -> None:
    linker = linker_of(
        tmp_path / "v1",
        {"ex:money": ["bank"], "ex:shore": ["bank"], "ex:loan": ["mortgage loan"]},
        definitions={"ex:shore": "sloping land beside a river"},
        triples=[("ex:money", "GRANTS", "ex:loan")],
        priors={("bank", "ex:money"): 0.5, ("bank", "ex:shore"): 0.5},
    )
    assert linker.link("The boat reached the bank of the river.")[0].id == "ex:shore"
    assert linker.link("The bank refused the mortgage.")[0].id == "ex:money"


def test_the_prior_decides_where_context_says_nothing(tmp_path: Path) -> None:
    linker = linker_of(tmp_path / "v1", {"a": ["bank"], "b": ["bank"]}, priors={("bank", "a"): 0.2, ("bank", "b"): 0.8})
    (link,) = linker.link("bank")
    assert [(c.id, c.entity) for c in link.candidates] == [("b", 1), ("a", 0)]
    assert [c.prior for c in link.candidates] == pytest.approx([0.8, 0.2], rel=1e-3)
    assert sum(c.score for c in link.candidates) == pytest.approx(1)


def test_a_mention_that_nothing_decides_is_nil_and_keeps_its_candidates(tmp_path: Path) -> None:
    names = {f"ex:{i}": ["Mercury"] for i in range(10)}
    linker = linker_of(tmp_path / "v1", names, priors={("Mercury", id): 0.1 for id in names})
    (link,) = linker.link("Mercury rises")
    assert (link.id, link.name, len(link.candidates)) == (None, None, 8)
    assert Linker.load(linker.snapshot, threshold=0.05).link("Mercury rises")[0].id == "ex:0"


def test_an_abbreviation_means_what_the_text_defines_it_as(tmp_path: Path) -> None:
    linker = linker_of(tmp_path / "v1", {"ex:bc": ["breast cancer"], "ex:canada": ["British Columbia", "BC"]})
    assert found(linker.link("BC is a place.")) == [("BC", "ex:canada")]
    assert found(linker.link("BC cells, from breast cancer (BC), grew.")) == [
        ("BC", "ex:bc"),
        ("breast cancer", "ex:bc"),
        ("BC", "ex:bc"),
    ]


def test_candidates_of_a_mention_need_no_text(linker: Linker) -> None:
    assert {candidate.id for candidate in linker.candidates(" Bank ")} == {"ex:bank", "ex:river"}
    assert linker.candidates("qqq zzz") == []


def test_a_mention_that_no_name_equals_has_candidates_that_are_spelt_alike(linker: Linker) -> None:
    assert linker.candidates("acute lymfoblastic leukemias")[0].id == "ex:all"


def test_spans_that_are_given_are_linked_one_by_one(linker: Linker) -> None:
    text = "Xé, Cafe\u0301 Crème Group (CCG), a bank, \r\n 👩‍🚀 Ventures; Acme Bank of England"
    links = linker.link(text)
    assert len(links) == 5
    assert linker.link_spans(text, [(link.start, link.end) for link in links]) == links
    within = text.index("Acme Bank")
    assert found(linker.link_spans(text, [(within, within + 9), (0, 2), (within, within + 4)])) == [
        ("Acme Bank", "ex:acme"),
        ("Xé", None),
        ("Acme", "ex:acme"),
    ]
    assert linker.link_spans(text, []) == []


def test_given_spans_know_the_context_and_the_abbreviations_of_the_text(tmp_path: Path) -> None:
    linker = linker_of(
        tmp_path / "v1",
        {"ex:money": ["bank"], "ex:shore": ["bank"], "ex:bc": ["breast cancer"], "ex:canada": ["BC"]},
        definitions={"ex:shore": "sloping land beside a river", "ex:money": "lends money"},
    )
    text = "Breast cancer (BC) at the bank of the river"
    (short, bank) = linker.link_spans(text, [(15, 17), (26, 30)])
    assert (short.id, bank.id) == ("ex:bc", "ex:shore")
    assert linker.link_spans("The bank lends money", [(4, 8)])[0].id == "ex:money"


def test_candidates_that_are_given_are_the_only_ones(tmp_path: Path) -> None:
    names = {"ex:jobs": ["Steve Jobs"], "ex:ballmer": ["Steve Ballmer"], "ex:apple": ["Apple"], "ex:fruit": ["Apple"]}
    linker = linker_of(tmp_path / "v1", names, triples=[("ex:jobs", "FOUNDED", "ex:apple")])
    text, spans = "Steve and Apple", [(0, 5), (10, 15)]
    steve, apple = linker.link_spans(text, spans, candidates=[["ex:ballmer", "ex:gone", "ex:jobs"], ["ex:fruit"]])
    assert [candidate.id for candidate in steve.candidates] == ["ex:jobs", "ex:ballmer"]
    assert all(candidate.score > 0 for candidate in steve.candidates)
    assert [candidate.id for candidate in apple.candidates] == ["ex:fruit"]
    none, apple = linker.link_spans(text, spans, candidates=[[], None])
    assert (none.id, none.candidates) == (None, ())
    assert apple == linker.link_spans(text, spans)[1]
    with pytest.raises(ValueError, match="candidates of 1 spans; expected those of 2"):
        linker.link_spans(text, spans, candidates=[[]])


@pytest.mark.parametrize("span", [(0, 0), (2, 1), (-1, 2), (3, 5)])
def test_a_span_that_is_not_in_the_text_is_refused(linker: Linker, span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not within the text, which has 4"):
        linker.link_spans("Acme", [span])


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"max_candidates": 0}])
def test_impossible_options_are_refused(linker: Linker, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Linker.load(linker.snapshot, **options)  # type: ignore[arg-type]


def test_an_empty_snapshot_links_nothing(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "v1", entities=[], aliases=[], triples=[])
    assert Linker.load(tmp_path / "v1").link("Acme Bank") == []


pieces = st.sampled_from([name for names in COMPANIES.values() for name in names])
texts = st.lists(
    st.one_of(pieces, pieces.map(str.upper), st.text(st.characters(codec=None, exclude_categories=()), max_size=6)),
    max_size=12,
).flatmap(lambda parts: st.sampled_from(["", " ", "\r\n", "\u0301 ", "\u200d"]).map(lambda glue: glue.join(parts)))


@settings(max_examples=400, deadline=None)
@given(text=texts)
def test_links_are_ordered_spans_of_any_unicode_text(linker: Linker, text: str) -> None:
    position = 0
    for link in linker.link(text):
        assert position <= link.start < link.end <= len(text)
        assert text[link.start : link.end] == link.text
        assert 0 <= link.confidence <= 1
        assert link.id in (None, link.candidates[0].id)
        assert [c.score for c in link.candidates] == sorted((c.score for c in link.candidates), reverse=True)
        assert all(linker.snapshot.ids[c.entity] == c.id and 0 <= c.score <= 1 for c in link.candidates)
        position = link.end


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(texts, max_size=6))
def test_a_batch_equals_its_texts_one_by_one(linker: Linker, batch: list[str]) -> None:
    fresh = Linker.load(linker.snapshot)
    assert linker.link_batch(batch) == [fresh.link(text) for text in batch]


@pytest.mark.parametrize("piece", ["a", "a ", "!", "Acme ", "(", "(AB) ", "acme bank (AB) ", "bank ", "\ud800", "東京"])
def test_a_megabyte_of_anything_takes_linear_time(linker: Linker, piece: str) -> None:
    began = time.process_time()
    linker.link(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 60  # at most 5 s here; quadratic work would take hours


@pytest.mark.parametrize(
    "text",
    ["a" * 200_000, "é" * 200_000, "Acme" + " " * 200_000 + "Bank", "Acme" + "'s" * 100_000 + " Bank"],
    ids=["word", "word in Unicode", "white space", "possessives"],
)
def test_nothing_of_a_long_text_stays_in_memory(linker: Linker, text: str) -> None:
    linker.link(text)  # what is loaded once
    tracemalloc.start()
    try:
        for number in range(2, 7):
            linker.link(once := text.replace(text[2], text[2] * number, 1))
            linker.link_spans(once, [(0, len(once))])
        stays, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stays < 2 * len(text)  # one of the five, ``once``, is still there


def test_the_links_of_the_sentences_on_file_stay_as_they_are(tmp_path: Path) -> None:
    """Golden output; rows are {"text", "links": [[text, id], …]}, entities are in the first row."""
    head, *rows = [json.loads(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    linker = linker_of(tmp_path / "v1", head["names"], definitions=head["definitions"], triples=head["triples"])
    for row in rows:
        assert [list(pair) for pair in found(linker.link(row["text"]))] == row["links"], row["text"]


def test_snapshot_objects_and_folders_load_alike(linker: Linker) -> None:
    text = "Acme Bank and the Café Crème Group"
    folder = linker.snapshot.path
    assert Linker.load(str(folder)).link(text) == Linker.load(Snapshot.load(folder)).link(text) == linker.link(text)
