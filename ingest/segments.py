"""Where canonical statements go from a worker: files of Arrow with one batch for each part of the release."""

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.ntriples import COLUMNS, Lines, Terms, lines_of, table_of, terms_of

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
BLOCK, SEGMENT = 1 << 20, 32 << 20
"""Bytes that are worked on at once, and that go to one segment."""


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
