"""Texts of a corpus of any size, one at a time: text, JSON lines, Parquet, CSV and HTML, and folders of them."""

import gzip
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow
import pyarrow.parquet
from selectolax.lexbor import LexborHTMLParser

from kg.errors import InputError
from models.examples import format_of, opened, read_csv, read_json_lines, read_lines

Reader: TypeAlias = Callable[[Path, str], Iterator[str]]


def read_corpus(path: Path, *, key: str = "text") -> Iterator[str]:
    """Documents of a file or of all files below a folder, by what their names end in; each also ``.gz``.

    ``.txt`` has one a line; ``.jsonl``, ``.csv``, ``.tsv`` and ``.parquet`` have one a row, in ``key``; ``.html`` is
    one. No more than one of them, or a part of a Parquet file, is in memory.

    Raises:
        InputError: a file cannot be read or has no ``key``; it names the file and the line.
    """
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if format_of(file) in READERS and file.is_file()]
        if not files:
            raise InputError(path, f"holds no corpus file; known are {_known()}, plain or .gz")
        for file in files:
            yield from read_corpus(file, key=key)
        return
    if format_of(path) not in READERS:
        raise InputError(path, f"a corpus is a folder or one of {_known()}, plain or .gz; this is {path.suffix!r}")
    for text in READERS[format_of(path)](path, key):
        if text.strip():
            yield text.strip()


def html_text(page: str) -> str:
    """What a page says, a line for each of its blocks; navigation, headers, footers and scripts are left out."""
    tree = LexborHTMLParser(page)
    for node in tree.css("head, script, style, noscript, template, nav, header, footer, aside, form, svg, iframe"):
        node.decompose()
    for node in tree.css(_BLOCKS):
        node.insert_before(_BREAK)
        node.insert_after(_BREAK)
    for node in tree.css("td, th"):
        node.insert_after(" ")
    text = tree.root.text() if tree.root else ""
    return "\n".join(line for block in text.split(_BREAK) if (line := " ".join(block.split())))


_BREAK = "\x1e"
_BLOCKS = (
    "address, article, blockquote, br, caption, dd, div, dl, dt, figcaption, figure, h1, h2, h3, h4, h5, h6, hr, li, "
    "main, ol, p, pre, section, table, tr, ul"
)


def _text(path: Path, _: str) -> Iterator[str]:
    return read_lines(path)


def _json_lines(path: Path, key: str) -> Iterator[str]:
    for number, row in read_json_lines(path, (key,)):
        yield _checked(row[key], path, key, number)


def _table(path: Path, key: str) -> Iterator[str]:
    return (row[key] for _, row in read_csv(path, (key,)))


def _parquet(path: Path, key: str) -> Iterator[str]:
    with _readable(path), tempfile.TemporaryFile() as unpacked:
        source: Any = path
        if path.suffix == ".gz":  # Parquet is read from its end
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, unpacked)
            source = unpacked
        file = pyarrow.parquet.ParquetFile(source)
        if key not in file.schema_arrow.names:
            raise InputError(path, f"has no column {key!r}, only {', '.join(file.schema_arrow.names)}")
        number = 0
        for batch in file.iter_batches(batch_size=64, columns=[key]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield _checked(value, path, key, number)


def _html(path: Path, _: str) -> Iterator[str]:
    with _readable(path):
        with opened(path, "rb") as stream:
            raw = stream.read()
        named = re.search(rb"charset=[\"']?([\w-]+)", raw[:2048])
        try:
            page = raw.decode(named[1].decode() if named else "utf-8")
        except LookupError as error:
            raise InputError(path, f"is in an encoding that is not known: {error}") from error
        yield html_text(page)


READERS: Mapping[str, Reader] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
    ".html": _html,
    ".htm": _html,
}


def _checked(value: object, path: Path, key: str, number: int) -> str:
    """A row without a text has none to give; anything that is no text is a mistake."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(path, f"expected a text in {key!r}, got {str(value)[:60]!r}", line=number)
    return value


def _known() -> str:
    return ", ".join(READERS)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise InputError(path, f"cannot be read: {str(error).splitlines()[0]}") from error
