"""Links for many texts: chunks of JSON lines, linked here, in several processes or by actors of Ray Data.

Whatever links them, the lines come in the order of the texts and are the same bytes.
"""

import gzip
import importlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from kg.errors import ConfigError, InputError, KGError
from kg.linking.linker import Linker
from kg.linking.offsets import OffsetUnit, links_as_json
from kg.linking.reference import LinkerReference, opened
from kg.parallel import Engine, map_chunks, ray_cluster

MAX_LINE = 64 << 20  # bytes; what is packed may be anything, and has to fit into memory
CHUNK = 64 << 10
"""Bytes of input that are linked and written at once: some 40 abstracts, a few hundredths of a second."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of a file of texts."""

    source: str
    line: int
    """Number of the first line."""
    position: int
    """Bytes of the file, packed ones if it is packed, up to the end of this chunk."""
    data: bytes = field(repr=False)
    bad_line: int = 0
    reason: str = ""
    """Why the file cannot be read beyond this chunk, if so."""


@dataclass(frozen=True, slots=True)
class LinkedChunk:
    """The output for a chunk, up to the line ``bad_line`` that is wrong for ``reason``, if one is."""

    position: int
    num_texts: int
    lines: bytes = field(repr=False)
    bad_line: int = 0
    reason: str = ""


