"""Texts with gold links, one JSON line each, plain or gzipped."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from models.examples import expecting, read_lines

Mention: TypeAlias = tuple[int, int, tuple[str, ...]]
"""Start, end (code points) and the ids that are right; none for NIL."""


@dataclass(frozen=True)
class GoldText:
    """A text and what it mentions."""

    id: str
    text: str
    mentions: tuple[Mention, ...]
    candidates: tuple[tuple[str, ...] | None, ...] | None = None
    """Ids that alone each mention may denote, the likeliest first, where they are known."""


def read_gold(file: Path) -> Iterator[GoldText]:
    """Lines ``{"id", "text", "mentions": [{"start", "end", "ids"}]}``; ids are CURIEs, offsets code points.

    A mention may have ``candidates``, too: ids, as ``Linker.link_spans`` takes them.

    Raises:
        InputError: naming file and line.
    """
    for number, line in enumerate(read_lines(file), 1):
        with expecting(file, '{"id", "text", "mentions": [{"start", "end", "ids"}]}', line=number):
            row = json.loads(line)
            mentions = tuple((m["start"], m["end"], tuple(m["ids"])) for m in row["mentions"])
            if not all(0 <= start < end <= len(row["text"]) for start, end, _ in mentions):
                raise ValueError("a mention lies outside of its text")
            given = tuple(None if (ids := m.get("candidates")) is None else tuple(ids) for m in row["mentions"])
            text = GoldText(str(row["id"]), row["text"], mentions, given)
        yield text
