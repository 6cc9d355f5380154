"""Any RDF files to canonical statements in parts on disk, and their Parquet: the lossless copy of what was read."""

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from ingest.compression import PACKED, UNPACKING_ERRORS, open_bytes
from ingest.parser import (
    FORMATS,
    LINES,
    MAX_MEMORY,
    Ranges,
    name_ranges,
    parse_chunk,
    rdf_suffix,
    too_many_bad,
)
from ingest.report import Report
from ingest.segments import SCHEMA, STORED, Chunk, Parsed
from ingest.vocabulary import RDF
from kg.errors import InputError
from kg.parallel import WorkerDied, map_chunks

PART, MAX_PARTS = 32 << 20, 2048
"""Bytes of input for each part of a release; beyond 64 GiB the parts grow."""
MIN_CHUNK, MAX_CHUNK, CHUNKS_EACH = 4 << 20, 32 << 20, 8
"""Bytes of a chunk; within these, each worker gets so many of them, so that all end at about the same time."""
UNPACKED = 15
"""How many times larger a packed file may be once unpacked, for the number of parts."""


class Statements:
    """All statements of a release, each once, in parts on disk that are gone when this object is.

    A part holds all that is said of its subjects, sorted by subject. Columns are those of ``ingest.segments.SCHEMA``;
    ``file`` is the first file that states it.
    """

    def __init__(self, work: Path, files: Sequence[Path], blank: Path, prefixes: dict[str, str]) -> None:
        self.prefixes = prefixes
        """Prefix → namespace, as the files declare them."""
        self._files, self._blank = files, blank
        weakref.finalize(self, shutil.rmtree, work, ignore_errors=True)

    @cached_property
    def blank(self) -> pa.Table:
        """What is said of anonymous nodes; it is held at once."""
        return _read_part(self._blank)

    def parts(self) -> Iterator[pa.Table]:
        """What is said of named resources, a piece at a time that fits memory; each is whole in one of them."""
        for file in self._files:
            part = _read_part(file)
            if part.num_rows:
                yield part


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The RDF files below ``paths``, sorted; of a folder, catalogs and other XML that is no RDF are left out.

    Raises:
        InputError: a path does not exist, or there is no RDF file at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder")
        if path.is_file():
            found.append(path)
        else:
            found += [
                file
                for file in sorted(path.rglob("*"))
                if file.is_file() and rdf_suffix(file) in FORMATS and (rdf_suffix(file) != ".xml" or _is_rdf(file))
            ]
    if not found:
        raise InputError(paths[0], f"holds no RDF file ({', '.join(FORMATS)})")
    return found


def _is_rdf(file: Path) -> bool:
    """Whether the root element is ``rdf:RDF``."""
    tags: list[str] = []
    parser = expat.ParserCreate(namespace_separator="")
    parser.StartElementHandler = lambda tag, attributes: tags.append(tag)
    try:
        with open_bytes(file) as content:
            while not tags and (piece := content.read(1 << 16)):
                parser.Parse(piece, False)
    except (expat.ExpatError, *UNPACKING_ERRORS):
        pass  # what breaks off behind its root is for the parser to say
    return tags[:1] == [f"{RDF}RDF"]


