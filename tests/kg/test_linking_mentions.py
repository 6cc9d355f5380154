"""What dictionaries miss: names said in other words, other spellings, and abbreviations that a text defines."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kg.linking import Linker
from kg.linking.abbreviations import find_abbreviations
from kg.linking.coherence import surroundings
from kg.linking.compile import substitutes
from kg.linking.fuzzy import FuzzyIndex, build_fuzzy
from kg.linking.tokens import name_key, tokens_of
from tests.builders import linker_of

DISEASES = {
    "d:bc": ["breast cancer", "breast carcinoma"],
    "d:oc": ["ovarian cancer"],
    "d:t2": ["Diabetes Mellitus, Type 2"],
    "d:crohn": ["Crohn's disease"],
    "d:anemia": ["anemia"],
    "d:rf": ["renal failure", "kidney failure"],
    "d:rd": ["renal disease", "kidney disease"],
    "d:stone": ["kidney stone"],
    "c:il2": ["IL-2"],
    "c:blocker": ["beta blocker"],
    "c:all": ["ALL"],
    "d:moody": ["Moody's"],
}


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return linker_of(tmp_path_factory.mktemp("kg") / "v1", DISEASES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a carcinoma of the breast grew", [("carcinoma of the breast", "d:bc")]),
        ("cancer of breast", [("cancer of breast", "d:bc")]),
        ("breast and ovarian cancer", [("breast", "d:bc"), ("ovarian cancer", "d:oc")]),
        ("breast or ovarian cancers", [("breast", "d:bc"), ("ovarian cancers", "d:oc")]),
        ("ovarian and heart cancer", []),
        ("type II diabetes mellitus", [("type II diabetes mellitus", "d:t2")]),
        ("diabetes mellitus, type 2", [("diabetes mellitus, type 2", "d:t2")]),
        ("anaemias", [("anaemias", "d:anemia")]),
        ("β-blockers", [("β-blockers", "c:blocker")]),
        ("IL2, IL 2, il-2", [("IL2", "c:il2"), ("IL 2", "c:il2")]),
        ("we all saw ALL", [("ALL", "c:all")]),
        ("Crohn disease's signs", [("Crohn disease", "d:crohn")]),
        ("Moody's said", [("Moody's", "d:moody")]),
        ("breast cancer's", [("breast cancer", "d:bc")]),
        ("breast. Cancer", []),
    ],
)
def test_names_are_found_as_texts_say_them(linker: Linker, text: str, expected: list[tuple[str, str]]) -> None:
    assert [(link.text, link.id) for link in linker.link(text)] == expected


@pytest.mark.parametrize(
    ("text", "short", "long"),
    [
        ("breast cancer (BC) grew", "BC", "breast cancer"),
        ("breast cancer [BC] grew", "BC", "breast cancer"),
        ("bipolar affective disorder (BPAD; manic depression)", "BPAD", "bipolar affective disorder"),
        ("attenuated adenomatous polyposis coli (AAPC)", "AAPC", "attenuated adenomatous polyposis coli"),
        ("disorders of the central nervous system (CNS)", "CNS", "central nervous system"),
        ("a loss of heterozygosity (LOH)", "LOH", "loss of heterozygosity"),
        ("5-fluorouracil (5-FU)", "5-FU", "5-fluorouracil"),
        ("in patients, tuberculosis (TB)", "TB", "tuberculosis"),
    ],
)
def test_abbreviations_stand_for_what_the_text_says(text: str, short: str, long: str) -> None:
    start, end = find_abbreviations(text)[short]
    assert text[start:end] == long


@pytest.mark.parametrize("text", ["he left (see below)", "two (2) of them", "It ended. Bonds (BC) fell", "(BC)"])
def test_what_is_only_in_parentheses_is_no_abbreviation(text: str) -> None:
    assert find_abbreviations(text) == {}


def test_eight_times_the_abbreviations_take_no_more_than_their_share_of_time(linker: Linker) -> None:
    signs = [chr(code) for code in range(0x2600, 0x2600 + 200)]
    took = []
    for number in (25, 200):
        text = " ".join(f"breast cancer (B{one}{other}C)" for one in signs for other in signs[:number])
        began = time.process_time()
        assert {link.id for link in linker.link(text)} == {"d:bc"}
        took.append(time.process_time() - began)
    assert took[1] < 20 * took[0]  # with a search of the whole text for each of them 35 and more


def test_words_that_names_of_one_entity_exchange_stand_for_each_other(linker: Linker) -> None:
    found = substitutes(
        ["renal failure", "kidney failure", "renal disease", "kidney disease", "renal gout"], [0, 0, 1, 1, 2]
    )
    assert found["kidney"] == [("renal", 1.0)]
    assert found["renal"] == [("kidney", pytest.approx(2 / 3, abs=1e-4))]
    assert linker.candidates("renal stone")[0].id == "d:stone"


KEYS = st.text("abcdef ", min_size=3, max_size=12).map(name_key).filter(bool)


@given(st.lists(KEYS, min_size=1, max_size=30, unique=True))
def test_the_name_itself_is_the_one_spelt_most_like_it(keys: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build_fuzzy(keys, Path(folder))
        index = FuzzyIndex(Path(folder), len(keys))
        for number, key in enumerate(keys):
            found, scores = index.search(key, len(keys))
            assert [index.likeness(key, keys[other]) for other in found[:2]] == pytest.approx(scores[:2], abs=0.05)
            assert all(0 <= score <= 1 for score in scores)
            if len(found):  # where all names have the same n-grams none tells anything
                assert scores[list(found).index(number)] >= scores.max() - 0.02  # weights are rounded


def closeness(triples: list[tuple[int, int]], num_entities: int, one: int, other: int) -> float:
    rows = np.array([(head, 0, tail) for head, tail in triples], np.int32).reshape(-1, 3)
    found = surroundings(rows, num_entities)
    vectors = np.zeros((num_entities, num_entities))
    for entity in range(num_entities):
        at = slice(int(found["near_offsets"][entity]), int(found["near_offsets"][entity + 1]))
        vectors[entity, found["near_entities"][at]] = found["near_weights"][at] / 255
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.02)
    return float(vectors[one] @ vectors[other])


def test_entities_are_closer_the_fewer_steps_and_the_fewer_others_are_between_them() -> None:
    chain = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    near = [closeness(chain, 6, 0, other) for other in range(6)]
    assert near[0] == pytest.approx(1, abs=0.02)
    assert near[0] > near[1] > near[2] > near[3]
    shared, hub = [(0, 2), (1, 2)], [(0, 2), (1, 2), *((other, 2) for other in range(3, 60))]
    assert closeness(shared, 60, 0, 1) > closeness(hub, 60, 0, 1) > 0
    assert closeness([], 3, 0, 1) == 0


def test_an_accent_alone_touches_the_word_that_it_stands_on() -> None:
    assert tokens_of("cafe\u0301 noir").words_at(4, 5) == (0, 1)
    assert tokens_of("000000\u20d0").words_at(6, 7) == (0, 1)
    assert tokens_of("\u20d0 noir").words_at(0, 1) == (0, 0)


@given(st.text(max_size=60), st.data())
def test_words_at_a_span_are_those_that_it_touches(text: str, data: st.DataObject) -> None:
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    tokens = tokens_of(text)
    first, last = tokens.words_at(start, end)
    touched = [
        i for i in range(len(tokens.words)) if tokens.span(i, i + 1)[0] < end and tokens.span(i, i + 1)[1] > start
    ]
    assert list(range(first, last)) == touched or not touched
