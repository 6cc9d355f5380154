"""Anybody's own labelled examples: CSV, TSV, JSON lines or Parquet, plain or gzipped, with columns of any name."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from kg.errors import InputError
from models.examples import Example, Mention, Splits, format_of, read_csv, read_json_lines, stratified_split

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
PARTS: Mapping[str, str] = {
    **{name: name for name in Splits.PARTS},
    **dict.fromkeys(("valid", "val", "dev", "devel"), "validation"),
}
"""What splits are called: in a column ``split``, or as names of files in a folder."""


@checked(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Columns:
    """What the fields of an example are called; one that is not named is read where a column has its name."""

    id: str | None = None
    split: str | None = None
    """train, validation or test. Without it a tenth of the rows validates and a tenth tests, of each label."""
    text: str | None = None
    second: str | None = None
    label: str | None = None
    labels: str | None = None
    """A list, as JSON or with ``|`` between."""
    value: str | None = None
    words: str | None = None
    """A list, as JSON or with blanks between; ``tags``, IOB2, likewise."""
    tags: str | None = None
    head: str | None = None
    """``[start, end]`` of the head of a relation, or ``[start, end, entity]``; ``tail`` likewise."""
    tail: str | None = None
    answers: str | None = None
    """Words of the text, a list of them, pairs of where they start and them, or as SQuAD has it."""
    choices: str | None = None
    """A list; ``label`` then is one of them or its number, from 0."""
    target: str | None = None


def table(path: Path, columns: Columns | None = None) -> Splits:
    """The examples of a file, or of a folder with a file for each split.

    Raises:
        InputError: with file, line and column of what cannot be read.
    """
    columns = columns or Columns()
    if not path.is_dir():
        return _split(list(_examples(path, columns)))
    found = {file.name.split(".")[0]: file for file in sorted(path.iterdir()) if format_of(file) in FORMATS}
    files = [(PARTS[name], file) for name, file in found.items() if name in PARTS]
    if "train" not in found or "test" not in found:
        raise InputError(path, f"expected the files train and test, one of {', '.join(FORMATS)}; got {sorted(found)}")
    return _split([(part, ex) for part, file in files for _, ex in _examples(file, columns, prefix=f"{part}:")])


def _split(read: list[tuple[str | None, Example]]) -> Splits:
    """By what the rows say; else seeded, of each label, and so for what they leave out."""
    parts = {name: tuple(example for part, example in read if part == name) for name in Splits.PARTS}
    train, validation, test = parts["train"], parts["validation"], parts["test"]
    if read and read[0][0] is None:
        rest, test = _apart(tuple(example for _, example in read), 0.1)
        train, validation = _apart(rest, 1 / 9)
    elif not validation:
        train, validation = _apart(train, 0.1)
    return Splits(train=train, validation=validation, test=test)


def _apart(examples: tuple[Example, ...], share: float) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Hold out a share of each label; all that is asked of one text stays together, or it would leak."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.text or example.second, example)
    _, held = stratified_split(tuple(first.values()), share=share, seed=0)
    texts = {example.text or example.second for example in held}
    return (
        tuple(example for example in examples if (example.text or example.second) not in texts),
        tuple(example for example in examples if (example.text or example.second) in texts),
    )


def _examples(path: Path, columns: Columns, prefix: str = "") -> Iterator[tuple[str | None, Example]]:
    rows = list(_rows(path))
    # a line of JSON may leave out what has no value: its columns are those of all
    there = list(dict.fromkeys(column for _, row in rows for column in row))
    names = _named(path, columns, there) if rows else {}
    split_by = names.pop("split", None)
    ids: set[str] = set()
    for number, row in rows:
        given: dict[str, Any] = {}
        for field, column in names.items():
            value = row.get(column)
            if value is None or value == "":
                continue
            try:
                given[field] = _PARSERS.get(field, str)(value)
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise _wrong(path, number, column, f"expected {_SAID[field]}, got {str(value)[:60]!r}") from error
        part = None
        if split_by is not None:
            part = PARTS.get(str(row.get(split_by)).lower())
            if part is None:
                raise _wrong(path, number, split_by, f"expected {', '.join(PARTS)}, got {row.get(split_by)!r}")
        try:
            example = _example(given, prefix + str(number))
        except _Unfit as error:
            raise _wrong(path, number, names[error.field], error.said) from error
        if example.id in ids:
            raise _wrong(path, number, names["id"], f"{example.id!r} was there before; expected each once")
        ids.add(example.id)
        yield part, example


class _Unfit(Exception):
    """A field that does not fit the others of its row."""

    def __init__(self, field: str, said: str) -> None:
        self.field, self.said = field, said


def _example(given: dict[str, Any], id: str) -> Example:
    """What a row says, with what has to be looked up in its text."""
    words, tags = given.get("words", ()), given.get("tags", ())
    if tags and len(tags) != len(words):
        raise _Unfit("tags", f"expected one for each of the {len(words)} words, got {len(tags)}")
    text = given.get("text", " ".join(words))
    ends = [given.pop(side, None) for side in ("head", "tail")]
    pair = None
    if any(ends):
        if not all(end and 0 <= end[0] < end[1] <= len(text) for end in ends):
            side = "head" if ends[0] else "tail"
            raise _Unfit(side, f"expected head and tail, each [start, end] within the {len(text)} signs of the text")
        head, tail = (Mention(start=end[0], end=end[1], entity=end[2] if len(end) > 2 else None) for end in ends)
        if head.start < tail.end and tail.start < head.end:
            raise _Unfit("tail", f"expected it apart from the head, got {ends[1][:2]} over {ends[0][:2]}")
        pair = (head, tail)
    answers = []
    for start, said in given.pop("answers", ()):
        start = text.find(said) if start is None else start
        if start < 0 or text[start : start + len(said)] != said:
            raise _Unfit("answers", f"{said[:60]!r} does not stand there in the text")
        answers.append((start, said))
    choices, label = given.get("choices", ()), given.get("label")
    if choices and label not in choices:
        if not (label and label.isdigit() and int(label) < len(choices)):
            raise _Unfit(
                "label" if label else "choices",
                f"expected one of the {len(choices)} choices or its number, got {label!r}",
            )
        given["label"] = choices[int(label)]
    return Example(**{"id": id, **given, "text": text, "pair": pair, "answers": tuple(answers)})


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line, or row of a Parquet file, and its columns."""
    form = format_of(path)
    if form == ".jsonl":
        yield from read_json_lines(path, ())
        return
    if form in (".csv", ".tsv"):
        yield from read_csv(path)
        return
    if form != ".parquet":
        raise InputError(path, f"a table is one of {', '.join(FORMATS)}; this is {form!r}")
    try:
        with pq.ParquetFile(path) as file:
            yield from enumerate((row for batch in file.iter_batches() for row in batch.to_pylist()), 1)
    except (OSError, pa.ArrowException) as error:
        raise InputError(path, f"cannot be read: {error}") from error