def parse(files: Sequence[Path], report: Report, *, workers: int | None = None) -> Statements:
    """Parse ``files`` in processes of their own with a limit on their memory, where ``report`` says.

    Args:
        workers: processes; default one for each core, as far as there is enough to do.

    Raises:
        InputError: a file does not parse or is hostile, the parser died of it, or more lines are bad than the report
            puts up with.
    """
    if report.work is not None:
        report.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="kgfuse-", dir=report.work))
    try:
        return _parse(files, report, workers, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _parse(files: Sequence[Path], report: Report, workers: int | None, folder: Path) -> Statements:
    engine = report.engine
    names = list(dict.fromkeys(str(file.absolute()) for file in files))
    sizes = [_unpacked_size(Path(name)) for name in names]
    num_parts = min(MAX_PARTS, max(1, sum(sizes) // PART))
    # A worker takes 0.2 CPU seconds to start: a second one is not worth it for less than a chunk.
    workers = workers or (1 if sum(sizes) <= MAX_CHUNK else os.cpu_count() or 1)
    chunks = list(_chunks(names, sizes, str(folder), num_parts, report.max_bad, workers))
    prefixes: dict[str, str] = {}
    segments: dict[tuple[str, int], list[str]] = {}
    loose: dict[str, list[str]] = {}
    lines_before: dict[str, int] = {}
    console = Console(stderr=True)
    try:
        with Progress(console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("parsing", total=len(chunks))
            for chunk, parsed in zip(
                chunks, map_chunks(parse_chunk, chunks, engine=engine, workers=workers, memory=MAX_MEMORY), strict=True
            ):
                progress.advance(bar)
                first = chunk.files[0]
                _account(parsed, report, lines_before.get(first, 0))
                lines_before[first] = lines_before.get(first, 0) + parsed.num_lines
                segments[first, chunk.number] = parsed.segments
                prefixes.update(parsed.prefixes)
                if parsed.loose:
                    loose.setdefault(first, []).append(parsed.loose)
        again = [
            Ranges(chunk=Chunk(len(chunks) + i, (file,), str(folder), num_parts, None), loose=tuple(loose[file]))
            for i, file in enumerate(loose)
        ]
        for ranges, parsed in zip(
            again, map_chunks(name_ranges, again, engine=engine, workers=workers, memory=MAX_MEMORY), strict=True
        ):
            segments[ranges.chunk.files[0], ranges.chunk.number] = parsed.segments
            _account(parsed, report, 0)
    except WorkerDied as died:
        chunk = died.item if isinstance(died.item, Chunk) else died.item.chunk
        raise InputError(chunk.worked_on(), f"the parser gave up on it ({died.reason})") from died
    place = {name: number for number, name in enumerate(names)}
    ordered = [
        segment
        for (file, number), found in sorted(segments.items(), key=lambda kv: (place[kv[0][0]], kv[0][1]))
        for segment in found
    ]
    merges = [Merge(ordered, part, str(folder / f"{part:05}.statements")) for part in range(num_parts + 1)]
    merged = map(merge, merges) if num_parts == 1 else map_chunks(merge, merges, engine=engine, workers=workers)
    report.skip("stated more than once", sum(merged))
    for segment in ordered:
        Path(segment).unlink()
    *parts, blank = [Path(one.out) for one in merges]
    return Statements(folder, parts, blank, prefixes)


def _unpacked_size(file: Path) -> int:
    """Bytes, by guess where the file is packed; 0 for one that cannot be read, which the parser will say."""
    try:
        return file.stat().st_size * (UNPACKED if file.suffix in PACKED else 1)
    except OSError:
        return 0


def _chunks(
    names: Sequence[str], sizes: Sequence[int], work: str, num_parts: int, max_bad: int | None, workers: int
) -> Iterator[Chunk]:
    """Ranges of large files of lines, other large files, and groups of small ones, in the order of the files."""
    target = MAX_CHUNK if workers == 1 else max(MIN_CHUNK, min(MAX_CHUNK, sum(sizes) // (CHUNKS_EACH * workers)))
    number, group, size = 0, list[str](), 0

    def chunk(files: Sequence[str], range_: tuple[int, int] | None = None) -> Chunk:
        nonlocal number
        number += 1
        return Chunk(number - 1, tuple(files), work, num_parts, max_bad, range_)

    for name, bytes_ in zip(names, sizes, strict=True):
        splits = rdf_suffix(Path(name)) in LINES and Path(name).suffix not in PACKED and bytes_ > 2 * target
        if group and (size + bytes_ > target or splits):
            yield chunk(group)
            group, size = [], 0
        if splits:
            for range_ in _ranges(Path(name), bytes_, target):
                yield chunk([name], range_)
        else:
            group.append(name)
            size += bytes_
    if group:
        yield chunk(group)


def _ranges(file: Path, size: int, target: int) -> Iterator[tuple[int, int]]:
    """Ranges of about ``target`` bytes that begin and end between lines."""
    with file.open("rb") as stream:
        start = 0
        while start < size:
            end = start + target
            stream.seek(min(end, size))
            while end < size and (piece := stream.read(1 << 16)):
                cut = piece.find(b"\n")
                if cut >= 0:
                    end += cut + 1
                    break
                end += len(piece)
            end = min(end, size)
            yield start, end
            start = end


def _account(parsed: Parsed, report: Report, lines_before: int) -> None:
    """Rows and bad lines to the report."""
    report.read += parsed.num_rows
    if parsed.bad is None:
        return
    with Path(parsed.bad).open(encoding="utf-8") as lines:
        for said in map(json.loads, lines):
            report.read += 1
            file, line = Path(said["file"]), said["line"] + lines_before
            report.quarantine(file, line, said["reason"], said["text"])
            if report.max_bad is not None and report.num_quarantined > report.max_bad:
                raise too_many_bad(file, report.max_bad, line, said["reason"])


@dataclass(frozen=True)
class Merge:
    """One part of all segments."""

    segments: Sequence[str]
    """In the order of the files."""
    part: int
    out: str


def merge(one: Merge) -> int:
    """Write the part: sorted by subject, each statement once; how many repeats there were."""
    batches = []
    for segment in one.segments:
        with pa.OSFile(segment) as source:
            batches.append(pa.Table.from_batches([pa.ipc.open_file(source).get_batch(one.part)]))
    table = pa.concat_tables([STORED.empty_table(), *batches]).unify_dictionaries().combine_chunks()
    order = _order(table)
    with pa.OSFile(one.out, "wb") as sink, pa.ipc.new_file(sink, STORED) as writer:
        writer.write_table(table.take(pa.array(order)))
    return int(table.num_rows - len(order))


def _order(table: pa.Table) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Rows by subject and id, the first of those with the same id."""
    if not table.num_rows:
        return np.empty(0, np.int64)
    subject = table["subject"].combine_chunks().dictionary_encode()
    places = np.empty(len(subject.dictionary), np.uint64)
    places[pc.sort_indices(subject.dictionary).to_numpy()] = np.arange(len(places), dtype=np.uint64)
    place, sids = places[subject.indices.to_numpy()], _sids(table)
    # One number to sort by: the place, and as much of the id as there is room for.
    bits = len(places).bit_length()
    key = (place << np.uint64(64 - bits)) | (sids[:, 0] >> np.uint64(bits))
    order = np.argsort(key, kind="stable")
    again = (sids[order[1:]] == sids[order[:-1]]).all(axis=1)
    if (~again & (key[order[1:]] == key[order[:-1]])).any():  # ids that begin alike
        order = np.lexsort((sids[:, 1], sids[:, 0], place))
        again = (sids[order[1:]] == sids[order[:-1]]).all(axis=1)
    return order[np.concatenate(([True], ~again))]


def _sids(table: pa.Table) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """The ids as two numbers each, in an order that is the same everywhere."""
    sids = table["sid"].combine_chunks()
    numbers = np.frombuffer(sids.buffers()[1], ">u8").reshape(-1, 2)
    return numbers[sids.offset : sids.offset + len(sids)].astype(np.uint64)


def _read_part(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all().cast(SCHEMA)


def keep(statements: Statements, file: Path) -> None:
    """Write the canonical table, a part at a time; aside first, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
        writer.write_table(statements.blank)
        for table in statements.parts():
            writer.write_table(table)
    part.rename(file)
