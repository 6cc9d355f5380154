"""What each kind of task asks of a model: its classes, how its labels are encoded, and how its answers are scored."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.metrics import f1_score as label_f1_score
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from kg.errors import UserError
from kg.snapshot import Snapshot
from kg.types import Candidate, Link
from models.batch import PAIR, KnowledgeEncoder
from models.examples import Example, Mention
from models.kgbert import (
    KGBertForRelationClassification,
    KGBertForSequenceClassification,
    KGBertForTokenClassification,
)
from models.relation_classifier import RelationClassifier

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

    main_metric: ClassVar[str]
    auto_class: ClassVar[Any]
    kgbert_class: ClassVar[Any]

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
    main_metric: ClassVar[str] = "accuracy"
    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    kgbert_class: ClassVar[Any] = KGBertForSequenceClassification

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
    main_metric: ClassVar[str] = "f1"
    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    kgbert_class: ClassVar[Any] = KGBertForTokenClassification

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


@dataclass(frozen=True)
class RelationClassification(SequenceClassification):
    """The relation between two mentions, each put between marks of its own.

    Marks are plain signs, ``@ head @`` and ``# tail #``, which every vocabulary has ("entity marker (punct)", arXiv
    2102.01373); a mention's knowledge is read at its marks, too. Entities are those that the data names.
    """

    auto_class: ClassVar[Any] = RelationClassifier
    kgbert_class: ClassVar[Any] = KGBertForRelationClassification

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        index = {label: number for number, label in enumerate(self.labels)}
        features = []
        for example in examples:
            text, spans = marked(example)
            links = [link for span in spans if (link := named_link(encoder.linker.snapshot, text, span)) is not None]
            feature = encoder.encode_linked(text, links)
            offsets = feature.pop("offsets")
            places = pair_positions([(span.start, span.end) for span in spans], offsets)
            features.append({**feature, PAIR: places, "labels": index[str(example.label)]})
        return features


MARKS = ("@", "#")
"""Before and after the head, and the tail."""


def marked(example: Example) -> tuple[str, list[Mention]]:
    """The text with marks around its pair, and head and tail with their marks in it."""
    assert example.pair is not None
    order = sorted((0, 1), key=lambda which: example.pair[which].start)  # type: ignore[index]
    parts: list[str] = []
    spans: dict[int, Mention] = {}
    position = length = 0
    for which in order:
        mention, mark = example.pair[which], MARKS[which]
        before = example.text[position : mention.start]
        inside = f"{mark} {example.text[mention.start : mention.end]} {mark}"
        start = length + len(before)
        spans[which] = Mention(start=start, end=start + len(inside), entity=mention.entity)
        parts += [before, inside]
        position, length = mention.end, start + len(inside)
    return "".join([*parts, example.text[position:]]), [spans[0], spans[1]]


def spans_of_marks(text: str) -> list[tuple[int, int]]:
    """Head and tail with their marks, as ``marked`` puts them.

    Raises:
        UserError: the text does not have each pair of marks once.
    """
    found = [[match.span() for match in re.finditer(rf"{mark} \S(?:.*?\S)?? {mark}", text)] for mark in MARKS]
    if not all(len(spans) == 1 for spans in found):
        raise UserError(
            "A relation is asked of a text with its head between @ and @ and its tail between # and #, each once, "
            f"as in '@ Acme @ owns # Borealis #.'; got {text[:60]!r}"
        )
    return [spans[0] for spans in found]


def pair_positions(spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The first token of each span; the first of the text where it was cut off."""
    return [next((i for i, (s, e) in enumerate(offsets) if s >= start and e > s), 0) for start, _ in spans]


def named_link(snapshot: Snapshot, text: str, mention: Mention) -> Link | None:
    """The link that the data itself states; None where its entity is not in the graph."""
    index = snapshot.index.get(mention.entity or "")
    if mention.entity is None or index is None:
        return None
    name = snapshot.names[index]
    candidate = Candidate(entity=index, id=mention.entity, name=name, prior=1.0, score=1.0)
    return Link(
        start=mention.start,
        end=mention.end,
        text=text[mention.start : mention.end],
        id=mention.entity,
        name=name,
        confidence=1.0,
        candidates=(candidate,),
    )


def objective_for(kind: str, examples: Sequence[Example]) -> Objective:
    """The objective of a task, with the labels that its examples show, in sorted order."""
    if kind == "token_classification":
        return TokenClassification(tuple(sorted({tag for example in examples for tag in example.tags})))
    of_labels = RelationClassification if kind == "relation_classification" else SequenceClassification
    return of_labels(tuple(sorted({str(example.label) for example in examples})))
