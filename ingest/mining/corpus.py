"""Sentences of a corpus, a line in memory at a time."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ingest.compression import MAX_LINE, TOO_LONG, numbered, unpacked_name
from ingest.sources.reading import parse_json
from kg.errors import InputError

SUFFIXES = (".txt", ".jsonl")
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z\"'(\[])")
_LETTERS = re.compile(r"\w[\w'’&-]*\w|\w|[^\w\s]")


class Sentence(NamedTuple):
    """A sentence, and where it is."""

    text: str
    document: str
    """File and line."""

    @property
    def tokens(self) -> list[str]:
        """Words, with hyphens in them, and punctuation."""
        return _LETTERS.findall(self.text)


def find_corpus(paths: Sequence[Path]) -> list[Path]:
    """The ``.txt`` and ``.jsonl`` files, also packed, among paths and in folders.

    Raises:
        InputError: a path has none.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder")
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        texts = [file for file in found if unpacked_name(file).suffix in SUFFIXES and not file.is_dir()]
        if not texts:
            raise InputError(path, f"holds no text; expected {' or '.join(SUFFIXES)}, plain or packed")
        files += texts
    return files


def sentences(files: Sequence[Path], advance: Callable[[int], None]) -> Iterator[Sentence]:
    """All sentences; ``.txt`` is text by the line, ``.jsonl`` has it under the key ``text``.

    Args:
        advance: told how many bytes have been read since it was told last.

    Raises:
        InputError: a file cannot be read, saying where.
    """
    for file in files:
        is_json = unpacked_name(file).suffix == ".jsonl"
        for number, line in numbered(file, advance=advance):
            if len(line) == MAX_LINE:
                raise InputError(file, TOO_LONG, line=number)
            try:
                text = parse_json(line)["text"] if is_json else line.decode("utf-8")
                blocks = text.splitlines()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                expected = "a JSON object with text" if is_json else "UTF-8"
                raise InputError(file, f"expected {expected} ({type(error).__name__}: {error})", line=number) from error
            for part in (part for block in blocks for part in _END.split(block)):
                if part.strip():
                    yield Sentence(" ".join(part.split()), f"{file.name}:{number}")
