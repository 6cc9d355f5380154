"""Labelled examples, their splits, and reading the files that they come in."""

import gzip
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kg.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A stretch of a text whose entity the data itself names."""

    start: int
    """First code point."""
    end: int
    """One past the last."""
    entity: str | None
    """CURIE, as in the graph; None where the data knows of none."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A text with what is to be predicted of it; which fields are filled depends on the kind of the task."""

    id: str
    text: str
    second: str = ""
    """What is put to the text: the hypothesis of an inference, the question about a passage."""
    label: str | None = None
    """The class of the text, of its pair with ``second``, of ``pair``; the right one of ``choices``."""
    labels: tuple[str, ...] = ()
    """All classes, where a text may have several or none."""
    value: float | None = None
    """The number of a regression."""
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """IOB2, one for each word."""
    pair: tuple[Mention, Mention] | None = None
    """Head and tail of the relation that ``label`` names."""
    answers: tuple[tuple[int, str], ...] = ()
    """First code point and words of each accepted answer in ``text``; none: the text does not say."""
    choices: tuple[str, ...] = ()
    target: str = ""
    """What is to be written."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The three parts of a task; nothing is tuned on ``test``."""

    PARTS: ClassVar = ("train", "validation", "test")

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


def stratified_split(
    examples: Sequence[Example], *, share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Keep ``1 - share`` and hold out ``share`` of each label (of all, where there are no labels), in given order."""
    by_label: dict[str | None, list[Example]] = {}
    for example in examples:
        by_label.setdefault(None if example.choices else example.label, []).append(example)
    held: set[str] = set()
    for label in sorted(by_label, key=str):
        ids = [example.id for example in by_label[label]]
        random.Random(f"{seed} {label}").shuffle(ids)  # noqa: S311
        held.update(ids[: round(share * len(ids))])
    return (
        tuple(example for example in examples if example.id not in held),
        tuple(example for example in examples if example.id in held),
    )


def read_lines(path: Path, *, encoding: str = "utf-8") -> Iterator[str]:
    """Lines of a file, plain or ``.gz``.

    Raises:
        InputError: it cannot be read.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding=encoding, newline="\n") as stream:
            for line in stream:
                yield line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(path, f"cannot be read: {error}") from error


def read_json_lines(path: Path, keys: Sequence[str]) -> Iterator[tuple[int, dict[str, object]]]:
    """Line number and content of each line, an object that has all of ``keys``."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(path, f"not JSON: {error}", line=number) from error
        if not isinstance(row, dict) or not row.keys() >= set(keys):
            raise InputError(path, f"expected an object with {', '.join(keys)}, got {line[:60]!r}", line=number)
        yield number, row
