"""A linker as a pointer to its snapshot, for other processes and later ones: it opens that snapshot or none."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from kg.errors import SnapshotMismatch
from kg.linking.linker import Linker


class LinkerReference(NamedTuple):
    """What it takes to open an equal linker where the snapshot's folder can be read."""

    snapshot: Path
    hash: str
    threshold: float
    max_candidates: int
    ranker: Path | None
    ranker_hash: str | None
    graph: bool

    @classmethod
    def to(cls, linker: Linker) -> "LinkerReference":
        snapshot, ranker = linker.snapshot, linker.ranker
        return cls(
            snapshot.path.absolute(),
            snapshot.hash,
            linker.threshold,
            linker.max_candidates,
            ranker.folder.absolute() if ranker else None,
            ranker.hash if ranker else None,
            linker.graph,
        )

    def open(self) -> Linker:
        """Raises ``SnapshotMismatch`` where the folder has another snapshot, or the ranker's another ranker, by now."""
        linker = Linker.load(
            self.snapshot,
            ranker=self.ranker,
            threshold=self.threshold,
            max_candidates=self.max_candidates,
            graph=self.graph,
        )
        check_hash(linker, self.hash)
        if linker.ranker is not None and linker.ranker.hash != self.ranker_hash:
            raise SnapshotMismatch(f"{self.ranker} is ranker {linker.ranker.hash}, and {self.ranker_hash} was used.")
        return linker


opened = lru_cache(maxsize=1)(LinkerReference.open)
"""The linker of a reference; a process opens it once."""


def check_hash(linker: Linker, expected: str) -> None:
    """Raises ``SnapshotMismatch`` naming both hashes where the linker's snapshot is not the expected one."""
    if linker.snapshot.hash != expected:
        raise SnapshotMismatch(
            f"{linker.snapshot.path} is snapshot {linker.snapshot.hash}, and {expected} was saved; "
            "name the folder of that one, or save again with this one."
        )