def _named(path: Path, columns: Columns, there: Sequence[str]) -> dict[str, str]:
    """The column of each field that has one."""
    names = {}
    for field in fields(columns):
        asked = getattr(columns, field.name)
        if asked is not None and asked not in there:
            raise InputError(path, f"has no column {asked!r}, which columns.{field.name} names; it has {there}")
        if (asked or field.name) in there:
            names[field.name] = asked or field.name
    if "text" not in names and "words" not in names:
        raise InputError(path, f"has no column 'text'; name the one with the texts in columns.text, of {there}")
    return names


def _wrong(path: Path, line: int, column: str, said: str) -> InputError:
    return InputError(path, f"column {column!r}: {said}", line=line)


def _list(value: Any, between: str | None) -> tuple[str, ...]:
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else value.split(between)
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(str(one).strip() for one in value)


def _place(value: Any) -> tuple[Any, ...]:
    start, end, *entity = json.loads(value) if isinstance(value, str) else value
    return int(start), int(end), *entity[:1]


def _answers(value: Any) -> tuple[tuple[int | None, str], ...]:
    if isinstance(value, str):
        value = json.loads(value) if value[:1] in ("[", "{") else [value]
    if isinstance(value, Mapping):
        value = list(zip(value["answer_start"], value["text"], strict=True))
    return tuple((None, one) if isinstance(one, str) else (int(one[0]), str(one[1])) for one in value)


def _number(value: Any) -> float:
    number = float(value)
    if number - number != 0:
        raise ValueError  # no number, or infinite
    return number


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "value": _number,
    "labels": lambda value: _list(value, "|"),
    "choices": lambda value: _list(value, "|"),
    "words": lambda value: _list(value, None),
    "tags": lambda value: _list(value, None),
    "head": _place,
    "tail": _place,
    "answers": _answers,
}
_SAID: Mapping[str, str] = {
    "value": "a number",
    "labels": 'a list, ["a", "b"] or a|b',
    "choices": 'a list, ["a", "b"] or a|b',
    "words": 'a list, ["a", "b"] or a b',
    "tags": 'a list, ["O", "B-ORG"] or O B-ORG',
    "head": "[start, end] or [start, end, entity]",
    "tail": "[start, end] or [start, end, entity]",
    "answers": "words of the text, a list of them, or [[start, words], …]",
}
