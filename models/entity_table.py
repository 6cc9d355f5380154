"""The entity table: one frozen vector an entity, kept outside the model's weights, because knowledge is data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kg.errors import InputError, SnapshotMismatch
from kg.snapshot import Snapshot

PADDING, NULL, FIRST = 0, 1, 2
"""Rows of the table: padding, the NULL entity, then entity ``i`` of the snapshot at ``i + FIRST``."""


@dataclass(frozen=True)
class EntityTable:
    """Vectors ``[num_entities + 2, dim]`` with the ids that they belong to."""

    ids: tuple[str, ...]
    vectors: Tensor
    snapshot_hash: str
    encoder_hash: str

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.ids) + FIRST:
            raise ValueError(f"{len(self.vectors)} rows for {len(self.ids)} entities; expected {len(self.ids) + FIRST}")

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def rows(self) -> dict[str, int]:
        """Row of each entity id."""
        return {entity_id: row for row, entity_id in enumerate(self.ids, FIRST)}

    @classmethod
    def random(cls, *, num_entities: int, dim: int, seed: int = 0) -> "EntityTable":
        """Vectors that say nothing: for tests, and as a control."""
        vectors = torch.randn(num_entities + FIRST, dim, generator=torch.Generator().manual_seed(seed))
        vectors[:FIRST] = 0
        return cls(tuple(f"random:{i}" for i in range(num_entities)), vectors, "random", f"random-{seed}")

    def shuffled(self, seed: int, *, groups: Sequence[int] | None = None) -> "EntityTable":
        """The same vectors at other entities: what a gain has to vanish with.

        Args:
            groups: one number an entity; vectors are exchanged within a group. Entities that are alone in theirs are
                exchanged among each other; where there is just one, it alone keeps its own.
        """
        rng = np.random.default_rng(seed)
        of = np.zeros(len(self.ids), dtype=np.int64) if groups is None else np.asarray(groups, dtype=np.int64)
        values, counts = np.unique(of, return_counts=True)
        of = np.where(np.isin(of, values[counts == 1]), -1, of)
        order = rng.permutation(len(of))
        order = order[np.argsort(of[order], kind="stable")]  # at random within each group
        target = np.empty(len(of), dtype=np.int64)
        for part in np.split(order, np.flatnonzero(np.diff(of[order])) + 1):
            target[part] = np.roll(part, 1)  # one cycle: all of a part move, unless it is one
        vectors = self.vectors.clone()
        vectors[FIRST:] = self.vectors[FIRST:][torch.from_numpy(target)]
        within = "" if groups is None else "-alike"
        return EntityTable(self.ids, vectors, self.snapshot_hash, f"{self.encoder_hash}-shuffled{within}-{seed}")

    def emptied(self) -> "EntityTable":
        """The same entities, of none of which anything is known."""
        return EntityTable(self.ids, torch.zeros_like(self.vectors), self.snapshot_hash, f"{self.encoder_hash}-empty")

    def randomised(self, seed: int) -> "EntityTable":
        """The same entities with vectors that say nothing, as long as the real ones."""
        drawn = torch.randn(self.vectors.shape, generator=torch.Generator().manual_seed(seed))
        vectors = drawn / drawn.norm(dim=1, keepdim=True) * self.vectors.norm(dim=1, keepdim=True)
        return EntityTable(self.ids, vectors, self.snapshot_hash, f"{self.encoder_hash}-random-{seed}")

    def check(self, snapshot: Snapshot) -> None:
        """Raises SnapshotMismatch when the table was built from another snapshot."""
        if snapshot.hash != self.snapshot_hash:
            raise SnapshotMismatch(
                f"The entity table was built from snapshot {self.snapshot_hash[:16]}; {snapshot.path} is "
                f"{snapshot.hash[:16]}. Use the snapshot that the run names, or train again."
            )

    def save(self, folder: Path) -> None:
        """Write ``entity_table.safetensors`` and ``entity_table.json`` into a folder that exists."""
        save_file({"vectors": self.vectors.contiguous()}, folder / "entity_table.safetensors")
        about = {"ids": self.ids, "snapshot_hash": self.snapshot_hash, "encoder_hash": self.encoder_hash}
        (folder / "entity_table.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> "EntityTable":
        """Read what ``save`` wrote.

        Raises:
            InputError: there is no table in the folder, or it is broken.
        """
        folder = Path(folder)
        if not (folder / "entity_table.json").is_file():
            raise InputError(folder, "holds no entity table (entity_table.json)")
        try:
            about = json.loads((folder / "entity_table.json").read_text(encoding="utf-8"))
            vectors = load_file(folder / "entity_table.safetensors")["vectors"]
            return cls(tuple(about["ids"]), vectors, about["snapshot_hash"], about["encoder_hash"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(folder, f"holds an entity table that cannot be read ({error}); build it anew") from error
