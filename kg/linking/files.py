"""Links for a file of texts: JSON lines in, JSON lines out, continued where it was interrupted."""

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kg.errors import ConfigError, InputError
from kg.linking.corpus import link_corpus, parse_line, read_lines
from kg.linking.linker import Linker
from kg.linking.offsets import OffsetUnit
from kg.parallel import Engine


def link_file(
    linker: Linker,
    source: Path,
    target: Path,
    *,
    offset_unit: OffsetUnit = "code-point",
    engine: Engine = "local",
    workers: int | None = None,
) -> int:
    """Write ``{"id", "links"}`` to ``target`` for each ``{"id", "text"}`` line of ``source``; the number of texts.

    Either is packed if its name ends in ``.gz``. The lines grow in ``<target>.<options>.part``, which becomes
    ``target`` when the last one is there; a run that finds such a part, of the same file, snapshot and options, goes on
    after its last whole line, whatever its engine and workers.

    Args:
        offset_unit, engine, workers: see ``kg.linking.corpus.link_corpus``.

    Raises:
        InputError: a line is not such JSON, the part was made from other texts, or another run writes it.
        ConfigError: ``target`` is ``source`` or a folder.
    """
    if not source.exists():
        raise InputError(source, "there is no such file")
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; name a file for the links.")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"The links would take the place of their texts, {source}; name another file for them.")
    target.parent.mkdir(parents=True, exist_ok=True)
    ranker = f"{linker.ranker.hash[:12]}{'' if linker.graph else '-no-graph'}-" if linker.ranker else ""
    texts = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:12]
    key = f"{linker.snapshot.hash[:12]}-{ranker}{linker.threshold!r}-{linker.max_candidates}-{offset_unit}-{texts}"
    part = target.with_name(f"{target.name}.{key}.part")
    with part.open("a+b") as out, _progress() as progress:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(part, "another run is writing it; wait for that one") from error
        lines = read_lines(source)
        done, first = _pass_over(lines, source, out)
        total = source.stat().st_size if source.is_file() else None
        task = progress.add_task(f"Linking {source.name}", total=total, texts=done, speed=0)
        count, began = done, progress.get_time()
        for chunk in link_corpus(
            linker, source, lines, first=first, offset_unit=offset_unit, engine=engine, workers=workers
        ):
            out.write(chunk.lines)
            count += chunk.num_texts
            speed = (count - done) / max(progress.get_time() - began, 1e-9)
            progress.update(task, completed=chunk.position, texts=count, speed=speed)
        out.flush()
        os.fsync(out.fileno())
        _publish(part, target)
    return count


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[texts]:,} texts, {task.fields[speed]:,.0f} texts/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _pass_over(lines: Iterator[tuple[int, bytes]], source: Path, part: IO[bytes]) -> tuple[int, int]:
    """Read ``lines`` beyond the texts that a part has links of; how many they are, and the number of the next line.

    What is left of a line that was being written is cut off.
    """
    count = number = whole = 0
    part.seek(0)
    for row in part:
        if not row.endswith(b"\n"):
            break
        done: Any = json.loads(row)
        line = b" "
        while line.isspace():
            _, line = next(lines, (0, b""))
            number += 1
        if not line:
            raise InputError(source, f"{count} texts, but {part.name} has more already; delete that part")
        try:
            text_id, text = parse_line(line)
        except ValueError as error:
            raise InputError(source, str(error), line=number) from error
        if text_id != done["id"] or any(link["text"] not in text for link in done["links"]):
            other = f"goes on from {done['id']!r}" if text_id != done["id"] else "has the links of another text"
            raise InputError(source, f"id {text_id!r}, but {part.name} {other}; delete that part", line=number)
        count, whole = count + 1, whole + len(row)
    part.truncate(whole)
    return count, number + 1


def _publish(part: Path, target: Path) -> None:
    """Give a whole part its name, packed if that says so, and remove the others."""
    if target.suffix == ".gz":
        packed = target.with_name(f"{target.name}.packing.part")
        with part.open("rb") as plain, packed.open("wb") as raw:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as out:
                shutil.copyfileobj(plain, out)
            raw.flush()
            os.fsync(raw.fileno())
        part = packed
    part.rename(target)
    # Of another snapshot or file of texts, or what was packed; never those of ``out.jsonl.gz`` for ``out.jsonl``.
    for stale in target.parent.glob(f"{escape(target.name)}.{'[0-9a-f]' * 12}-*.part"):
        stale.unlink()
