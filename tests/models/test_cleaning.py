"""Each cleaning step removes what it is for and leaves the rest, and says what it did."""

import random
from dataclasses import fields
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kg.errors import ConfigError
from models.cleaning import clean_sample, draw, near_duplicates, normalise, sentences
from models.training import Cleaning

OFF = {"unicode": False, "boilerplate": 0, "min_length": 1, "duplicates": False, "near_duplicates": 0.0}
WORDS = ["".join(letters) for letters in product("abcdefg", repeat=3)]


def cleaned(*documents: str, most: int = 1000, barred: tuple[str, ...] = (), **steps: Any) -> list[str]:
    """Sorted, as texts are drawn in any order."""
    return sorted(clean_sample(documents, Cleaning(**{**OFF, **steps}), most=most, barred=barred)[0])


def paragraph(seed: int, *, changed: int = 0) -> str:
    """Sixty random words, of which the last ``changed`` are others."""
    rng = random.Random(seed)
    words = rng.choices(WORDS, k=60)
    return " ".join([*words[: 60 - changed], *(f"other{seed}x{number}" for number in range(changed))])


def test_without_steps_the_lines_come_as_they_are() -> None:
    assert cleaned("one\n\n two \none", "one") == ["one", "one", "one", "two"]


def test_characters_are_written_in_one_way_and_invisible_ones_go() -> None:
    (text,) = normalise("ﬁnance\u200b Zu\u0308rich \x07schÃ¶n\u00a0x\u00ad “q” <b>")
    assert text == "finance Zürich schön x “q” <b>"


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_what_is_normal_stays_so(text: str) -> None:
    (once,) = normalise(text)
    (twice,) = normalise(once)
    assert "\x00" not in once
    assert twice == once


def test_lines_of_many_documents_go_whatever_their_numbers_and_the_others_stay() -> None:
    pages = [f"Text of document number {'abcdefghij'[n]}\nPage {n} of 12\nThe end" for n in range(10)]
    left = cleaned(*pages, boilerplate=3)
    assert [line for line in left if "Page" in line or "end" in line] == ["Page 0 of 12", "Page 1 of 12"] + 2 * [
        "The end"
    ]
    assert sum(line.startswith("Text of document") for line in left) == 10
    assert len(cleaned(*(f"Revenue was {n} million." for n in range(10)), boilerplate=3)) == 10  # no documents of lines


def test_texts_that_came_before_are_dropped() -> None:
    assert cleaned("one\ntwo", "two\nthree", "One", duplicates=True) == ["One", "one", "three", "two"]


def test_near_duplicates_are_found_and_different_texts_kept() -> None:
    step = near_duplicates(0.8)
    for seed in range(40):
        assert list(step(paragraph(seed)))
    found = [not list(step(paragraph(seed, changed=2))) for seed in range(40)]  # 56 of 60 triples in common: 0.93
    assert sum(found) >= 38
    assert not list(step(paragraph(0).upper().replace(" ", "  ")))
    assert all(list(step(paragraph(seed, changed=25))) for seed in range(40))  # 33 of 83: 0.40
    few = [f"Shares of the company that we call {name} rose by five percent on Monday." for name in WORDS[:20]]
    assert all(list(step(text)) for text in few)  # each says another thing


def test_a_tested_text_and_its_near_duplicates_never_get_through() -> None:
    tested = paragraph(1)
    documents = (tested, tested + "\u200b", paragraph(1, changed=1), paragraph(2))
    assert cleaned(*documents, unicode=True, near_duplicates=0.8, barred=(tested,)) == [paragraph(2)]
    assert cleaned(*documents, unicode=True, barred=(tested,)) == sorted([paragraph(1, changed=1), paragraph(2)])
    assert tested not in cleaned(*documents, barred=(tested,))


def test_other_languages_are_dropped() -> None:
    english = "The company reported higher revenue in the third quarter of the year."
    german = "Das Unternehmen hat im dritten Quartal des Jahres einen höheren Umsatz erzielt."
    assert cleaned(english, german, "Umsatz", language="en") == [english, "Umsatz"]
    assert cleaned(english, german, language="de") == [german]
    with pytest.raises(ConfigError, match="cleaning.language is 'xx'; known are .*de.*en"):
        cleaned("text", language="xx")


def test_for_bags_of_words_numbers_become_one_and_stop_words_go() -> None:
    text = "The revenue of 1,250.5 million was up by 7 in 2019."
    assert cleaned(text, mask_numbers=True) == ["The revenue of 0 million was up by 0 in 0."]
    assert cleaned(text, "of the", drop_stop_words=True) == ["revenue 1,250.5 million 7 2019."]


def test_sentences_end_at_stops_that_are_no_abbreviations() -> None:
    text = (
        'Mr. Lee of Acme Inc. ("Acme") paid $5.5 million. In the U.S. No. 7 fell! "Why?" she asked. See Sec. 4.2 there.'
    )
    assert list(sentences(text)) == [
        'Mr. Lee of Acme Inc. ("Acme") paid $5.5 million.',
        "In the U.S. No. 7 fell!",
        '"Why?" she asked.',
        "See Sec. 4.2 there.",
    ]


@given(st.text(st.sampled_from('ab AB.!?"1\n')))
def test_splitting_loses_nothing_but_blanks(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_a_sample_is_even_repeatable_and_no_larger_than_asked() -> None:
    texts = [str(number) for number in range(1000)]
    drawn = draw(texts, 200)
    assert drawn == draw(iter(texts), 200)
    assert len(set(drawn)) == 200
    assert 400 < sum(map(int, drawn)) / 200 < 600
    assert drawn != sorted(drawn, key=int)
    assert sorted(draw(texts[:5], 200)) == texts[:5]
    assert draw(texts, 0) == []
    kept, _ = clean_sample((f"text number {n} of many that differ" for n in range(100)), Cleaning(), most=7)
    assert len(kept) == 7


def test_the_report_follows_the_texts_from_step_to_step() -> None:
    page = "Contents\n{}\nshort"
    documents = [page.format(f"{paragraph(seed % 8)}") for seed in range(12)]
    _, counts = clean_sample(documents, Cleaning(), most=100)
    steps = [row["step"] for row in counts]
    assert steps == ["unicode", "boilerplate", "lines", "min_length", "of the tasks", "duplicates", "near_duplicates"]
    assert [row["texts_out"] for row in counts] == [12, 12, 30, 12, 12, 8, 8]
    for before, after in pairwise(counts):
        assert after["texts_in"] == before["texts_out"]
        assert after["characters_in"] == before["characters_out"]
    assert all(row["seconds"] >= 0 for row in counts)


def test_steps_that_are_off_do_not_run() -> None:
    _, counts = clean_sample(["a text"], Cleaning(**OFF), most=9)
    assert [row["step"] for row in counts] == ["lines", "min_length", "of the tasks"]
    assert {field.name for field in fields(Cleaning)} >= set(OFF)


def test_a_threshold_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="near_duplicates is 1.5"):
        Cleaning(near_duplicates=1.5)
