"""The entity encoder: text-initialised relational message passing.

Decoders DistMult (arXiv 1412.6575), ComplEx (arXiv 1606.06357) and, with squared distance, TransE (NeurIPS 2013).
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.base import fast_bf16
from models.graph import Data, triples_of, with_inverses
from models.propagation import Composition, Edges

INITIAL = 1e-3
"""Standard deviation of what is learned; Adagrad's first steps are as long as its learning rate whatever it is."""


@dataclass(frozen=True, kw_only=True)
class GNNConfig:
    """Shape and training of the entity encoder."""

    dim: int = 200
    num_layers: int = 1
    """Message passing layers; 0 gives plain embeddings of row and text, the baseline."""
    composition: Literal["compgcn", "rgcn", "none"] = "compgcn"
    """Of a layer; none: it does not hear its neighbours, the baseline of the same size."""
    decoder: Literal["distmult", "complex", "transe"] = "complex"
    optimizer: Literal["adam", "adagrad"] = "adam"
    """Adam with normalised states suits texts and layers; Adagrad, small at the start, suits plain embeddings, and
    large graphs, where it touches only the rows that have gradients."""
    epochs: int = 60
    """0 trains nothing: embeddings are zeros, and a table is made of signatures and texts alone."""
    batch_size: int = 2048
    """Unique (head, relation) pairs a step."""
    learning_rate: float = 1e-2
    """Adagrad wants 0.1, which falls to nothing with the epochs."""
    matrix_learning_rate: float = 1e-2
    """Of what all nodes share, with Adagrad: text projection and layers, where steps of many values add up."""
    dropout: float = 0.1
    row_dropout: float = 0.15
    """Share of nodes whose learned row is hidden in a step, so that the encoder can do without one."""
    edge_dropout: float = 0.1
    label_smoothing: float = 0.1
    regularization: float = 0.0
    """Weight of the cubed moduli of both entities and of the relation of a triple (N3)."""
    num_negatives: int = 1024
    """Shared negatives a step above ``SAMPLED_ABOVE`` entities."""
    fan_out: int = 10
    """Neighbours that a node hears in a step, at most, above ``WHOLE_GRAPH_EDGES`` edges."""
    evaluate_every: int = 5
    patience: int = 3
    """Evaluations without a better validation MRR after which training ends."""
    seed: int = 0


class EntityEncoder(nn.Module):
    """Node texts and neighbours to entity embeddings, with relation embeddings for composing and for scoring."""

    def __init__(self, *, num_nodes: int, num_relations: int, text_dim: int, config: GNNConfig) -> None:
        super().__init__()
        self.config, self.num_relations = config, num_relations
        dim = config.dim
        self.text = nn.Linear(text_dim, dim)
        adagrad = config.optimizer == "adagrad"
        self.rows = nn.Embedding(num_nodes, dim, sparse=adagrad)
        self.layers = nn.ModuleList(
            Composition(dim, 2 * num_relations, config.composition) for _ in range(config.num_layers)
        )
        self.norm = nn.Identity() if adagrad else nn.LayerNorm(dim)
        self.relations = nn.Embedding(2 * num_relations, dim)
        self.bias = None if adagrad else nn.Parameter(torch.zeros(num_nodes))
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.rows.weight, std=INITIAL if adagrad else dim**-0.5)
        nn.init.normal_(self.relations.weight, std=INITIAL if adagrad else 0.1)
        if adagrad:
            nn.init.normal_(self.text.weight, std=INITIAL)
            nn.init.zeros_(self.text.bias)

    def forward(self, edges: Edges, features: Tensor, *, learned: Tensor | None = None) -> Tensor:
        """Embeddings of all nodes ``[nodes, dim]``.

        Args:
            edges: with inverses. features: text features ``[nodes, text_dim]``.
            learned: which learned row each node has ``[nodes]``, -1 for a new node: it has none and gets text and
                neighbours. None: node ``i`` has row ``i``.
        """
        if learned is None:
            rows: Tensor = self.rows.weight
        else:
            rows = self.rows(learned.clamp(min=0)) * (learned >= 0)[:, None]
        if self.training:
            rows = rows * (torch.rand(len(rows), 1) >= self.config.row_dropout)
        states = self.text(features) + rows
        for layer in self.layers:
            states = states + layer(self.dropout(states), edges)
        out: Tensor = self.dropout(self.norm(states))
        return out

    def score(
        self,
        entities: Tensor,
        heads: Tensor,
        relations: Tensor,
        tails: Tensor | None = None,
        *,
        nodes: Tensor | None = None,
    ) -> Tensor:
        """Scores of ``[pairs]`` (head, relation) against candidate tails: ``[pairs, tails]``.

        Args:
            entities: ``[nodes, dim]``. heads, relations: indices ``[pairs]``. tails: candidates ``[tails]``; all: None.
            nodes: which nodes ``entities`` are, where they are not all.
        """
        decoder = DECODERS[self.config.decoder]
        query = decoder.query(entities[heads], self.relations(relations))
        candidates = entities if tails is None else entities[tails]
        with torch.autocast(entities.device.type, torch.bfloat16, enabled=self.training and fast_bf16()):
            products = (query @ candidates.T).float()
        if decoder.distance:
            products = products - (query.square().sum(1)[:, None] + candidates.square().sum(1)) / 2
        if self.bias is not None:
            bias = self.bias if nodes is None else self.bias[nodes]
            products = products + (bias if tails is None else bias[tails])
        return products


