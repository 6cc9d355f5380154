"""From graph embedding, signature and text to rows of the entity table, by bases that are fitted once and kept."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA, TruncatedSVD
from torch import Tensor
from transformers import AutoModel

from kg.errors import ConfigError, InputError
from kg.snapshot import Snapshot
from models.base import load_base
from models.entity_table import FIRST, EntityTable
from models.gnn import EntityEncoder, embed
from models.graph import Data, triples_of

Array: TypeAlias = NDArray[np.float64]
FILE = "reduction.safetensors"
BUCKETS = 65_536
LEAST_VARIANCE = 1e-12
"""Of a component, against the mean square length of the values; below it there is only rounding, which whitening
would blow up."""


@dataclass(frozen=True)
class Basis:
    """Whitened principal components of one part: ``values @ matrix - offset``."""

    matrix: Array
    """``[values, size]``; columns of zeros where there are fewer components than ``size``."""
    offset: Array
    """``[size]``: where the mean of what it was fitted on lies."""

    @classmethod
    def fit(cls, values: Array, size: int) -> "Basis":
        """Components with unit variance over ``values`` ``[nodes, values]``."""
        wanted = min(size, *values.shape)
        if not wanted:
            return cls(np.zeros((values.shape[1], size)), np.zeros(size))
        with np.errstate(invalid="ignore"):  # values without variance have no shares of it
            pca = PCA(wanted, random_state=0).fit(values)
        variance = pca.explained_variance_
        real = variance > LEAST_VARIANCE * np.vdot(values, values) / len(values)
        scale = np.divide(1, np.sqrt(variance), out=np.zeros(wanted), where=real)
        matrix = np.pad(pca.components_.T * scale, ((0, 0), (0, size - wanted)))
        return cls(matrix, pca.mean_ @ matrix)

    def project(self, values: Array | csr_matrix) -> Array:
        """``[nodes, values]`` to ``[nodes, size]``, in [-5, 5]."""
        projected: Array = np.clip(values @ self.matrix - self.offset, -5, 5)
        return projected


@dataclass(frozen=True)
class Reduction:
    """What makes a row of the table; fitted on the graph that the model was trained with, it stays with the run.

    Each part is reduced by itself to about a third of the row and whitened, so that none drowns the others (where no
    encoder was trained, the signature has its share, too); rows get
    the mean norm of the base model's word embeddings, which injected vectors need to be read at all (PELT,
    arXiv 2207.01772).
    """

    embedding: Basis
    signature: Basis
    text: Basis
    columns: NDArray[np.int64]
    """Columns of ``signature_counts`` that the graph had; others say nothing to the model."""
    norm: float

    @classmethod
    def fit(cls, embeddings: Tensor, counts: csr_matrix, features: Tensor, *, dim: int, norm: float) -> "Reduction":
        """
        Args:
            embeddings: ``[nodes, encoder dim]``. counts: see ``signature_counts``. features: ``[nodes, text_dim]``.
            dim: of a row. norm: length of a row.

        Raises:
            ConfigError: one node has nothing to differ from.
        """
        if len(features) < 2:
            raise ConfigError(f"A table needs two entities or more; the graph has {len(features)}.")
        text_dim = dim // 3
        embedding_dim = dim - 2 * text_dim if embeddings.any() else 0  # an encoder that was not trained says nothing
        signature_dim = dim - text_dim - embedding_dim
        with np.errstate(invalid="ignore"):  # a graph without edges
            svd = TruncatedSVD(min(signature_dim, len(features) - 1), random_state=0).fit(counts)
        components = svd.components_.T
        reduced = Basis.fit(counts @ components, signature_dim)
        columns = np.unique(counts.indices).astype(np.int64)
        return cls(
            embedding=Basis.fit(_double(embeddings), embedding_dim),
            signature=Basis(components[columns] @ reduced.matrix, reduced.offset),
            text=Basis.fit(_double(features), text_dim),
            columns=columns,
            norm=norm,
        )

    def rows(self, embeddings: Tensor, counts: csr_matrix, features: Tensor) -> Tensor:
        """Rows ``[nodes, dim]`` of the nodes whose three parts are given; each depends on its own parts alone."""
        parts = (
            self.embedding.project(_double(embeddings)),
            self.signature.project(counts[:, self.columns]),
            self.text.project(_double(features)),
        )
        vectors = np.concatenate(parts, axis=1)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return torch.from_numpy(vectors / np.maximum(lengths, 1e-6) * self.norm).float()

    def save(self, folder: Path) -> None:
        """Write ``reduction.safetensors`` into a folder that exists."""
        arrays = {
            f"{name}.{part}": np.ascontiguousarray(getattr(basis, part))
            for name, basis in (("embedding", self.embedding), ("signature", self.signature), ("text", self.text))
            for part in ("matrix", "offset")
        }
        save_file({**arrays, "columns": self.columns, "norm": np.array([self.norm])}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Reduction":
        """Read what ``save`` wrote.

        Raises:
            InputError: it is not there, or it is broken.
        """
        try:
            arrays = load_file(folder / FILE)
            embedding, signature, text = (
                Basis(arrays[f"{name}.matrix"], arrays[f"{name}.offset"]) for name in ("embedding", "signature", "text")
            )
            return cls(embedding, signature, text, arrays["columns"], float(arrays["norm"][0]))
        except (OSError, KeyError, IndexError, SafetensorError) as error:
            raise InputError(
                folder / FILE, f"missing or broken ({error}); train the run anew in another folder"
            ) from error


def build_table(
    encoder: EntityEncoder, graph: Data, features: Tensor, snapshot: Snapshot, base: str, *, dim: int = 128
) -> tuple[EntityTable, Reduction]:
    """The table of a graph, and the reduction that new rows of it are to be made with."""
    embeddings = embed(encoder, graph, features)
    counts = signature_counts(graph, np.arange(len(features)))
    words: Tensor = load_base(base, AutoModel).get_input_embeddings().weight.detach()  # type: ignore[operator]
    reduction = Reduction.fit(embeddings, counts, features, dim=dim, norm=float(words.norm(dim=1).mean()))
    vectors = torch.cat([torch.zeros(FIRST, dim), reduction.rows(embeddings, counts, features)])
    return EntityTable(tuple(snapshot.ids), vectors, snapshot.hash, encoder_hash(encoder)), reduction


def encoder_hash(encoder: EntityEncoder) -> str:
    """Of the weights that a table was made with."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def signature_counts(graph: Data, trained: NDArray[np.int64]) -> csr_matrix:
    """How often an entity has each relation in each direction, and which entities it points to with which relation.

    log(1 + count) of the directions, beside a hashed indicator of (relation, tail): ``[nodes, 2 relations + buckets]``.

    Args:
        trained: index of each node in the graph that the bases were fitted on, -1 for a new one: nothing was learned
            of pointing to it, so that is not said, the relation is.
    """
    heads, relations, tails = (column.numpy() for column in triples_of(graph).unbind(1))
    num_nodes, num_relations = int(graph.num_nodes or 0), int(graph.num_relations)
    known = trained[tails] >= 0
    pointed = 2 * num_relations + (relations * 1_000_003 + trained[tails])[known] % BUCKETS
    rows = np.concatenate([heads, tails, heads[known]])
    columns = np.concatenate([relations, relations + num_relations, pointed])
    counts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(num_nodes, 2 * num_relations + BUCKETS))
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    return counts


def _double(values: Tensor) -> Array:
    return values.numpy().astype(np.float64)
