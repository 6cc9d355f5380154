"""Offsets in each unit: what other languages would cut out at them is the mention."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg.__main__ import main
from kg.linking import Linker
from kg.linking.offsets import OffsetUnit, links_as_json
from tests.builders import tiny_snapshot

NAMES = ("Acme Bank", "Café Crème", "😀 Ventures", "東京", "بنك القاهرة", "בנק לאומי", "नमस्ते")


MARKED = "Cafe\u0301 Cre\u0300me"


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


CUT: dict[OffsetUnit, Callable[[str, int, int], str]] = {
    "code-point": lambda text, start, end: text[start:end],
    "utf-16": lambda text, start, end: utf16(text)[2 * start : 2 * end].decode("utf-16-le", "surrogatepass"),
    "utf-8": lambda text, start, end: text.encode("utf-8", "surrogatepass")[start:end].decode("utf-8", "surrogatepass"),
}
"""What ``text[start:end]`` is in Python, ``text.slice(start, end)`` in JavaScript, and a slice of bytes in Go."""


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return Linker.load(tiny_snapshot(tmp_path_factory.mktemp("kg") / "v1", names=NAMES, triples=()))


@pytest.mark.parametrize(
    ("text", "mention", "expected"),
    [
        ("In Acme Bank.", "Acme Bank", {"code-point": (3, 12), "utf-16": (3, 12), "utf-8": (3, 12)}),
        ("👩‍🚀🏽 Acme Bank", "Acme Bank", {"code-point": (5, 14), "utf-16": (8, 17), "utf-8": (16, 25)}),
        ("é 😀 Ventures", "😀 Ventures", {"code-point": (2, 12), "utf-16": (2, 13), "utf-8": (3, 16)}),
        ("e\u0301 Cafe\u0301 Cre\u0300me", MARKED, {"code-point": (3, 15), "utf-16": (3, 15), "utf-8": (4, 18)}),
        ("في بنك القاهرة", "بنك القاهرة", {"code-point": (3, 14), "utf-16": (3, 14), "utf-8": (5, 26)}),
        ("\u200fבנק לאומי\u200f", "בנק לאומי", {"code-point": (1, 10), "utf-16": (1, 10), "utf-8": (3, 20)}),
        ("a\r\nb\r\nAcme\r\nBank", "Acme\r\nBank", {"code-point": (6, 16), "utf-16": (6, 16), "utf-8": (6, 16)}),
        ("\r\n東京に", "東京", {"code-point": (2, 4), "utf-16": (2, 4), "utf-8": (2, 8)}),
        ("\ud83d 東京", "東京", {"code-point": (2, 4), "utf-16": (2, 4), "utf-8": (4, 10)}),
    ],
    ids=["ASCII", "joined emoji", "emoji in a name", "marks", "Arabic", "Hebrew", "CRLF", "CJK", "half a pair"],
)  # fmt: skip
def test_each_unit_counts_what_its_language_counts(
    linker: Linker, text: str, mention: str, expected: dict[OffsetUnit, tuple[int, int]]
) -> None:
    for unit, span in expected.items():
        (link,) = links_as_json(text, linker.link(text), unit)
        assert ((link["start"], link["end"]), link["text"]) == (span, mention)
        assert CUT[unit](text, *span) == mention


pieces = st.one_of(
    st.sampled_from([*NAMES, "acme banks", "\r\n", "\u0301", "\u200d", "🏽", "\u202e", "\ud83d", "\udc00", "\0"]),
    st.text(st.characters(codec=None, exclude_categories=()), max_size=8),
)
texts = st.lists(pieces, max_size=16).flatmap(
    lambda parts: st.sampled_from(["", " ", "\r\n", "\u0301 "]).map(lambda glue: glue.join(parts))
)


@settings(max_examples=500, deadline=None)
@given(text=texts, unit=st.sampled_from(sorted(CUT)))
def test_what_lies_between_start_and_end_is_the_mention_in_any_text(
    linker: Linker, text: str, unit: OffsetUnit
) -> None:
    links = linker.link(text)
    for link, row in zip(links, links_as_json(text, links, unit), strict=True):
        assert CUT[unit](text, int(str(row["start"])), int(str(row["end"]))) == row["text"] == link.text


def test_the_unit_is_an_option_of_the_command(
    linker: Linker, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ["--snapshot", str(linker.snapshot.path), "--offset-unit"]
    assert main(["link", "👩‍🚀 Acme Bank", *where, "utf-16", "--json"]) == 0
    (link,) = json.loads(capsys.readouterr().out)
    assert (link["start"], link["end"]) == (6, 15)
    assert main(["link", "👩‍🚀 Acme Bank", *where, "utf-8"]) == 0
    assert capsys.readouterr().out.startswith("12-21\t'Acme Bank'")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"id": 1, "text": "👩‍🚀 Acme Bank"}))
    assert main(["link", "--file", str(source), "--out", str(target), *where, "utf-16"]) == 0
    assert json.loads(target.read_text())["links"] == [link]
    assert main(["link", "--file", str(source), *where, "utf-16"]) == 0
    assert capsys.readouterr().out.endswith(target.read_text())
