"""Sentences of a corpus, a line in memory at a time."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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
    """The ``.txt`` and ``.jsonl`` files, also ``.gz``, among paths and in folders.

    Raises:
        InputError: there are none.
    """
    files = []
    for path in paths:
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        files += [file for file in found if file.name.removesuffix(".gz").endswith(SUFFIXES)]
        if not files:
            raise InputError(path, f"holds no text; expected {' or '.join(SUFFIXES)}, plain or .gz")
    return files


def sentences(files: Sequence[Path], advance: Callable[[int], None]) -> Iterator[Sentence]:
    """All sentences; ``.txt`` is text by the line, ``.jsonl`` has it under the key ``text``.

    Args:
        advance: told how many bytes have been read since it was told last.

    Raises:
        InputError: a file cannot be read, saying where.
    """
    for file in files:
        last = number = 0
        is_json = file.name.removesuffix(".gz").endswith(".jsonl")
        try:
            with file.open("rb") as raw, gzip.open(raw) if file.suffix == ".gz" else raw as stream:
                for number, line in enumerate(stream, 1):
                    text = json.loads(line)["text"] if is_json else line.decode("utf-8")
                    for part in (part for block in text.splitlines() for part in _END.split(block)):
                        if part.strip():
                            yield Sentence(" ".join(part.split()), f"{file.name}:{number}")
                    advance(raw.tell() - last)
                    last = raw.tell()
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(file, f"cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            expected = "a JSON object with text" if is_json else "UTF-8"
            raise InputError(file, f"expected {expected} ({type(error).__name__}: {error})", line=number) from error
