"""What a model gives for a feature, and for variants of it whose mentions are taken away."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from threading import Event
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from kg.errors import KGError
from models.batch import PARTS, KnowledgeCollator, parts_of
from models.mentions import Weights, weigh
from models.objectives import Objective, Seq2SeqGeneration

BATCH = 16
T = TypeVar("T")


class Variants:
    """The runs of one answer. A part that several variants have with the same mentions is run once: of a long text most
    windows.
    """

    def __init__(
        self, model: PreTrainedModel, collate: KnowledgeCollator, objective: Objective, abandoned: Event | None
    ) -> None:
        """
        Args:
            abandoned: set when nobody waits for the answer any more.
        """
        self.model, self.collate, self.objective, self.abandoned = model, collate, objective, abandoned
        self.weights: Weights = {}
        """What the first variant read of each link."""
        self._rows: dict[tuple[int, ...], Tensor] = {}

    def batches(self, items: Iterable[T]) -> Iterator[list[T]]:
        """All of them, ``BATCH`` at a time.

        Raises:
            KGError: the answer was abandoned.
        """
        left = iter(items)
        while batch := list(islice(left, BATCH)):
            if self.abandoned is not None and self.abandoned.is_set():
                raise KGError("Nobody waits for this answer any more; it was given up.")
            yield batch

    def run(self, variants: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
        """Probabilities of each variant."""
        named = [{_name(place, part): part for place, part in enumerate(parts_of(variant))} for variant in variants]
        todo = {name: part for parts in named for name, part in parts.items() if name not in self._rows}
        with torch.inference_mode():
            for batch in self.batches(todo.items()):
                output = self.model(**self.collate([part for _, part in batch]))
                self._rows |= {name: row for (name, _), row in zip(batch, self.objective.raw(output), strict=True)}
                weigh(self.weights, output, [part if name in named[0] else None for name, part in batch])
            raw = _stacked([self._rows[name] for parts in named for name in parts])
            if PARTS in variants[0]:
                raw = raw.reshape(len(variants), -1, *raw.shape[1:]).squeeze(-1)
            return self.objective.probabilities(raw).numpy()

    def write(
        self, objective: Seq2SeqGeneration, variants: Sequence[dict[str, Any]]
    ) -> tuple[list[str], NDArray[np.float32]]:
        """What each variant writes, and how probable it finds each token that the first one wrote."""
        written = [ids for batch in self.batches(variants) for ids in objective.write(self.model, batch, self.collate)]
        rows: list[NDArray[np.float32]] = []
        with torch.inference_mode():
            for batch in self.batches([objective.with_target(variant, written[0]) for variant in variants]):
                output = self.model(**objective.forced(self.collate(batch), self.model))
                weigh(self.weights, output, [] if rows else [variants[0]])
                rows.append(objective.token_probabilities(output, written[0]).numpy())
        return [objective.text(ids, self.collate) for ids in written], np.concatenate(rows)


def _name(place: int, part: Mapping[str, Any]) -> tuple[int, ...]:
    """Tells the parts of all variants apart: which one it is, and the links that it reads."""
    return place, *part["mention_links"]


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """One tensor of all; what is token-wise is made equally long."""
    return torch.stack(list(rows)) if rows[0].ndim < 2 else pad_sequence(list(rows), batch_first=True)
