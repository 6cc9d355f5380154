"""Lines of N-Triples to columns, a block of lines at a time: nothing is done line by line but the hash.

One form stands for a statement, whatever syntax it came in: the N-Triples line that pyoxigraph writes (one blank
between the terms, characters escaped only where they must be, language tags in small letters, no ``^^xsd:string``),
anonymous nodes under the names that ``ingest.parser`` gives them. Its hash is the id of the statement.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyoxigraph as ox

XSD_STRING = "http://www.w3.org/2001/XMLSchema#string"
KINDS = ("iri", "blank", "literal")
CODED = pa.dictionary(pa.int32(), pa.string())
COLUMNS = pa.schema(
    [
        ("subject", CODED),
        ("predicate", CODED),
        ("object", pa.string()),
        ("kind", CODED),
        ("language", CODED),
        ("datatype", CODED),
        ("sid", pa.binary(16)),
        ("file", CODED),
    ]
)
"""What ``table_of`` gives."""

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@\-\x{A0}-\x{D7FF}\x{F900}-\x{FDCF}\x{FDF0}-\x{FFEF}]|%[0-9A-Fa-f]{2})"
_PLAIN_IRI = (
    r"^[A-Za-z][A-Za-z0-9+.\-]*:"
    rf"(?://[A-Za-z0-9._~\-]*(?::[0-9]*)?(?:/(?:{_PCHAR}|/)*)?|{_PCHAR}(?:{_PCHAR}|/)*)"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?$"
)
"""A part of RFC 3987 that pyoxigraph takes as it is; the rest (IPv6, user names, …) it is asked about."""
_ESCAPE = re.compile(r"\\(?:u([0-9A-F]{4})|U([0-9A-F]{8})|(.))")
_SHORT = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True)
class Lines:
    """Lines in a block, by where their terms are; all positions are counted from the block's begin."""

    block: bytes
    start: Numbers
    end: Numbers
    """Where each line ends, its newline not counted."""
    first: Numbers
    """Its first blank."""
    second: Numbers
    """Its second blank: the object begins after it."""
    quotes: Numbers
    """How many quotation marks it has."""
    last_quote: Numbers
    """The last of them, where there is one."""

    def __len__(self) -> int:
        return len(self.start)

    def pick(self, mask: Mask) -> "Lines":
        columns = (self.start, self.end, self.first, self.second, self.quotes, self.last_quote)
        return Lines(self.block, *(column[mask] for column in columns))


def lines_of(block: bytes) -> Lines:
    """The lines of a block; positions of blanks are of no use in lines that have less than two of them."""
    at = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(at == 0x0A)
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    blanks = np.append(np.flatnonzero(at == 0x20), (len(block), len(block)))
    blank = np.minimum(np.searchsorted(blanks, starts), len(blanks) - 2)
    quotes = np.append(np.flatnonzero(at == 0x22), len(block))
    quote, past = np.searchsorted(quotes[:-1], starts), np.searchsorted(quotes[:-1], ends)
    return Lines(block, starts, ends, blanks[blank], blanks[blank + 1], past - quote, quotes[past - 1])


def is_canonical(lines: Lines) -> Mask:
    """True for lines that are in the canonical form and name no anonymous node; False when in doubt."""
    block, start, end, first, second = lines.block, lines.start, lines.end, lines.first, lines.second
    at = np.frombuffer(block + b"    ", np.uint8)
    good = (second + 4 < end) & (at[start] == 0x3C) & (at[end - 1] == 0x2E) & (at[end - 2] == 0x20)
    good &= (at[first - 1] == 0x3E) & (at[first + 1] == 0x3C) & (at[second - 1] == 0x3E) & (first + 3 < second)
    named = (at[second + 1] == 0x3C) & (at[end - 3] == 0x3E) & (lines.quotes == 0)
    literal = (at[second + 1] == 0x22) & (lines.quotes == 2)
    good &= named | literal
    body = at[: len(block)]
    odd = np.flatnonzero(((body < 0x20) & (body != 0x0A)) | (body == 0x5C) | (body == 0x7F))
    if b"\xef\xbf\xbe" in block or b"\xef\xbf\xbf" in block:  # U+FFFE and U+FFFF are escaped
        odd = np.concatenate((odd, [match.start() for match in re.finditer(rb"\xef\xbf[\xbe\xbf]", block)]))
    good[np.searchsorted(start, odd, side="right") - 1] = False
    good[_not_utf8(lines)] = False
    if not good.any():
        return good
    # Terms are looked at once for all lines that have them.
    rows = np.flatnonzero(good)
    kept = lines.pick(good)
    for values in (
        _slices(block, kept.start + 1, kept.first - 1),
        _slices(block, kept.first + 2, kept.second - 1),
    ):
        coded = values.dictionary_encode()
        fine = pc.match_substring_regex(coded.dictionary, _PLAIN_IRI).to_numpy(zero_copy_only=False)
        good[rows[~fine[coded.indices.to_numpy()]]] = False
    iris = named[rows]
    if iris.any():
        objects = _slices(block, kept.second[iris] + 2, kept.end[iris] - 3)
        fine = pc.match_substring_regex(objects, _PLAIN_IRI).to_numpy(zero_copy_only=False)
        good[rows[iris][~fine]] = False
    if not iris.all():
        coded = _slices(block, kept.last_quote[~iris] + 1, kept.end[~iris] - 2).dictionary_encode()
        fine = np.array([_is_canonical_suffix(suffix) for suffix in coded.dictionary.to_pylist()], bool)
        good[rows[~iris][~fine[coded.indices.to_numpy()]]] = False
    return good


