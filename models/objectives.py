"""What each kind of task asks of a model: its classes, how its labels are encoded, and how its answers are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.metrics import f1_score as label_f1_score
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from models.batch import KnowledgeEncoder
from models.data import Example
from models.kgbert import KGBertForSequenceClassification, KGBertForTokenClassification

METRICS: Mapping[str, str] = {
    "accuracy": "share of texts whose label is predicted right",
    "macro_f1": "mean over labels of the F1 of each label",
    "f1": "micro F1 over spans, exact boundaries and type (seqeval, IOB2)",
    "precision": "share of predicted spans that are right, exact boundaries and type",
    "recall": "share of gold spans that are found, exact boundaries and type",
}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Answers of one model on one set of examples."""

    metrics: Mapping[str, float]
    counts: NDArray[np.float64]
    """``[examples, 2]``: each example's share of the main metric's numerator and denominator (``models.proof``)."""
    predictions: list[Any]
    confusion: NDArray[np.int64] | None = None
    """``[labels, labels]``: gold by predicted."""


class Objective(Protocol):
    """One per kind of task; a new kind is a class like the two below and a line in ``objective_for``."""

    main_metric: str
    auto_class: Any
    kgbert_class: Any

    @property
    def labels(self) -> tuple[str, ...]:
        """What it tells apart, in the order of the logits."""

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        """Model inputs with ``labels``, one dict an example, not padded."""

    def score(
        self, logits: Sequence[NDArray[np.float32]], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> Scored:
        """Compare ``logits`` (one array an example, padding cut off) with what the examples say."""


@dataclass(frozen=True)
class SequenceClassification:
    """One label for a text."""

    labels: tuple[str, ...]
    main_metric = "accuracy"
    auto_class = AutoModelForSequenceClassification
    kgbert_class = KGBertForSequenceClassification

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        index = {label: number for number, label in enumerate(self.labels)}
        features = encoder.encode_texts([example.text for example in examples])
        return [
            {**feature, "labels": index[str(example.label)]}
            for feature, example in zip(features, examples, strict=True)
        ]

    def score(
        self, logits: Sequence[NDArray[np.float32]], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> Scored:
        predicted = [self.labels[int(row.argmax())] for row in logits]
        gold = [str(example.label) for example in examples]
        right = np.array([p == g for p, g in zip(predicted, gold, strict=True)], dtype=float)
        return Scored(
            metrics={
                "accuracy": float(accuracy_score(gold, predicted)),
                "macro_f1": float(
                    label_f1_score(gold, predicted, average="macro", labels=self.labels, zero_division=0)
                ),
            },
            counts=np.stack([right, np.ones_like(right)], axis=1),
            predictions=predicted,
            confusion=confusion_matrix(gold, predicted, labels=self.labels),
        )


@dataclass(frozen=True)
class TokenClassification:
    """A tag for each word, IOB2; sub-tokens after a word's first are not asked."""

    labels: tuple[str, ...]
    main_metric = "f1"
    auto_class = AutoModelForTokenClassification
    kgbert_class = KGBertForTokenClassification

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        index = {label: number for number, label in enumerate(self.labels)}
        features = encoder.encode_words([example.words for example in examples])
        for feature, example in zip(features, examples, strict=True):
            words = feature.pop("word_ids")
            feature["labels"] = [
                -100 if word is None or word == before else index[example.tags[word]]
                for before, word in zip([None, *words], words, strict=False)
            ]
        return features

    def score(
        self, logits: Sequence[NDArray[np.float32]], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> Scored:
        gold = [list(example.tags) for example in examples]
        predicted = []
        for row, feature, tags in zip(logits, features, gold, strict=True):
            asked = [position for position, label in enumerate(feature["labels"]) if label != -100]
            answer = [self.labels[int(row[position].argmax())] for position in asked]
            predicted.append(answer + ["O"] * (len(tags) - len(answer)))  # words cut off count as missed
        counts = []
        for answer, tags in zip(predicted, gold, strict=True):
            found, true = set(get_entities(answer)), set(get_entities(tags))
            counts.append([2.0 * len(found & true), float(len(found) + len(true))])
        return Scored(
            metrics={
                "f1": float(f1_score(gold, predicted, zero_division=0)),
                "precision": float(precision_score(gold, predicted, zero_division=0)),
                "recall": float(recall_score(gold, predicted, zero_division=0)),
            },
            counts=np.array(counts),
            predictions=predicted,
        )


def objective_for(kind: str, examples: Sequence[Example]) -> Objective:
    """The objective of a task, with the labels that its examples show, in sorted order."""
    if kind == "token_classification":
        return TokenClassification(tuple(sorted({tag for example in examples for tag in example.tags})))
    return SequenceClassification(tuple(sorted({str(example.label) for example in examples})))
