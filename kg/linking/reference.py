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

    @classmethod
    def to(cls, linker: Linker) -> "LinkerReference":
        snapshot = linker.snapshot
        return cls(snapshot.path.absolute(), snapshot.hash, linker.threshold, linker.max_candidates)

    def open(self) -> Linker:
        """Raises ``SnapshotMismatch`` where the folder has another snapshot by now."""
        linker = Linker.load(self.snapshot, threshold=self.threshold, max_candidates=self.max_candidates)
        check_hash(linker, self.hash)
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
