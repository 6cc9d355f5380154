"""One label for a text, several labels, or one label for a text and what is put to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch import Tensor, nn

from models.batch import KnowledgeEncoder
from models.classifiers import SequenceClassifier
from models.examples import Example
from models.kgbert import KGBertForSequenceClassification
from models.objectives.objective import Loss, Objective, Reading, Scored, by_label, cross_entropy


@dataclass(frozen=True)
class SequenceClassification(Objective):
    """One label for a text."""

    main_metric: ClassVar[str] = "accuracy"
    auto_class: ClassVar[Any] = SequenceClassifier
    kgbert_class: ClassVar[Any] = KGBertForSequenceClassification

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        features = encoder.encode_texts([example.text for example in examples])
        return self.labelled(features, examples)

    def labelled(self, features: Sequence[dict[str, Any]], examples: Sequence[Example]) -> list[dict[str, Any]]:
        index = {label: number for number, label in enumerate(self.labels)}
        return [
            {**feature, "labels": index[str(example.label)]}
            for feature, example in zip(features, examples, strict=True)
        ]

    def loss(self, features: Sequence[Mapping[str, Any]], *, balanced: bool) -> Loss | None:
        return cross_entropy([feature["labels"] for feature in features], len(self.labels)) if balanced else None

    def confidences(self, outputs: Sequence[Any]) -> list[float] | None:
        sure = self.probabilities(torch.tensor(np.stack(outputs))).numpy().max(-1)
        return [round(float(value), 4) for value in sure]

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        gold = [str(example.label) for example in examples]
        right = np.array([p == g for p, g in zip(predictions, gold, strict=True)], dtype=float)
        return Scored(
            metrics={
                "accuracy": float(accuracy_score(gold, predictions)),
                "macro_f1": float(f1_score(gold, predictions, average="macro", labels=self.labels, zero_division=0)),
            },
            counts=np.stack([right, np.ones_like(right)], axis=1),
            predictions=predictions,
            confusion=confusion_matrix(gold, predictions, labels=self.labels),
        )


@dataclass(frozen=True)
class PairClassification(SequenceClassification):
    """One label for a text and what is put to it: inference, paraphrase, a question answered yes, no or maybe.

    What is put to the text is read first: behind texts of 200 tokens, at another place each time, MiniLM learnt nothing
    of ContractNLI's hypotheses in 400 steps.
    """

    needs: ClassVar[tuple[str, ...]] = ("label", "second")
    pairs: ClassVar[bool] = True

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        windows = encoder.encode_pairs([(example.text, example.second) for example in examples])
        return self.labelled([feature for (feature,) in windows], examples)


@dataclass(frozen=True)
class MultiLabelClassification(Objective):
    """Any number of labels for a text: those above one threshold, the best on the validation texts."""

    threshold: float = 0.5

    main_metric: ClassVar[str] = "micro_f1"
    auto_class: ClassVar[Any] = SequenceClassifier
    kgbert_class: ClassVar[Any] = KGBertForSequenceClassification
    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        return cls(tuple(sorted({label for example in everything for label in example.labels})))

    def options(self) -> dict[str, Any]:
        return {**super().options(), "problem_type": "multi_label_classification"}

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        features = encoder.encode_texts([example.text for example in examples])
        gold = self._matrix([example.labels for example in examples]).astype(float).tolist()
        return [{**feature, "labels": row} for feature, row in zip(features, gold, strict=True)]

    def loss(self, features: Sequence[Mapping[str, Any]], *, balanced: bool) -> Loss | None:
        """Balanced: a text that has a label weighs as much as all those together that have it not."""
        if not balanced:
            return None
        gold = np.array([feature["labels"] for feature in features])
        weight = torch.tensor((len(gold) - gold.sum(0)) / gold.sum(0).clip(1), dtype=torch.float32)

        def loss(output: Any, targets: Tensor, **_: Any) -> Tensor:
            logits = output.logits.float()
            return nn.functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight.to(logits.device))

        return loss

    def probabilities(self, raw: Tensor) -> Tensor:
        return torch.sigmoid(raw.float())

    def calibrated(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> Objective:
        if not examples:
            return self
        tried = [replace(self, threshold=round(float(at), 2)) for at in np.linspace(0.05, 0.95, 19)]
        tried.sort(key=lambda one: abs(one.threshold - 0.5))  # of equals, the one nearest to a half
        reached = [one.score(one.answers(outputs, features, examples), examples).metrics["micro_f1"] for one in tried]
        return tried[int(np.argmax(reached))]

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        sure = self.probabilities(torch.tensor(np.stack(outputs))).numpy() >= self.threshold
        return [[label for label, has in zip(self.labels, row, strict=True) if has] for row in sure]

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        gold, given = self._matrix([example.labels for example in examples]), self._matrix(predictions)
        right, all_there_are = 2 * (gold & given), gold + given
        return Scored(
            metrics={  # of a single label scikit-learn would take its absence for another
                "micro_f1": float(right.sum() / max(all_there_are.sum(), 1)),
                "macro_f1": float((right.sum(0) / all_there_are.sum(0).clip(1)).mean()),
                "exact_set": float((gold == given).all(axis=1).mean()),
            },
            counts=np.stack([right.sum(1), all_there_are.sum(1)], axis=1).astype(float),
            predictions=predictions,
        )

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        found = [int(index) for index in np.flatnonzero(row >= self.threshold)]
        labels = tuple(self.labels[index] for index in found)
        return Reading(
            said=", ".join(labels),
            labels=labels,
            asked=(found or [int(row.argmax())],),
            probabilities=by_label(self.labels, row),
        )

    def _matrix(self, chosen: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """``[examples, labels]``, 1 where an example has the label."""
        return np.array([[int(label in labels) for label in self.labels] for labels in map(set, chosen)], dtype=int)
