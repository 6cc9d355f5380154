"""Filtered ranks of link prediction: by side, by relation and by degree."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from models.graph import with_inverses
from models.propagation import starts_of

Scorer: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(heads ``[pairs]``, relations ``[pairs]``) → scores of all nodes as tails ``[pairs, nodes]``."""
SCORES_AT_ONCE = 2**24
DEGREES = (0, 1, 3, 10, 30, 100)
"""Where the classes of ``by_degree`` begin."""


class Pairs:
    """Unique (head, relation) pairs with all their tails, as CSR."""

    def __init__(self, triples: Tensor, *, num_relations: int) -> None:
        self.num_relations = num_relations
        keys = self.keys_of(triples[:, 0], triples[:, 1])
        order = torch.argsort(keys, stable=True)
        self.keys, places = torch.unique_consecutive(keys[order], return_inverse=True)
        self.tails = triples[order, 2]
        self.starts = starts_of(places, len(self.keys))

    def __len__(self) -> int:
        return len(self.keys)

    def keys_of(self, heads: Tensor, relations: Tensor) -> Tensor:
        """One number for each pair."""
        return heads * self.num_relations + relations

    def heads(self, index: Tensor) -> Tensor:
        heads: Tensor = self.keys[index] // self.num_relations
        return heads

    def relations(self, index: Tensor) -> Tensor:
        relations: Tensor = self.keys[index] % self.num_relations
        return relations

    def tails_of(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(row, tail) for every tail of the pairs ``index``; row counts from 0."""
        counts = self.starts[index + 1] - self.starts[index]
        rows = torch.repeat_interleave(torch.arange(len(index)), counts)
        offsets = torch.arange(len(rows)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        return rows, self.tails[torch.repeat_interleave(self.starts[index], counts) + offsets]

    def find(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Indices of pairs that are known to be there."""
        return torch.searchsorted(self.keys, self.keys_of(heads, relations))


def filtered_ranks(score: Scorer, both: Tensor, known: Pairs, *, num_nodes: int) -> Tensor:
    """Rank of each tail among those that are not known to be right ``[triples]``.

    It is realistic: the mean of what ties would give at best and at worst (arXiv 2002.06914).
    """
    ranks = torch.empty(len(both))
    for rows in torch.arange(len(both)).split(max(1, min(512, SCORES_AT_ONCE // num_nodes))):
        heads, relations, tails = both[rows].unbind(1)
        scores = score(heads, relations)
        right = scores.gather(1, tails[:, None])
        others, also = known.tails_of(known.find(heads, relations))
        scores[others, also] = -torch.inf
        ranks[rows] = 1 + (scores > right).sum(1) + (scores == right).sum(1) / 2
    return ranks


def rank_report(score: Scorer, triples: Tensor, known: Pairs, *, degrees: Tensor) -> dict[str, Any]:
    """Metrics of ``triples`` on both sides: ``mrr``, ``hits@1``, ``hits@3``, ``hits@10``.

    Each also below ``head`` and ``tail``, and under ``by_relation`` and ``by_degree`` (of the node that is looked for).

    Args:
        known: all known pairs with their tails, with inverses. degrees: of nodes in training ``[nodes]``.
    """
    half = known.num_relations // 2
    both = with_inverses(triples, half)
    with torch.inference_mode():
        ranks = filtered_ranks(score, both, known, num_nodes=len(degrees))
    relations, classes = both[:, 1] % half, torch.bucketize(degrees[both[:, 2]], torch.tensor(DEGREES), right=True) - 1
    return {
        **_metrics(ranks),
        "head": _metrics(ranks[len(triples) :]),
        "tail": _metrics(ranks[: len(triples)]),
        "by_relation": {int(one): _metrics(ranks[relations == one]) for one in relations.unique()},
        "by_degree": {f"{DEGREES[int(one)]}+": _metrics(ranks[classes == one]) for one in classes.unique()},
    }


def _metrics(ranks: Tensor) -> dict[str, float]:
    return {
        "mrr": float((1 / ranks).mean()),
        **{f"hits@{k}": float((ranks <= k).float().mean()) for k in (1, 3, 10)},
        "ranks": len(ranks),
    }
