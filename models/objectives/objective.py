"""What every kind of task has to say of itself, and the figures that answers are scored by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.batch import KnowledgeEncoder, batches_by_length, on_device_of
from models.examples import Example
from models.frozen import Collate

METRICS: Mapping[str, str] = {
    "accuracy": "share of texts whose label, or choice, is predicted right",
    "macro_f1": "mean over labels of the F1 of each label",
    "micro_f1": "F1 over all labels of all texts, each right label counted once",
    "exact_set": "share of texts whose set of labels is predicted right",
    "r2": "1 - squared errors / squared distances from the mean of the training values; 0 is what that mean reaches",
    "pearson": "correlation of predicted and true values; 0 where one of them does not vary",
    "spearman": "correlation of their ranks; 0 where one of them does not vary",
    "mae": "mean absolute error, in the units of the values",
    "f1": "micro F1 over spans, exact boundaries and type (seqeval, IOB2)",
    "precision": "share of predicted spans that are right, exact boundaries and type",
    "recall": "share of gold spans that are found, exact boundaries and type",
    "answer_f1": "mean over questions of the F1 of the answer's words with the nearest accepted one (SQuAD 2.0)",
    "exact_match": "share of questions whose answer is an accepted one, less case, articles and marks (SQuAD 2.0)",
    "rouge_l": "mean over texts of the F1 of the longest common subsequence, stemmed (rouge-score)",
    "rouge_1": "mean over texts of the F1 of words, stemmed (rouge-score)",
    "rouge_2": "mean over texts of the F1 of word pairs, stemmed (rouge-score)",
    "bleu": "corpus BLEU, 13a tokens, in [0, 1] (sacrebleu)",
    "chrf": "corpus chrF2, in [0, 1] (sacrebleu)",
}
UNSCALED = ("mae",)
"""Metrics that have the units of the data, where all others are shares."""
Asked: TypeAlias = tuple[list[int], ...]
"""Where the probabilities of an answer stand: ``[labels]``, or ``[tokens], [labels]``."""
Loss: TypeAlias = Callable[..., Tensor]
"""``loss(output, labels)``; the Trainer gives ``num_items_in_batch`` besides."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Answers of one model on one set of examples."""

    metrics: Mapping[str, float]
    counts: NDArray[np.float64]
    """``[examples, 2]``: each example's share of the main metric's numerator and denominator (``models.proof``)."""
    predictions: list[Any]
    confusion: NDArray[np.int64] | None = None
    """``[labels, labels]``: gold by predicted."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of the text that a model found."""

    start: int
    end: int
    text: str
    label: str
    probability: float
    """Mean over its words; over its two ends for an answer."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An answer to one text as a person reads it, and where its probabilities stand."""

    said: str
    """In a line."""
    asked: Asked
    label: str | None = None
    labels: tuple[str, ...] = ()
    value: float | None = None
    spans: tuple[Span, ...] = ()
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Objective:
    """One per kind of task: a new kind is a class like those beside this module, and a line in ``KINDS``."""

    labels: tuple[str, ...] = ()
    """What it tells apart, in the order of the logits."""

    main_metric: ClassVar[str]
    """A ratio of sums over examples, so that the paired bootstrap of ``models.proof`` is exact for it."""
    auto_class: ClassVar[Any]
    kgbert_class: ClassVar[Any]
    needs: ClassVar[tuple[str, ...]] = ("label",)
    """Fields that an example of this kind has."""
    pairs: ClassVar[bool] = False
    """Whether something is put to the text; its features then are of both, joined by a line end."""
    from_states: ClassVar[bool] = True
    """Whether training may begin with what frozen blocks gave: one text a feature, one pass an answer."""
    windowed: ClassVar[bool] = False
    """Whether a text that is too long is read in windows; else its end is cut off."""
    explains_words: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    """Whether answers are new text."""

    @classmethod
    def reads_second(cls) -> bool:
        """Whether what is put to a text is read at all."""
        return cls.pairs or cls.writes

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> "Objective":
        """With the labels that the examples show, in sorted order.

        Args:
            options: how text is written, where it is.
        """
        return cls(tuple(sorted({str(example.label) for example in everything})))

    def options(self) -> dict[str, Any]:
        """What the configuration of a base model is told."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
        }

    def state(self) -> dict[str, Any]:
        """What a saved model has to know to answer, beside its weights: kept in its configuration."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        """Model inputs with labels, not padded: one dict an example, or several that name it under ``example``."""
        raise NotImplementedError

    def loss(self, features: Sequence[Mapping[str, Any]], *, balanced: bool) -> Loss | None:
        """What is minimised; None: what the model itself computes.

        Args:
            balanced: labels weigh as much as they are rare in ``features``.
        """
        return None

    def raw(self, output: Any) -> Tensor:
        """What of a model's output the answers are read from."""
        return logits_of(output)

    def probabilities(self, raw: Tensor) -> Tensor:
        """What ``raw`` says, in the form that ``read`` takes."""
        return torch.softmax(raw.float(), dim=-1)

    def predict(self, model: nn.Module, features: Sequence[dict[str, Any]], collate: Collate) -> list[Any]:
        """What the model gives for each feature, padding cut off."""
        return predict_raw(model, features, collate, self.raw)

    def calibrated(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> "Objective":
        """With the thresholds that are best for these validation examples."""
        return self

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        """The answer to each example, in the form that the report keeps."""
        return [self.labels[int(row.argmax())] for row in outputs]

    def confidences(self, outputs: Sequence[Any]) -> list[float] | None:
        """Probability of the label that is answered for each text; None where a text has not one label."""
        return None

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        """Compare the answers with what the examples say."""
        raise NotImplementedError

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        """The answer for one text, from ``probabilities`` of its feature."""
        best = int(row.argmax())
        return Reading(
            said=self.labels[best], label=self.labels[best], asked=([best],), probabilities=by_label(self.labels, row)
        )


def by_label(labels: Sequence[str], row: NDArray[np.float32]) -> dict[str, float]:
    return {label: round(float(value), 4) for label, value in zip(labels, row, strict=True)}


def logits_of(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def predict_raw(
    model: nn.Module,
    features: Sequence[dict[str, Any]],
    collate: Collate,
    raw: Callable[[Any], Tensor] = logits_of,
    *,
    batch_size: int = 32,
) -> list[NDArray[np.float32]]:
    """``raw`` of each feature in the order given; what is token-wise has the feature's own length."""
    model.eval()
    found: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for indices in batches_by_length(features, batch_size):
            batch = collate([features[index] for index in indices])
            batch.pop("labels", None)
            output = raw(model(**on_device_of(model, batch))).float().cpu().numpy()
            masks = batch["attention_mask"].bool().numpy()
            for index, row, mask in zip(indices, output, masks, strict=True):
                found[index] = row[mask] if row.ndim > 1 else row
    return [found[index] for index in range(len(features))]


def cross_entropy(labels: Sequence[int], num_labels: int) -> Loss:
    """Cross-entropy in which a label of ``labels`` weighs n / (number of labels there · its count), as scikit-learn's
    ``balanced``; labels that are not there weigh nothing, those below 0 do not count."""
    counts = np.bincount([label for label in labels if label >= 0], minlength=num_labels)
    weights = np.divide(counts.sum() / max((counts > 0).sum(), 1), counts, out=np.zeros(num_labels), where=counts > 0)
    weight = torch.tensor(weights, dtype=torch.float32)

    def loss(output: Any, targets: Tensor, **_: Any) -> Tensor:
        logits = output.logits.float().flatten(0, -2)
        return nn.functional.cross_entropy(logits, targets.flatten(), weight=weight.to(logits.device))

    return loss
