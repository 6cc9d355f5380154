"""What holds for any text: grouping changes nothing, and twice the text is twice the work."""

import json
import sys
from itertools import pairwise
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg.linking import Linker
from kg.linking.corpus import Chunk, link_chunk
from tests.builders import linker_of

NAMES = {
    "ex:bank": ["Acme Bank", "bank", "AB"],
    "ex:shore": ["bank", "shore"],
    "ex:cafe": ["Café Crème", "😀"],
    "ex:tokyo": ["東京"],
    "ex:a": ["a b a b a c"],
}


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    definitions = {"ex:bank": "lends money", "ex:shore": "land beside a river"}
    triples = [("ex:bank", "OWNS", "ex:cafe")]
    return linker_of(tmp_path_factory.mktemp("kg") / "v1", NAMES, definitions=definitions, triples=triples)


any_characters = st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=6)
pieces = st.one_of(
    st.sampled_from([name for names in NAMES.values() for name in names]),
    st.sampled_from([" ", "(AB) ", "Acme Bank (AB) ", "(", "\r\n", "\u0301", "\u200d", "a b ", "river ", "\ud800"]),
    any_characters,
)
texts = st.lists(pieces, min_size=1, max_size=5).map("".join)


@settings(max_examples=25, deadline=None)
@given(batch=st.lists(texts, min_size=100, max_size=100))
def test_a_batch_of_a_hundred_is_a_hundred_batches_of_one(linker: Linker, batch: list[str]) -> None:
    together = linker.link_batch(batch)
    assert together == [linker.link_batch([text])[0] for text in batch]
    lines = [json.dumps({"id": i, "text": text}).encode() + b"\n" for i, text in enumerate(batch)]
    rows = link_chunk(linker, Chunk("", 1, 0, b"".join(lines)), "utf-8").lines
    assert rows == b"".join(link_chunk(linker, Chunk("", 1, 0, line), "utf-8").lines for line in lines)
    assert [[link["text"] for link in json.loads(row)["links"]] for row in rows.splitlines()] == [
        [link.text for link in links] for links in together
    ]


def work(linker: Linker, text: str) -> int:
    """Calls of functions, of Python and of C, that linking ``text`` takes."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        linker.link(text)
    finally:
        sys.setprofile(before)
    return calls


@settings(max_examples=80, deadline=None)
@given(piece=texts)
def test_twice_the_text_is_twice_the_work(linker: Linker, piece: str) -> None:
    once = piece * (4000 // len(piece))
    linker.link(once)  # what is looked up once is kept
    assert work(linker, once * 2) <= 2.1 * work(linker, once) + 500


@settings(max_examples=6, deadline=None)
@given(piece=texts)
def test_a_megabyte_of_any_text_is_linked(linker: Linker, piece: str) -> None:
    """Copying the rest of the text at every token, which counts no call, would take hours here."""
    text = piece * (1_000_000 // len(piece))
    links = linker.link(text)
    assert all(text[link.start : link.end] == link.text for link in links)
    assert all(first.end <= second.start for first, second in pairwise(links))


def test_the_measure_of_work_sees_what_is_not_linear(linker: Linker, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Linker.link

    def each_token_reads_all_of_the_text(self: Linker, text: str) -> list[object]:
        return [link(self, text) for _ in text.split()]

    monkeypatch.setattr(Linker, "link", each_token_reads_all_of_the_text)
    text = "Acme Bank " * 20
    assert work(linker, text * 2) > 3 * work(linker, text)
