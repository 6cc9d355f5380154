"""Files of RDF to canonical statements: the work of the processes of ``ingest.rdf``; a crash takes nothing with it.

A chunk is some small files, one large one, or a range of a file of lines. Its statements go to segments: files of
Arrow with one batch for each part of the release, by a hash of the subject, and one for what anonymous nodes say.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyoxigraph as ox

from ingest.blanks import BATCH, NESTED, Loose, lines_of_files, named_blocks, without_loose
from ingest.compression import PACKED, UNPACKING_ERRORS, open_bytes, unpacked_name
from ingest.ntriples import is_canonical, lines_of, looks_canonical, terms_of
from ingest.screen import screen_xml
from ingest.segments import BLOCK, Chunk, Parsed, Spill
from kg.errors import InputError

MAX_MEMORY = 4 << 30
"""Address space of a worker in bytes."""
MAX_LINE = 8 << 20
"""Bytes of a line of N-Triples; longer ones are quarantined without being held."""
TOO_LONG = f"longer than {MAX_LINE >> 20} MiB"
MAX_TEXT = 200
"""Characters that are kept of a bad line."""
FORMATS = {
    ".ttl": ox.RdfFormat.TURTLE,
    ".nt": ox.RdfFormat.N_TRIPLES,
    ".nq": ox.RdfFormat.N_QUADS,
    ".trig": ox.RdfFormat.TRIG,
    ".rdf": ox.RdfFormat.RDF_XML,
    ".owl": ox.RdfFormat.RDF_XML,
    ".xml": ox.RdfFormat.RDF_XML,
    ".jsonld": ox.RdfFormat.JSON_LD,
}
LINES = (".nt", ".nq")
"""Endings of the formats with a statement a line: a bad line is quarantined, and the rest is read."""
PARSE_ERRORS = (SyntaxError, ValueError, MemoryError)
_PLACE = re.compile(r"^Parser error at line \d+ |\s*\(line \d+\)$")
Bad: TypeAlias = Callable[[int, str, bytes], None]
"""Is told the number of a line, what is wrong with it, and the line."""


def rdf_suffix(path: Path) -> str:
    """``.ttl`` of ``a.ttl`` and of ``a.ttl.gz``."""
    return unpacked_name(path).suffix.lower()


def parse_chunk(chunk: Chunk) -> Parsed:
    """Parse the files of a chunk into segments.

    Raises:
        InputError: a file cannot be read, is hostile, or does not parse (formats of lines go on after a bad line).
    """
    pa.set_cpu_count(1)
    parsed = Parsed()
    spill, quarantine = Spill(chunk, parsed), _Quarantine(chunk, parsed)
    for file, name in enumerate(chunk.files):
        chunk.work_on(name)
        path = Path(name)
        if rdf_suffix(path) not in FORMATS:
            raise InputError(path, f"its ending is none of {', '.join(FORMATS)} (or those with .gz, .bz2, .zst)")
        loose = Loose(chunk.path(f"{file}.loose"))
        if rdf_suffix(path) in LINES:
            parsed.num_lines = _read_lines(path, file, chunk.range, spill, quarantine.of(name), loose)
        else:
            _read_document(path, file, spill, loose, parsed.prefixes)
        if chunk.range:
            parsed.loose = loose.save()
        else:
            for block in named_blocks(loose, name):
                spill.add(block, file)
    quarantine.close()
    spill.close()
    return parsed


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The loose lines of one file, from all of its ranges in order."""

    chunk: Chunk
    loose: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return lines_of_files(self.loose)


def name_ranges(ranges: Ranges) -> Parsed:
    """Name the anonymous nodes of a file that was parsed in ranges."""
    pa.set_cpu_count(1)
    parsed = Parsed()
    spill = Spill(ranges.chunk, parsed)
    ranges.chunk.work_on(ranges.chunk.files[0])
    for block in named_blocks(ranges, ranges.chunk.files[0]):
        spill.add(block, 0)
    spill.close()
    return parsed


class _Quarantine:
    """Writes bad lines to a file as they come; there is one only where there are any."""

    def __init__(self, chunk: Chunk, parsed: Parsed) -> None:
        self.chunk, self.parsed, self.count = chunk, parsed, 0
        self.out = chunk.path("bad").open("w", encoding="utf-8")

    def of(self, file: str) -> Bad:
        def bad(line: int, reason: str, text: bytes) -> None:
            self.parsed.bad = str(self.chunk.path("bad"))
            said = text[: 4 * MAX_TEXT].decode(errors="replace")[:MAX_TEXT]
            self.out.write(json.dumps({"file": file, "line": line, "reason": reason, "text": said}) + "\n")
            self.count += 1
            if self.chunk.max_bad is not None and self.count > self.chunk.max_bad:
                raise too_many_bad(Path(file), self.chunk.max_bad, line, reason)

        return bad

    def close(self) -> None:
        self.out.close()


def too_many_bad(file: Path, max_bad: int, line: int | None, reason: str) -> InputError:
    """The error that ends a load with more bad lines than the caller puts up with."""
    return InputError(file, f"more than {max_bad:,} bad lines; the last: {reason}", line=line)


