import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_each_normal_code_point_knows_the_original_one(text: str) -> None:
    normal = normalise(text)
    for i, char in enumerate(normal.text):
        start, end = normal.span(i, i + 1)
        assert 0 <= start < end <= len(text)
        folded = normalise(text[start]).text
        assert char in folded or char == " "
        assert all(unicodedata.combining(mark) or mark > "\u2000" for mark in text[start + 1 : end])


@given(any_text)
def test_token_bounds_never_cut_a_code_point_in_two(text: str) -> None:
    normal = normalise(text)
    starts, ends = normal.token_bounds()
    assert len(ends) == len(normal.text) + 1
    spans = [normal.span(int(start), int(start) + 1)[0] for start in starts]
    assert spans == sorted(set(spans))


def test_tokens_are_words_single_signs_and_single_characters_of_unspaced_scripts() -> None:
    def tokens(text: str) -> list[str]:
        starts, ends = normalise(text).token_bounds()
        stops = [end for end in range(len(ends)) if ends[end]]
        return [text[start : min(stop for stop in stops if stop > start)] for start in starts.tolist()]

    assert tokens("il-2 (beta)") == ["il", "-", "2", "(", "beta", ")"]
    assert tokens("東京 हिन्दी") == ["東", "京", "हिन्दी"]


@pytest.mark.parametrize("piece", ["a", "é ", "e\u0301", "\ud800", " ", "ß", "\U0001f468\u200d"])
def test_time_is_linear_in_the_text(piece: str) -> None:
    began = time.process_time()
    normalise(piece * (1_000_000 // len(piece))).token_bounds()
    assert time.process_time() - began < 10  # about 0.1 s; anything quadratic takes hours