def table_of(lines: Lines, files: pa.DictionaryArray) -> pa.Table:
    """The columns of lines that are in the canonical form, escapes and named anonymous nodes included.

    Args:
        files: what each line is from.
    """
    block, start, end, first, second = lines.block, lines.start, lines.end, lines.first, lines.second
    at = np.frombuffer(block, np.uint8)
    mark = at[second + 1]
    literal, blank = mark == 0x22, mark == 0x5F
    subject = np.where(at[start] == 0x5F, 0, 1)
    from_ = second + np.where(blank, 1, 2)
    to = np.where(literal, lines.last_quote, end - np.where(blank, 2, 3))
    objects = _slices(block, from_, to)
    escaped = _with_backslash(at, from_, to)
    if escaped.any():
        texts = [_ESCAPE.sub(_unescape, text) for text in objects.filter(pa.array(escaped)).to_pylist()]
        objects = pc.replace_with_mask(objects, pa.array(escaped), pa.array(texts, pa.string()))
    suffixes = _slices(block, np.where(literal, lines.last_quote + 1, end - 2), end - 2).dictionary_encode()
    codes = suffixes.indices.to_numpy()
    said = [_suffix(suffix) for suffix in suffixes.dictionary.to_pylist()]
    return pa.Table.from_arrays(
        [
            _slices(block, start + subject, first - subject).dictionary_encode(),
            _slices(block, first + 2, second - 1).dictionary_encode(),
            objects,
            pa.DictionaryArray.from_arrays(np.where(literal, 2, blank).astype(np.int32), pa.array(KINDS)),
            _coded([language for language, _ in said], codes, literal),
            _coded([datatype for _, datatype in said], codes, literal),
            _hashes(block, start, end - 2),
            files,
        ],
        schema=COLUMNS,
    )


def statement_id(line: bytes) -> bytes:
    """The id of the statement that a canonical line (without its closing dot) makes."""
    return blake2b(line, digest_size=16).digest()


def _slices(block: bytes, from_: Numbers, to: Numbers) -> pa.StringArray:
    """``block[from_[i]:to[i]]`` for each i; the slices are in order and do not overlap."""
    if not len(from_):
        return pa.array([], pa.string())
    offsets = np.empty(2 * len(from_), np.int32)
    offsets[::2], offsets[1::2] = from_, to
    with_gaps = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(block))
    return with_gaps.take(pa.array(np.arange(0, len(offsets) - 1, 2)))


def _hashes(block: bytes, from_: Numbers, to: Numbers) -> pa.FixedSizeBinaryArray:
    digests = [blake2b(block[a:b], digest_size=16).digest() for a, b in zip(from_.tolist(), to.tolist(), strict=True)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digests), [None, pa.py_buffer(b"".join(digests))])


def _coded(values: Sequence[str | None], codes: Numbers, literal: Mask) -> pa.DictionaryArray:
    """``values[code]`` where the object is a literal, else null; each value is in the dictionary once."""
    distinct = sorted({value for value in values if value is not None})
    place = np.array([-1 if value is None else distinct.index(value) for value in values], np.int32)
    places = np.where(literal, place[codes], -1).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(places, mask=places < 0), pa.array(distinct, pa.string()))


def _with_backslash(at: np.ndarray[Any, np.dtype[np.uint8]], from_: Numbers, to: Numbers) -> Mask:
    slashes = np.flatnonzero(at == 0x5C)
    return np.searchsorted(slashes, from_) < np.searchsorted(slashes, to)


def _unescape(match: re.Match[str]) -> str:
    short, long, one = match.groups()
    return chr(int(short or long, 16)) if one is None else _SHORT.get(one, one)


def _not_utf8(lines: Lines) -> list[int]:
    """Numbers of the lines that are not UTF-8."""
    try:
        whole = pa.py_buffer(np.array([0, len(lines.block)], np.int32))
        pa.StringArray.from_buffers(1, whole, pa.py_buffer(lines.block)).validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return []
    bad = []
    for number, (start, end) in enumerate(zip(lines.start.tolist(), lines.end.tolist(), strict=True)):
        try:
            lines.block[start:end].decode()
        except UnicodeDecodeError:
            bad.append(number)
    return bad


@lru_cache(maxsize=10_000)
def _is_canonical_suffix(suffix: str) -> bool:
    """True when pyoxigraph writes what follows a literal (``@en``, ``^^<…>``, nothing) as it reads it."""
    line = f'<x:> <x:> ""{suffix} .'
    try:
        (quad,) = ox.parse(line, format=ox.RdfFormat.N_TRIPLES)
    except (SyntaxError, ValueError):
        return False
    return f"{quad.triple} ." == line


@lru_cache(maxsize=10_000)
def _suffix(suffix: str) -> tuple[str | None, str | None]:
    """Language and datatype."""
    if suffix.startswith("@"):
        return suffix[1:], None
    return None, suffix[3:-1] if suffix else XSD_STRING
