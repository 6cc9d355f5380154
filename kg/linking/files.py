"""Links for a file of texts: JSON lines in, JSON lines out, continued where it was interrupted."""

import json
import os
import sys
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from kg.errors import InputError
from kg.linking.linker import Linker


def link_file(linker: Linker, source: Path, target: Path) -> int:
    """Write ``{"id", "links"}`` to ``target`` for each ``{"id", "text"}`` line of ``source``; the number of texts.

    The lines grow in ``<target>.<snapshot>.part``, which takes the name of ``target`` when the last one is there; a run
    that finds such a part, of the same snapshot and options, goes on after its last whole line.

    Raises:
        InputError: a line is not such JSON, or the part was made from other texts.
    """
    if not source.exists():
        raise InputError(source, "there is no such file")
    target.parent.mkdir(parents=True, exist_ok=True)
    key = f"{linker.snapshot.hash[:12]}-{linker.threshold:g}-{linker.max_candidates}"
    part = target.with_name(f"{target.name}.{key}.part")
    done = _finished_ids(part)
    with (
        part.open("a", encoding="utf-8") as out,
        Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task(f"Linking {source.name}", total=source.stat().st_size if source.is_file() else None)
        count = 0
        for number, size, text_id, text in read_texts(source):
            if count < len(done):
                if done[count] != text_id:
                    raise InputError(
                        source,
                        f"id {text_id!r}, but {part} goes on from {done[count]!r}; delete that part",
                        line=number,
                    )
            else:
                out.write(linked_line(linker, text_id, text))
            count += 1
            progress.advance(task, size)
        if count < len(done):
            raise InputError(source, f"{count} texts, but {part} has {len(done)} already; delete that part")
        out.flush()
        os.fsync(out.fileno())
    part.rename(target)
    for stale in target.parent.glob(f"{escape(target.name)}.*.part"):  # of another snapshot
        stale.unlink()
    return count


def linked_line(linker: Linker, text_id: str | int, text: str) -> str:
    """One line of output. Escaped to ASCII, because half a surrogate pair has no UTF-8 form."""
    return json.dumps({"id": text_id, "links": [link.as_json() for link in linker.link(text)]}) + "\n"


def read_texts(source: Path) -> Iterator[tuple[int, int, str | int, str]]:
    """Line number, size in bytes, id and text of each line that is not blank.

    Raises:
        InputError: naming file and line.
    """
    try:
        stream = source.open("rb")
    except OSError as error:
        raise InputError(source, f"cannot be read: {error.strerror}") from error
    with stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(source, f"not JSON ({error})", line=number) from error
            if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not _is_id(row.get("id")):
                raise InputError(source, 'expected an object like {"id": "1", "text": "…"}', line=number)
            yield number, len(line), row["id"], row["text"]


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _finished_ids(part: Path) -> list[str | int]:
    """Ids of the whole lines of a part; what is left of a line that was being written is cut off."""
    if not part.exists():
        return []
    with part.open("r+b") as stream:
        ids, whole = [], 0
        for line in stream:
            if not line.endswith(b"\n"):
                break
            ids.append(json.loads(line)["id"])
            whole += len(line)
        stream.truncate(whole)
    return ids
