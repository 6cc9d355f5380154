"""Labelled examples, their splits, and reading the files that they come in."""

import csv
import gzip
import json
import random
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, TypeAlias

import numpy as np

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


def whole(example: Example) -> str:
    """A text with what is put to it."""
    return f"{example.text}\n{example.second}" if example.second else example.text


Lengths: TypeAlias = tuple[float, float, int, int]
"""Words of a target whose text has none, more for each word of its text, and the fewest and most of any target."""


def lengths_of(examples: Sequence[Example]) -> Lengths:
    """How long targets are for their texts, by least squares."""
    texts, targets = np.array([[len(one.text.split()), len(one.target.split())] for one in examples], dtype=float).T
    spread = float(texts.var())
    share = float(((texts - texts.mean()) * targets).mean()) / spread if spread else 0.0
    return float(targets.mean() - share * texts.mean()), share, int(targets.min()), int(targets.max())


def target_words(text: str, lengths: Lengths) -> int:
    """Words that a target of this text is expected to have."""
    least, share, fewest, most = lengths
    return min(max(round(least + share * len(text.split())), fewest), most)


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


def apart(train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example]) -> Splits:
    """Splits without the training texts that are held out too, or validation texts of the test: they would leak."""
    tested, validated = ({squeezed(example.text) for example in part} for part in (test, validation))
    return Splits(
        train=tuple(example for example in train if squeezed(example.text) not in tested | validated),
        validation=tuple(example for example in validation if squeezed(example.text) not in tested),
        test=tuple(test),
    )


def hold_out(grouped: Sequence[tuple[str, Example]], *, share: float) -> tuple[list[tuple[str, Example]], ...]:
    """Keep ``1 - share`` of the groups and hold out the others, one at least, each with all its examples."""
    groups = sorted({group for group, _ in grouped})
    random.Random(f"groups {len(groups)}").shuffle(groups)  # noqa: S311
    held = set(groups[: max(1, round(share * len(groups)))])
    return [pair for pair in grouped if pair[0] not in held], [pair for pair in grouped if pair[0] in held]


def split_groups(grouped: Iterable[tuple[str, Example]], *, test: Sequence[Example] | None = None) -> Splits:
    """A fifth of the groups (contracts, chapters …) for the test, unless it is given; a tenth of the rest validates."""
    train = list(grouped)
    if test is None:
        train, held = hold_out(train, share=0.2)
        test = [example for _, example in held]
    train, validation = hold_out(train, share=0.1)
    return apart([example for _, example in train], [example for _, example in validation], test)


def squeezed(text: str) -> str:
    """Lower case, single blanks: as texts are compared."""
    return " ".join(text.casefold().split())


def tag_words(text: str, spans: Iterable[tuple[int, int, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of a text and their IOB2 tags; of spans (start, end, type) that overlap the first one counts."""
    spans = list(spans)
    words = [(match.group(), match.start()) for match in re.finditer(r"\w+|[^\w\s]", text)]
    tags = []
    last: tuple[int, int, str] | None = None
    for word, start in words:
        span = next((span for span in spans if span[0] < start + len(word) and start < span[1]), None)
        tags.append("O" if span is None else ("I-" if span is last else "B-") + span[2])
        last = span
    return tuple(word for word, _ in words), tuple(tags)


@contextmanager
def expecting(path: Path, form: str, *, line: int | None = None) -> Iterator[None]:
    """Say what was expected where malformed content makes the block fail.

    Raises:
        InputError: it did.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError) as error:
        raise InputError(path, f"expected {form} ({type(error).__name__}: {error})", line=line) from error


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        InputError: it cannot be read.
    """
    with expecting(path, "a JSON document"):
        return json.loads(path.read_text(encoding="utf-8"))


def format_of(path: Path) -> str:
    """What its name ends in, ``.gz`` aside."""
    return (path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix).lower()


def opened(path: Path, mode: str, **options: Any) -> IO[Any]:
    """A file, plain or ``.gz``, to be read."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    stream: IO[Any] = opener(path, mode, **options)
    return stream


def read_csv(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of the last line, and content, of each row below a header that has ``columns``; ``.tsv`` has tabs.

    Raises:
        InputError: it cannot be read, or a row has fewer fields than the header.
    """
    csv.field_size_limit(sys.maxsize)  # a contract is longer than the 131,072 characters that csv allows
    reader: csv.DictReader[str] | None = None
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t" if format_of(path) == ".tsv" else ",", strict=True)
            there = reader.fieldnames or ()
            for column in columns:
                if column not in there:
                    raise InputError(path, f"has no column {column!r}, only {', '.join(there)}", line=1)
            for row in reader:
                if None in row.values() or None in row:
                    raise InputError(path, f"expected {len(there)} fields", line=reader.line_num)
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(path, f"not CSV: {error}", line=reader.reader.line_num if reader else None) from error
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(path, f"cannot be read: {error}", line=reader.line_num + 1 if reader else None) from error


def read_lines(path: Path, *, encoding: str = "utf-8") -> Iterator[str]:
    """Lines of a file, plain or ``.gz``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with opened(path, "rt", encoding=encoding, newline="\n") as stream:
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