def _read_document(path: Path, file: int, spill: Spill, loose: Loose, prefixes: dict[str, str]) -> None:
    """A file that is read as a whole or not at all, in batches."""
    form = FORMATS[rdf_suffix(path)]
    try:
        # A small file is held: calling back for every 8 KiB of it costs more than parsing them.
        whole = path.read_bytes() if path.suffix not in PACKED and path.stat().st_size < MAX_LINE else None
        if form == ox.RdfFormat.RDF_XML:
            with open_bytes(path) if whole is None else BytesIO(whole) as content:
                screen_xml(path, content)
        with open_bytes(path) if whole is None else nullcontext(whole) as content:
            parser = ox.parse(content, format=form, base_iri=path.absolute().as_uri())
            graphs = form in (ox.RdfFormat.TRIG, ox.RdfFormat.JSON_LD)
            while block := ox.serialize(
                (quad.triple for quad in islice(parser, BATCH)) if graphs else islice(parser, BATCH),
                format=ox.RdfFormat.N_TRIPLES,
            ):
                rest = without_loose(block, loose)
                if any(_is_nested(line) for line in _suspects(rest, b" <<(")):
                    raise InputError(path, NESTED)
                spill.add(rest, file)
        prefixes.update(parser.prefixes)
    except UNPACKING_ERRORS as error:
        raise InputError(path, f"cannot be read: {error}") from error
    except PARSE_ERRORS as error:
        raise InputError(path, _reason(error), line=getattr(error, "lineno", None)) from error


def _read_lines(path: Path, file: int, range_: tuple[int, int] | None, spill: Spill, bad: Bad, loose: Loose) -> int:
    """A file of lines, or a range of it; how many lines there were."""
    form, number = FORMATS[rdf_suffix(path)], 1
    try:
        with open_bytes(path) as stream:
            for block, problem in _blocks(stream, range_):
                if problem is not None:
                    if number == 1 and not block:
                        raise InputError(path, problem)
                    bad(number, problem, block)
                    number += 1
                    continue
                lines = lines_of(block.replace(b"\r\n", b"\n") if b"\r" in block else block)
                plain = looks_canonical(lines) & (lines.end - lines.start <= MAX_LINE)
                picked = lines.pick(plain)
                terms = terms_of(picked)
                canonical = is_canonical(terms)
                if not canonical.all():
                    plain[plain] = canonical
                    picked, terms = picked.pick(canonical), terms.pick(canonical)
                spill.add_terms(picked, terms, file)
                others = np.flatnonzero(~plain & (lines.end > lines.start))
                if len(others):
                    texts = [lines.block[lines.start[i] : lines.end[i]] for i in others]
                    converted = b"".join(_converted(texts, (others + number).tolist(), form, bad))
                    spill.add(without_loose(converted, loose), file)
                number += len(lines)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error}") from error
    return number - 1


def _blocks(stream: BinaryIO, range_: tuple[int, int] | None) -> Iterator[tuple[bytes, str | None]]:
    """Whole lines, about BLOCK bytes at a time; or how one begins that cannot be given, and why."""
    left = sys.maxsize
    if range_:
        stream.seek(range_[0])
        left = range_[1] - range_[0]
    carry, too_long, at_start = b"", False, not (range_ and range_[0])
    while left:
        pieces, broken = _pieces(stream, min(BLOCK, left))
        piece = b"".join(pieces)
        left -= len(piece)
        if not piece and not broken:
            break
        if at_start:
            piece, at_start = piece.removeprefix(b"\xef\xbb\xbf"), False
        if too_long:
            end = piece.find(b"\n") + 1
            piece, too_long = (piece[end:], False) if end else (b"", True)
        piece = carry + piece
        end = piece.rfind(b"\n") + 1
        if end:
            yield piece[:end], None
        carry = piece[end:]
        if len(carry) > MAX_LINE:
            yield carry[:MAX_TEXT], TOO_LONG
            carry, too_long = b"", True
        if broken:
            if carry.rstrip().endswith(b"."):
                yield carry, None
                carry = b""
            yield carry, f"cannot be read any further: {broken}"
            return
    if carry:
        yield carry, None


def _pieces(stream: BinaryIO, size: int) -> tuple[list[bytes], Exception | None]:
    """About ``size`` bytes, and why there are no more, if that is for a reason."""
    pieces: list[bytes] = []
    while size > 0:
        try:
            piece = stream.read1(size)  # type: ignore[attr-defined]  # every buffered stream has it
        except UNPACKING_ERRORS as error:
            return pieces, error
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return pieces, None


def _converted(texts: Sequence[bytes], numbers: Sequence[int], form: ox.RdfFormat, bad: Bad) -> Iterator[bytes]:
    """Canonical lines of those that pyoxigraph takes; halved where it does not, since it loses all that follows."""
    if not texts:
        return
    try:
        if len(texts) == 1 and len(texts[0]) > MAX_LINE:
            raise ValueError(TOO_LONG)
        quads = ox.parse(b"\n".join(texts), format=form)
        block = ox.serialize((quad.triple for quad in quads), format=ox.RdfFormat.N_TRIPLES) or b""
        if any(_is_nested(line) for line in _suspects(block, b" <<(")):
            raise ValueError(NESTED)
    except PARSE_ERRORS as error:
        if len(texts) == 1:
            bad(numbers[0], _reason(error), texts[0])
            return
        half = len(texts) // 2
        yield from _converted(texts[:half], numbers[:half], form, bad)
        yield from _converted(texts[half:], numbers[half:], form, bad)
    else:
        yield block


def _reason(error: BaseException) -> str:
    return _PLACE.sub("", str(error.args[0] if error.args else error))


def _suspects(block: bytes, mark: bytes) -> list[bytes]:
    """Lines that hold ``mark``, in an object or in some text."""
    return [line for line in block.split(b"\n") if mark in line] if mark in block else []


def _is_nested(line: bytes) -> bool:
    return line.split(b" ", 2)[2].startswith(b"<<(")
