"""The entity table: one frozen vector an entity, kept outside the model's weights, because knowledge is data."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA, TruncatedSVD
from torch import Tensor
from transformers import AutoModel

from kg.errors import ConfigError, InputError, SnapshotMismatch
from kg.snapshot import Snapshot
from models.base import load_base
from models.gnn import EntityEncoder, embed
from models.graph import Data, triples_of

Array: TypeAlias = NDArray[np.float64]
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

    def shuffled(self, seed: int) -> "EntityTable":
        """The same vectors at other entities: what a gain has to vanish with. No entity keeps its own."""
        count = len(self.ids)
        rng = np.random.default_rng(seed)
        order = rng.permutation(count)
        # Sattolo's cycle over a random order: every entity moves
        target = np.empty(count, dtype=np.int64)
        target[order] = np.roll(order, 1)
        vectors = self.vectors.clone()
        vectors[FIRST:] = self.vectors[FIRST:][torch.from_numpy(target)]
        return EntityTable(self.ids, vectors, self.snapshot_hash, f"{self.encoder_hash}-shuffled-{seed}")

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


def build_table(
    encoder: EntityEncoder, graph: Data, features: Tensor, snapshot: Snapshot, base: str, *, dim: int = 128
) -> EntityTable:
    """Graph embedding, signature of types and relations, and text, whitened to ``dim`` and scaled to the base model.

    Each part is reduced by itself to about a third of ``dim`` and whitened, so that none drowns the others; rows get
    the mean norm of the base model's word embeddings, which injected vectors need to be read at all (PELT,
    arXiv 2207.01772).
    """
    thirds = [dim - 2 * (dim // 3), dim // 3, dim // 3]
    parts: Sequence[tuple[Array, int]] = (
        (embed(encoder, graph, features).numpy(), thirds[0]),
        (signatures(graph, thirds[1]), thirds[1]),
        (features.numpy(), thirds[2]),
    )
    if len(features) < 2:
        raise ConfigError(f"A table needs two entities or more; the graph has {len(features)}.")
    columns = [whitened(part, size) for part, size in parts]
    vectors = torch.from_numpy(np.concatenate(columns, axis=1)).float()
    words: Tensor = load_base(base, AutoModel).get_input_embeddings().weight.detach()  # type: ignore[operator]
    vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-6) * words.norm(dim=1).mean()
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return EntityTable(
        tuple(snapshot.ids), torch.cat([torch.zeros(FIRST, dim), vectors]), snapshot.hash, digest.hexdigest()[:32]
    )


def signatures(graph: Data, size: int) -> Array:
    """How often an entity has each relation in each direction, and which entities it points to with which relation.

    log(1 + count) of the directions, beside a hashed indicator of (relation, tail); a truncated SVD makes it
    ``[nodes, size]``.
    """
    heads, relations, tails = (column.numpy() for column in triples_of(graph).unbind(1))
    num_nodes, num_relations = int(graph.num_nodes or 0), int(graph.num_relations)
    rows = np.concatenate([heads, tails, heads])
    pointed = 2 * num_relations + (relations * 1_000_003 + tails) % 65_536
    columns = np.concatenate([relations, relations + num_relations, pointed])
    counts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(num_nodes, 2 * num_relations + 65_536))
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    wanted = min(size, num_nodes - 1)
    reduced: Array = TruncatedSVD(wanted, random_state=0).fit_transform(counts)
    return reduced


def whitened(values: Array, size: int) -> Array:
    """Principal components with unit variance, padded with zeros where there are fewer than ``size``."""
    wanted = min(size, *values.shape)
    reduced = PCA(wanted, whiten=True, random_state=0).fit_transform(values.astype(np.float64))
    clipped = np.clip(np.nan_to_num(reduced), -5, 5)  # a component without variance has none to give
    return np.pad(clipped, ((0, 0), (0, size - wanted)))