def _distmult(heads: Tensor, relations: Tensor) -> Tensor:
    return heads * relations


def _complex(heads: Tensor, relations: Tensor) -> Tensor:
    """Re⟨h, r, conj(t)⟩ as a real product: first half of the dimensions is real, second imaginary."""
    (a, b), (c, d) = heads.chunk(2, dim=-1), relations.chunk(2, dim=-1)
    return torch.cat([a * c - b * d, a * d + b * c], dim=-1)


def _complex_modulus(values: Tensor) -> Tensor:
    real, imaginary = values.chunk(2, dim=-1)
    return (real.square() + imaginary.square() + 1e-20).sqrt()  # at 0 a root has no gradient


class Decoder(NamedTuple):
    """A way to score a triple."""

    query: Callable[[Tensor, Tensor], Tensor]
    """(head, relation) → ``[pairs, dim]``; its inner product with a tail is the score."""
    modulus: Callable[[Tensor], Tensor]
    """Of each value of an embedding."""
    distance: bool = False
    """Half the squared distance from the tail, negative, is the score."""


DECODERS: Mapping[str, Decoder] = {
    "distmult": Decoder(_distmult, torch.abs),
    "complex": Decoder(_complex, _complex_modulus),
    "transe": Decoder(torch.add, torch.abs, distance=True),
}


def load_encoder(folder: Path) -> EntityEncoder:
    """The encoder that ``train_gnn`` left in ``folder``."""
    config = GNNConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    weights = load_file(folder / "encoder.safetensors")
    encoder = EntityEncoder(
        num_nodes=len(weights["rows.weight"]),
        num_relations=len(weights["relations.weight"]) // 2,
        text_dim=weights["text.weight"].shape[1],
        config=config,
    )
    encoder.load_state_dict(weights)
    return encoder.eval()


def embed(
    encoder: EntityEncoder,
    graph: Data,
    features: Tensor,
    *,
    learned: Tensor | None = None,
    nodes: Tensor | None = None,
) -> Tensor:
    """Embeddings of all nodes from the whole graph ``[nodes, dim]``, or of some of them from what they hear of.

    Computed in double precision and rounded: a matrix product rounds by the number of its rows, and a node's
    embedding is not to depend on which others are asked for.

    Args:
        learned: as in ``EntityEncoder.forward``.
        nodes: sorted indices of those wanted; all when None.
    """
    edges = with_inverses(triples_of(graph), encoder.num_relations)
    wanted = torch.arange(len(features)) if nodes is None else nodes
    learned = torch.arange(len(features)) if learned is None else learned
    field, edges = receptive_field(edges, wanted, hops=len(encoder.layers), num_nodes=len(features))
    edges = relabelled(edges, field)
    with torch.inference_mode():
        precise = copy.deepcopy(encoder).eval().double()
        out: Tensor = precise(Edges(edges, len(field)), features[field].double(), learned=learned[field])
    return out[torch.searchsorted(field, wanted)].float().clone()


def relabelled(triples: Tensor, nodes: Tensor) -> Tensor:
    """``[edges, 3]`` between indices into the sorted ``nodes``."""
    ends = torch.searchsorted(nodes, triples[:, [0, 2]].contiguous())
    return torch.stack([ends[:, 0], triples[:, 1], ends[:, 1]], dim=1)


def receptive_field(edges: Tensor, nodes: Tensor, *, hops: int, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Sorted nodes and ``[edges, 3]`` that the embeddings of ``nodes`` are made from; edges keep their order."""
    inside = torch.zeros(num_nodes, dtype=torch.bool).index_fill(0, nodes, True)
    heard = torch.zeros(len(edges), dtype=torch.bool)
    for _ in range(hops):
        heard = inside[edges[:, 2]]
        inside = inside.index_fill(0, edges[heard, 0], True)
    return inside.nonzero()[:, 0], edges[heard]


def affected_nodes(edges: Tensor, *, restated: Tensor, rewired: Tensor, hops: int) -> Tensor:
    """True where an embedding or the edges of a node are not what they were ``[nodes]``.

    Args:
        edges: ``[edges, 3]`` of the new graph, with inverses.
        restated: True where a node is new or its text is another ``[nodes]``.
        rewired: True where an edge came or went: its messages, and their number, are others ``[nodes]``.
        hops: layers of the encoder.
    """
    affected = restated
    for _ in range(hops):
        affected = (affected | rewired).index_fill(0, edges[affected[edges[:, 0]], 2], True)
    return affected | rewired
