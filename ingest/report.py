"""The load report: every statement that was read is accounted for, as written, skipped (why) or quarantined."""

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil

from kg.errors import ConfigError
from kg.parallel import Engine

MAX_LISTED, MAX_TEXT = 1000, 200


@dataclass
class Report:
    """Counts of one load, filled while it runs."""

    source: str
    release: str = ""
    licence: str = ""
    """What whoever passes the content on has to heed; recorded with the source."""
    read: int = 0
    """Statements in the input: triples of RDF, lines or clauses of other formats."""
    kept: Counter[str] = field(default_factory=Counter)
    """Statements by what became of them: ``relationship``, ``name``, ``definition``, ``property``, ``tail`` …"""
    skipped: Counter[str] = field(default_factory=Counter)
    """Statements not loaded, by reason."""
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    """Unreadable input: file, line, reason, and how it begins; the first thousand."""
    num_quarantined: int = 0
    quarantine_file: Path | None = None
    """Gets all unreadable input as it is found, as JSON lines."""
    max_bad: int | None = None
    """Readers of lines stop when more than so many are unreadable; None to go on whatever comes."""
    engine: Engine = "local"
    """Where RDF is parsed: ``local``, or on ``ray``."""
    work: Path | None = None
    """Folder for what is in between, as large as the unpacked input; default the one for temporary files."""
    written: Counter[str] = field(default_factory=Counter)
    """What the load changed in Neo4j: ``nodes``, ``relationships``, ``properties``."""
    removed: Counter[str] = field(default_factory=Counter)
    """What it took away: ``nodes`` that the source asserts no longer, ``relationships`` that were deleted."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Of a refresh, how the release differs from what the graph held."""
    snapshot: str | None = None
    """The snapshot that a refresh made."""
    notes: list[str] = field(default_factory=list)
    path: str = "transactional"
    started: float = field(default_factory=time.monotonic)
    server_cpu_seconds: float = 0.0

    def keep(self, outcome: str, count: int = 1) -> None:
        if count:
            self.kept[outcome] += count

    def skip(self, reason: str, count: int = 1) -> None:
        if count:
            self.skipped[reason] += count

    def quarantine(self, file: Path, line: int, reason: str, text: str = "") -> None:
        """Count what cannot be read, and write it down.

        Args:
            text: the line, or how it begins.
        """
        entry = {"file": str(file), "line": line, "reason": reason, "text": text[:MAX_TEXT]}
        self.num_quarantined += 1
        if len(self.quarantined) < MAX_LISTED:
            self.quarantined.append(entry)
        if self.quarantine_file is not None:
            self.quarantine_file.parent.mkdir(parents=True, exist_ok=True)
            with self.quarantine_file.open("w" if self.num_quarantined == 1 else "a", encoding="utf-8") as out:
                out.write(json.dumps(entry, ensure_ascii=False) + "\n")

    @property
    def balances(self) -> bool:
        """True when read = kept + skipped + quarantined."""
        return self.read == sum(self.kept.values()) + sum(self.skipped.values()) + self.num_quarantined

    def as_json(self) -> dict[str, Any]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = time.process_time() + children.ru_utime + children.ru_stime
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return {
            "source": self.source,
            "release": self.release,
            "read": self.read,
            "kept": dict(sorted(self.kept.items())),
            "written": {name: self.written[name] for name in ("nodes", "relationships", "properties")},
            "removed": {name: self.removed[name] for name in ("nodes", "relationships")},
            "changes": self.changes,
            "skipped": dict(sorted(self.skipped.items())),
            "quarantined": self.num_quarantined,
            "quarantine": self.quarantined,
            "balances": self.balances,
            "notes": self.notes,
            "snapshot": self.snapshot,
            "seconds": round(time.monotonic() - self.started, 2),
            "cpu_seconds": round(own + self.server_cpu_seconds, 2),
            "peak_rss_mb": round(peak / 1024),
            "path": self.path,
        }

    def save(self, file: Path) -> None:
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.rename(file)


@contextmanager
def writing(file: Path, option: str) -> Iterator[None]:
    """A block that writes ``file``, or prepares to; entered only if its folder can be made and written.

    Raises:
        ConfigError: the file or its folder cannot be written; ``option`` names it.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with TemporaryFile(dir=file.parent):
            pass
        yield
    except OSError as error:
        raise ConfigError(f"{option}: {file} cannot be written ({error.strerror}); name another place.") from error


def cpu_seconds_of(pid: int | None) -> float:
    """CPU seconds that a process has used so far; 0 for one that is not ours to see."""
    try:
        times = psutil.Process(pid).cpu_times() if pid else None
    except psutil.Error:
        return 0.0
    return float(times.user + times.system) if times else 0.0
