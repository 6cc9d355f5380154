"""Files of RDF to canonical statements: the work of the processes of ``ingest.rdf``; a crash takes nothing with it.

A chunk is some small files, one large one, or a range of a file of lines. Its statements go to segments: files of
Arrow with one batch for each part of the release, by a hash of the subject, and one for what anonymous nodes say.
"""

import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyoxigraph as ox

from ingest.compression import PACKED, UNPACKING_ERRORS, open_bytes, unpacked_name
from ingest.ntriples import COLUMNS, Lines, Terms, is_canonical, lines_of, looks_canonical, table_of, terms_of
from ingest.screen import screen_xml
from kg.errors import InputError

SCHEMA = pa.schema(
    [
        ("subject", pa.string()),
        ("predicate", pa.string()),
        ("object", pa.string()),
        ("kind", pa.string()),
        ("language", pa.string()),
        ("datatype", pa.string()),
        ("sid", pa.binary(16)),
        ("file", pa.dictionary(pa.int32(), pa.string())),
    ]
)
"""``kind`` of the object: ``iri``, ``blank`` or ``literal``. ``sid`` hashes the statement in N-Triples form."""
STORED = COLUMNS.set(0, pa.field("subject", pa.string()))
"""The same on disk; a dictionary of all subjects would have to be read for each part."""

MAX_MEMORY = 4 << 30
"""Address space of a worker in bytes."""
MAX_LINE = 8 << 20
"""Bytes of a line of N-Triples; longer ones are quarantined without being held."""
TOO_LONG = f"longer than {MAX_LINE >> 20} MiB"
BLOCK, SEGMENT, BATCH = 1 << 20, 32 << 20, 50_000
"""Bytes that are worked on at once and that go to one segment; statements that come from pyoxigraph at once."""
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
NESTED = "holds a triple within a triple (RDF 1.2); expected RDF 1.1"
_PLACE = re.compile(r"^Parser error at line \d+ |\s*\(line \d+\)$")
Bad: TypeAlias = Callable[[int, str, bytes], None]
"""Is told the number of a line, what is wrong with it, and the line."""


@dataclass(frozen=True)
class Chunk:
    """What one call of ``parse_chunk`` does."""

    number: int
    files: tuple[str, ...]
    work: str
    """Folder for segments and all else."""
    num_parts: int
    max_bad: int | None
    range: tuple[int, int] | None = None
    """Where the lines begin and end, for a part of a file of lines; anonymous nodes are then left for later."""

    def path(self, ending: str) -> Path:
        return Path(self.work) / f"{self.number:08}.{ending}"

    def work_on(self, file: str) -> None:
        """Note which file is parsed, for whoever finds the process dead; in place, since to truncate is slow."""
        now = os.open(self.path("now"), os.O_WRONLY | os.O_CREAT)
        os.pwrite(now, os.fsencode(file) + b"\0", 0)
        os.close(now)

    def worked_on(self) -> str:
        """The file that was parsed last."""
        now = self.path("now")
        return os.fsdecode(now.read_bytes().split(b"\0")[0]) if now.exists() else self.files[0]


@dataclass(kw_only=True)
class Parsed:
    """What came of a chunk."""

    segments: list[str] = field(default_factory=list)
    num_rows: int = 0
    num_lines: int = 0
    """Lines of the range, good or bad."""
    bad: str | None = None
    """A file of JSON lines with the bad lines: file, line (counted from the begin of the range), reason, text."""
    loose: str | None = None
    """A file of lines that touch anonymous nodes, which are not named yet."""
    prefixes: dict[str, str] = field(default_factory=dict)


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