def link_corpus(
    linker: Linker,
    source: Path,
    lines: Iterator[tuple[int, bytes]],
    *,
    first: int = 1,
    offset_unit: OffsetUnit = "code-point",
    engine: Engine = "local",
    workers: int | None = None,
) -> Iterator[LinkedChunk]:
    """``{"id", "links"}`` for each ``{"id", "text"}`` line.

    Args:
        linker: links in this process, others open one like it.
        source: the file.
        lines: what ``read_lines`` gives for it, begun or not.
        first: number of the line that ``lines`` gives next.
        offset_unit: what start and end of the links count.
        engine: ``local``, or ``ray`` with file and snapshot on storage that all nodes share.
        workers: processes or actors; default 1 here, and one for each core of a Ray cluster.

    Raises:
        InputError: naming file and line, after everything before that line.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"The number of workers is {workers}; expected at least 1.")
    reference = LinkerReference.to(linker)
    results: Iterable[LinkedChunk]
    if engine == "ray":
        results = _link_on_ray(reference, source, first, offset_unit, workers)
    elif (workers or 1) == 1:
        results = (link_chunk(linker, chunk, offset_unit) for chunk in _chunks(source, lines, first))
    else:
        jobs = ((chunk, reference, offset_unit) for chunk in _chunks(source, lines, first))
        results = map_chunks(_link_job, jobs, workers=workers)
    for result in results:
        yield result
        if result.reason:
            raise InputError(source, result.reason, line=result.bad_line or None)


def link_chunk(linker: Linker, chunk: Chunk, offset_unit: OffsetUnit) -> LinkedChunk:
    """The output of one chunk. Escaped to ASCII, because half a surrogate pair has no UTF-8 form."""
    rows: list[str] = []
    bad_line, reason = chunk.bad_line, chunk.reason
    for number, line in enumerate(BytesIO(chunk.data), chunk.line):
        if not line.strip():
            continue
        try:
            text_id, text = parse_line(line)
        except ValueError as error:
            bad_line, reason = number, str(error)
            break
        rows.append(json.dumps({"id": text_id, "links": links_as_json(text, linker.link(text), offset_unit)}) + "\n")
    return LinkedChunk(chunk.position, len(rows), "".join(rows).encode("ascii"), bad_line, reason)


def parse_line(line: bytes) -> tuple[str | int, str]:
    """Id and text; ``ValueError`` says what is wrong."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not _is_id(row.get("id")):
        raise ValueError('expected an object like {"id": "1", "text": "…"}')
    return row["id"], row["text"]


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def read_lines(source: Path) -> Iterator[tuple[int, bytes]]:
    """Each line, blank ones too, with how far the file is read at its end, in bytes as it lies on disk.

    Raises:
        InputError: it cannot be read, or a line is longer than ``MAX_LINE``.
    """
    try:
        with source.open("rb") as raw:
            packed = source.suffix == ".gz"
            stream = gzip.open(raw) if packed else raw  # noqa: SIM115  # it closes with the file
            position = number = 0
            while line := stream.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE and not line.endswith(b"\n"):
                    raise InputError(source, f"longer than {MAX_LINE} bytes; split the text", line=number)
                position = raw.tell() if packed and raw.seekable() else position + len(line)
                yield position, line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(source, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _chunks(source: Path, lines: Iterator[tuple[int, bytes]], first: int) -> Iterator[Chunk]:
    """Chunks of at least ``CHUNK`` bytes but for the last, which says what is wrong with the file, if anything is."""
    held: list[bytes] = []
    start, position, size = first, 0, 0
    bad_line, reason = 0, ""
    try:
        for number, (position, line) in enumerate(lines, first):
            held.append(line)
            size += len(line)
            if size >= CHUNK:
                yield Chunk(str(source), start, position, b"".join(held))
                held, start, size = [], number + 1, 0
    except InputError as error:
        bad_line, reason = error.line or 0, error.reason
    if held or reason:
        yield Chunk(str(source), start, position, b"".join(held), bad_line, reason)


def _link_job(job: tuple[Chunk, LinkerReference, OffsetUnit]) -> LinkedChunk:
    chunk, reference, offset_unit = job
    return link_chunk(opened(reference), chunk, offset_unit)


def _link_on_ray(
    reference: LinkerReference, source: Path, first: int, offset_unit: OffsetUnit, workers: int | None
) -> Iterator[LinkedChunk]:
    """One task reads the file, actors link; blocks are chunks, held in order and few at a time by Ray Data."""
    if not source.is_file():
        raise ConfigError(f"{source} is no plain file; the engine ray needs one that its nodes can open.")
    with ray_cluster() as ray:
        try:
            data = importlib.import_module("ray.data")
        except ImportError as error:
            raise ConfigError(f"Ray Data cannot be imported ({error}); install kgfuse[ray].") from error
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.target_max_block_size = CHUNK  # else the reader's chunks are one block, and one actor links them all
        data.DataContext._set_current(context)
        linked = (
            data.from_items([{"source": str(source), "first": first}])
            .map_batches(_read_on_ray, batch_size=None, batch_format="pyarrow", num_cpus=0)
            .map_batches(
                _RayLinker,
                fn_constructor_args=(reference, offset_unit),
                batch_size=None,
                batch_format="pyarrow",
                concurrency=workers or max(1, int(ray.cluster_resources().get("CPU", 1))),
            )
        )
        try:
            for batch in linked.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in batch.to_pylist():
                    if failure := row.pop("failure"):
                        raise KGError(f"A worker of Ray failed: {failure}")
                    yield LinkedChunk(**row)
        except ray.exceptions.RayError as error:
            raise KGError(f"Ray ended the run: {str(error).strip().splitlines()[0]}") from error


def _read_on_ray(batch: pa.Table) -> Iterator[pa.Table]:
    """The chunks of the files of a batch, as tables of one row."""
    for row in batch.to_pylist():
        lines = islice(read_lines(Path(row["source"])), row["first"] - 1, None)
        for chunk in _chunks(Path(row["source"]), lines, row["first"]):
            yield pa.Table.from_pylist([asdict(chunk)])


class _RayLinker:
    """An actor that links chunks; failures of ours are rows, since Ray Data tells of others in pages."""

    def __init__(self, reference: LinkerReference, offset_unit: OffsetUnit) -> None:
        self.reference, self.offset_unit = reference, offset_unit

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            linker, chunks = opened(self.reference), (Chunk(**row) for row in batch.to_pylist())
            rows = [{**asdict(link_chunk(linker, chunk, self.offset_unit)), "failure": ""} for chunk in chunks]
        except KGError as error:
            rows = [{**asdict(LinkedChunk(0, 0, b"")), "failure": str(error)}]
        return pa.Table.from_pylist(rows)
