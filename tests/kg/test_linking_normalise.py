import sys
import time
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kg.linking.tokens import name_key, tokens_of
from kg.normalise import normalise, normalise_name

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=80)


@pytest.mark.parametrize(
    "spellings",
    [
        ("Café", "CAFE\N{COMBINING ACUTE ACCENT}", "ｃａｆé"),
        ("Straße", "STRASSE"),
        ("Parkinson's", "Parkinson’s", "Parkinsonʼs"),
        ("beta-blocker", "beta–blocker", "beta\N{NON-BREAKING HYPHEN}blocker", "beta\N{SOFT HYPHEN}-blocker"),
        ("a b", "a \r\n\tb", "a\N{NO-BREAK SPACE}b", "a\0b"),
        ("İstanbul", "istanbul"),
        ("ﬁne", "FINE"),
    ],
)
def test_spellings_of_one_name_have_one_normal_form(spellings: tuple[str, ...]) -> None:
    assert len({normalise_name(spelling) for spelling in spellings}) == 1


def test_marks_that_carry_meaning_stay() -> None:
    assert normalise_name("हिन्दी") != normalise_name("हनद")
    assert normalise_name("が") != normalise_name("か")


def test_every_code_point_folds_to_a_fixed_point_that_has_a_utf8_form() -> None:
    every = "x".join(map(chr, range(sys.maxunicode + 1)))
    once = normalise(every).text
    assert normalise(once).text == once
    once.encode("utf-8")


@given(any_text)
@example("0\u1acf")
def test_each_normal_code_point_knows_the_original_one(text: str) -> None:
    normal = normalise(text)
    for i, char in enumerate(normal.text):
        start, end = normal.span(i, i + 1)
        assert 0 <= start < end <= len(text)
        folded = normalise(text[start]).text
        assert char in folded or char == " "
        for mark in text[start + 1 : end]:  # or what a later Unicode than Python's has in a block of marks
            assert unicodedata.category(mark) in ("Mn", "Me", "Cn")
            assert normalise(mark).text == ""


@given(any_text)
def test_token_bounds_never_cut_a_code_point_in_two(text: str) -> None:
    tokens = tokens_of(text)
    spans = [tokens.span(i, i + 1) for i in range(len(tokens.words))]
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert [tokens.words_at(*span) for span in spans] == [(i, i + 1) for i in range(len(spans))]


def test_tokens_are_words_single_signs_and_single_characters_of_unspaced_scripts() -> None:
    def surfaces(text: str) -> list[str]:
        tokens = tokens_of(text)
        return [tokens.surface(i, i + 1) for i in range(len(tokens.words))]

    assert surfaces("il-2's (beta - x)") == ["il", "2", "(", "beta", "-", "x", ")"]
    assert surfaces("東京 हिन्दी, ½") == ["東", "京", "हिन्दी", ",", "½"]


@pytest.mark.parametrize(
    "spellings",
    [
        ("tumour", "tumors", "Tumor"),
        ("Crohn's diseases", "Crohn disease", "Crohn’s disease"),
        ("beta-blocker", "β blockers", "beta blocker"),
        ("IL-2", "il 2", "IL2"),
        ("type II diabetes", "type 2 diabetes"),
        ("haemorrhages", "hemorrhage"),
        ("breast/ovarian", "breast-ovarian"),
        ("thromboses", "thrombosis"),
        ("sulphonamide", "sulfonamides"),
    ],
)
def test_ways_to_say_a_name_have_one_key(spellings: tuple[str, ...]) -> None:
    assert len({name_key(spelling) for spelling in spellings}) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("breast, cancer", "breast cancer"), ("type 1", "type 2"), ("virus", "viru")]
)
def test_what_differs_in_more_than_the_way_of_saying_has_two_keys(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


@pytest.mark.parametrize("piece", ["a", "é ", "e\u0301", "\ud800", " ", "ß", "\U0001f468\u200d"])
def test_time_is_linear_in_the_text(piece: str) -> None:
    began = time.process_time()
    tokens_of(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 10  # about 0.1 s; anything quadratic takes hours