class Loose:
    """Lines that touch anonymous nodes, which have names only when all of the file is read; many go to a file."""

    def __init__(self, file: Path) -> None:
        self.file, self.lines, self.saved = file, list[str](), False

    def append(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == BATCH:
            self.save()

    def save(self) -> str | None:
        """The name of the file with all the lines; None where there are none."""
        if self.lines:
            with self.file.open("a" if self.saved else "w", encoding="utf-8", newline="\n") as out:
                out.writelines(line + "\n" for line in self.lines)
            self.saved = True
            self.lines.clear()
        return str(self.file) if self.saved else None

    def __iter__(self) -> Iterator[str]:
        if self.saved:
            yield from _lines_of([str(self.file)])
        yield from self.lines


def _lines_of(files: Sequence[str]) -> Iterator[str]:
    for file in files:
        with Path(file).open(encoding="utf-8", newline="\n") as lines:
            yield from (line.rstrip("\n") for line in lines)


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The loose lines of one file, from all of its ranges in order."""

    chunk: Chunk
    loose: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return _lines_of(self.loose)


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


class Spill:
    """Takes canonical lines, and writes segments."""

    def __init__(self, chunk: Chunk, parsed: Parsed) -> None:
        self.chunk, self.parsed = chunk, parsed
        self.files = pa.array(chunk.files, pa.string())
        self.pending: list[tuple[bytes, int]] = []
        self.pending_size = self.size = 0
        self.tables: list[pa.Table] = []

    def add(self, block: bytes, file: int) -> None:
        """Lines of one file, each with its newline; small blocks of many files are worked on together."""
        if block:
            self.pending.append((block, file))
            self.pending_size += len(block)
            if self.pending_size >= BLOCK:
                self._flush()

    def add_terms(self, lines: Lines, terms: Terms, file: int) -> None:
        """Canonical lines that are cut already."""
        if len(lines):
            self._add(lines, terms, np.full(len(lines), file))

    def close(self) -> None:
        self._flush()
        if self.tables or not self.parsed.segments:
            self._write()

    def _flush(self) -> None:
        blocks, self.pending, self.pending_size = self.pending, [], 0
        if blocks:
            lines = lines_of(b"".join(block for block, _ in blocks))
            files = np.repeat([file for _, file in blocks], [block.count(b"\n") for block, _ in blocks])
            self._add(lines, terms_of(lines), files)

    def _add(self, lines: Lines, terms: Terms, files: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
        codes = pa.DictionaryArray.from_arrays(files.astype(np.int32), self.files)
        self.tables.append(table_of(lines, terms, codes))
        self.parsed.num_rows += len(lines)
        self.size += int((lines.end - lines.start).sum())
        if self.size >= SEGMENT:
            self._write()

    def _write(self) -> None:
        """One batch for each part, and one for anonymous subjects."""
        table = pa.concat_tables([COLUMNS.empty_table(), *self.tables]).unify_dictionaries().combine_chunks()
        self.tables, self.size = [], 0
        num_parts, subject = self.chunk.num_parts, table["subject"].combine_chunks()
        parts = _parts(subject.dictionary, num_parts)[subject.indices.to_numpy()]
        table = table.set_column(0, STORED.field(0), subject.cast(pa.string()))
        if num_parts > 1 or parts.any():
            table = table.take(pa.array(np.argsort(parts, kind="stable")))
        (batch,) = table.combine_chunks().to_batches() or [_EMPTY]
        ends = np.cumsum(np.bincount(parts, minlength=num_parts + 1))
        file = self.chunk.path(f"{len(self.parsed.segments):04}.arrow")
        part = file.with_suffix(".part")
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, STORED) as writer:
            for start, end in zip([0, *ends[:-1]], ends, strict=True):
                writer.write_batch(batch.slice(start, end - start))
        part.rename(file)
        self.parsed.segments.append(str(file))


_EMPTY = pa.RecordBatch.from_pylist([], STORED)


def _parts(subjects: pa.StringArray, num_parts: int) -> "np.ndarray[tuple[int], np.dtype[np.uint16]]":
    """The part of each subject; anonymous ones have the last."""
    if num_parts == 1:
        blank: np.ndarray[tuple[int], np.dtype[np.bool_]]
        blank = pc.starts_with(subjects, "_:").to_numpy(zero_copy_only=False)
        return blank.astype(np.uint16)
    parts: np.ndarray[tuple[int], np.dtype[np.uint16]] = np.array(
        [
            num_parts if value.startswith(b"_:") else zlib.crc32(value) % num_parts
            for value in subjects.cast(pa.binary()).to_pylist()
        ],
        np.uint16,
    )
    return parts


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
                rest = _without_loose(block, loose)
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
                    spill.add(_without_loose(converted, loose), file)
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


def _without_loose(block: bytes, loose: Loose) -> bytes:
    """The canonical lines that touch no anonymous node; the others go to ``loose``."""
    if b"_:" not in block:
        return block
    rest = []
    for line in block.decode().split("\n"):
        if line.startswith("_:") or ("> _:" in line and line.split(" ", 2)[2].startswith("_:")):
            loose.append(line)
        else:
            rest.append(line)
    return "\n".join(rest).encode()


def named_blocks(lines: Iterable[str], file: str) -> Iterator[bytes]:
    """Lines with their anonymous nodes named by what they say; ``lines`` is gone through twice."""
    names = blank_names(lines, file)
    block: list[str] = []
    for line in lines:
        subject, predicate, object_ = line[:-2].split(" ", 2)
        if subject.startswith("_:"):
            subject = names[subject]
        if object_.startswith("_:"):
            object_ = names.get(object_, LEAF)
        elif object_.startswith("<<("):
            raise InputError(file, NESTED)
        block.append(f"{subject} {predicate} {object_} .\n")
        if len(block) == BATCH:
            yield "".join(block).encode()
            block.clear()
    yield "".join(block).encode()


def blank_names(lines: Iterable[str], file: str) -> dict[str, str]:
    """``_:h<hash>`` for each anonymous subject: the hash of the tree below it, so that equal ones are equal in every
    release. All of which nothing is said are LEAF.

    In a cycle there is no bottom to start from; its nodes are named by file and order instead.
    """
    below: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        if line.startswith("_:"):
            subject, predicate, object_ = line[:-2].split(" ", 2)
            below.setdefault(subject, []).append((predicate[1:-1], object_))
    order = {node: number for number, node in enumerate(below)}
    names: dict[str, str] = {}

    def visit(start: str) -> None:
        stack: list[tuple[str, bool]] = [(start, False)]
        open_: set[str] = set()
        while stack:
            node, ready = stack.pop()
            if node in names:
                continue
            children = [object_ for _, object_ in below[node] if object_ in below]
            if not ready:
                if any(child in open_ for child in children) or node in open_:
                    names[node] = "_:h" + _digest(f"{file} {order[node]}")
                    continue
                open_.add(node)
                stack.append((node, True))
                stack.extend((child, False) for child in children if child not in names)
                continue
            open_.discard(node)
            said = {
                f"{predicate} {names.get(object_, LEAF) if object_.startswith('_:') else object_}"
                for predicate, object_ in below[node]
            }
            names[node] = "_:h" + _digest("\n".join(sorted(said)))

    for node in below:
        visit(node)
    return names


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


LEAF = "_:h" + _digest("")
"""The name of all anonymous nodes of which nothing is said."""
