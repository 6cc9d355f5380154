"""Lines of N-Triples to columns, a block of lines at a time: nothing is done line by line but the hash.

One form stands for a statement, whatever syntax it came in: the N-Triples line that pyoxigraph writes (one blank
between the terms, characters escaped only where they must be, language tags in small letters, no ``^^xsd:string``),
anonymous nodes under the names that ``ingest.blanks`` gives them. Its hash is the id of the statement.
"""

import re
from collections.abc import Callable, Sequence
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
Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
NEWLINE, BLANK, QUOTE, DOT, OPEN, CLOSE, BACKSLASH, UNDERSCORE, DELETE = b'\n ".<>\\_\x7f'

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
    ends = np.flatnonzero(at == NEWLINE)
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    blanks = np.append(np.flatnonzero(at == BLANK), (len(block), len(block)))
    blank = np.minimum(np.searchsorted(blanks, starts), len(blanks) - 2)
    quotes = np.append(np.flatnonzero(at == QUOTE), len(block))
    quote, past = np.searchsorted(quotes[:-1], starts), np.searchsorted(quotes[:-1], ends)
    return Lines(block, starts, ends, blanks[blank], blanks[blank + 1], past - quote, quotes[past - 1])


@dataclass(frozen=True)
class Terms:
    """The terms of lines, cut out."""

    subject: pa.DictionaryArray
    """IRIs without their brackets, anonymous nodes with their ``_:``."""
    predicate: pa.DictionaryArray
    object: pa.StringArray
    """Likewise; of a literal, what is between the quotation marks."""
    suffix: pa.DictionaryArray
    """What follows the text of a literal: ``@en``, ``^^<…>`` or nothing."""
    mark: Bytes
    """First character of the object."""

    def pick(self, mask: Mask) -> "Terms":
        where = pa.array(mask)
        subject, predicate, object_, suffix = (
            column.filter(where) for column in (self.subject, self.predicate, self.object, self.suffix)
        )
        return Terms(subject, predicate, object_, suffix, self.mark[mask])


def terms_of(lines: Lines) -> Terms:
    """Cut lines that are in the canonical form, or look like it."""
    block, start, end, first, second = lines.block, lines.start, lines.end, lines.first, lines.second
    at = np.frombuffer(block, np.uint8)
    mark = at[second + 1]
    literal, blank = mark == QUOTE, mark == UNDERSCORE
    bracket = (at[start] != UNDERSCORE).astype(np.int64)
    return Terms(
        _slices(block, start + bracket, first - bracket).dictionary_encode(),
        _slices(block, first + 2, second - 1).dictionary_encode(),
        _slices(block, second + 2 - blank, np.where(literal, lines.last_quote, end - 3 + blank)),
        _slices(block, np.where(literal, lines.last_quote + 1, end - 2), end - 2).dictionary_encode(),
        mark,
    )


def looks_canonical(lines: Lines) -> Mask:
    """True for lines with the shape of the canonical form, no escapes and no anonymous nodes."""
    block, start, end, first, second = lines.block, lines.start, lines.end, lines.first, lines.second
    at = np.frombuffer(block + b"    ", np.uint8)
    good: Mask = (second + 4 < end) & (at[start] == OPEN) & (at[end - 1] == DOT) & (at[end - 2] == BLANK)
    good &= (at[first - 1] == CLOSE) & (at[first + 1] == OPEN) & (at[second - 1] == CLOSE) & (first + 3 < second)
    named = (at[second + 1] == OPEN) & (at[end - 3] == CLOSE) & (lines.quotes == 0)
    good &= named | ((at[second + 1] == QUOTE) & (lines.quotes == 2))
    body = at[: len(block)]
    odd = np.flatnonzero(((body < BLANK) & (body != NEWLINE)) | (body == BACKSLASH) | (body == DELETE))
    wide = np.flatnonzero(body == 0xEF)
    noncharacter = (at[wide + 1] == 0xBF) & (at[wide + 2] >= 0xBE)  # U+FFFE and U+FFFF are escaped
    odd = np.concatenate((odd, wide[noncharacter]))
    good[np.searchsorted(start, odd, side="right") - 1] = False
    good[_not_utf8(lines)] = False
    return good


def is_canonical(terms: Terms) -> Mask:
    """True where the terms of lines that look canonical are such as pyoxigraph would write them; False when in doubt.

    A term that many lines share is looked at once.
    """
    good: Mask = _of_dictionary(terms.subject, _are_plain_iris) & _of_dictionary(terms.predicate, _are_plain_iris)
    good &= _of_dictionary(terms.suffix, lambda values: [_is_canonical_suffix(value) for value in values.to_pylist()])
    named = terms.mark == OPEN
    if named.any():
        good[named] &= _are_plain_iris(terms.object.filter(pa.array(named)))
    return good


def table_of(lines: Lines, terms: Terms, files: pa.DictionaryArray) -> pa.Table:
    """The columns of lines that are in the canonical form, escapes and named anonymous nodes included.

    Args:
        terms: those of the lines.
        files: what each line is from.
    """
    literal = terms.mark == QUOTE
    objects = terms.object
    if b"\\" in lines.block:
        escaped = pc.and_(pc.match_substring(objects, "\\"), pa.array(literal))
        texts = [_ESCAPE.sub(_unescape, text) for text in objects.filter(escaped).to_pylist()]
        objects = pc.replace_with_mask(objects, escaped, pa.array(texts, pa.string()))
    codes = terms.suffix.indices.to_numpy()
    said = [_suffix(suffix) for suffix in terms.suffix.dictionary.to_pylist()]
    kinds = np.where(literal, 2, terms.mark == UNDERSCORE).astype(np.int32)
    return pa.Table.from_arrays(
        [
            terms.subject,
            terms.predicate,
            objects,
            pa.DictionaryArray.from_arrays(kinds, pa.array(KINDS)),
            _coded([language for language, _ in said], codes, literal),
            _coded([datatype for _, datatype in said], codes, literal),
            _hashes(lines.block, lines.start, lines.end - 2),
            files,
        ],
        schema=COLUMNS,
    )


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
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    number: dict[str | None, int] = {value: place for place, value in enumerate(distinct)}
    place = np.array([number.get(value, -1) for value in values], np.int32)
    places = np.where(literal, place[codes], -1).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(places, mask=places < 0), pa.array(distinct, pa.string()))


def _of_dictionary(coded: pa.DictionaryArray, check: Callable[[pa.StringArray], Any]) -> Mask:
    """What ``check`` says of each value in the dictionary, for each row."""
    if not len(coded):
        return np.ones(0, bool)
    said: Mask = np.array(check(coded.dictionary), bool)[coded.indices.to_numpy()]
    return said


def _are_plain_iris(values: pa.StringArray) -> Mask:
    plain: Mask = pc.match_substring_regex(values, _PLAIN_IRI).to_numpy(zero_copy_only=False)
    return plain


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
