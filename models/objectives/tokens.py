"""A tag for each word."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from transformers import AutoModelForTokenClassification

from models.batch import KnowledgeEncoder
from models.examples import Example
from models.kgbert import KGBertForTokenClassification
from models.objectives.objective import Loss, Objective, Reading, Scored, Span, cross_entropy


@dataclass(frozen=True)
class TokenClassification(Objective):
    """A tag for each word, IOB2; sub-tokens after a word's first are not asked."""

    main_metric: ClassVar[str] = "f1"
    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    kgbert_class: ClassVar[Any] = KGBertForTokenClassification
    needs: ClassVar[tuple[str, ...]] = ("words", "tags")

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        return cls(tuple(sorted({tag for example in everything for tag in example.tags})))

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

    def loss(self, features: Sequence[Mapping[str, Any]], *, balanced: bool) -> Loss | None:
        labels = [label for feature in features for label in feature["labels"]]
        return cross_entropy(labels, len(self.labels)) if balanced else None

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        predicted = []
        for row, feature, example in zip(outputs, features, examples, strict=True):
            asked = [position for position, label in enumerate(feature["labels"]) if label != -100]
            answer = [self.labels[int(row[position].argmax())] for position in asked]
            predicted.append(answer + ["O"] * (len(example.tags) - len(answer)))  # words cut off count as missed
        return predicted

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        gold = [list(example.tags) for example in examples]
        counts = []
        for answer, tags in zip(predictions, gold, strict=True):
            found, true = set(get_entities(answer)), set(get_entities(tags))
            counts.append([2.0 * len(found & true), float(len(found) + len(true))])
        return Scored(
            metrics={
                "f1": float(f1_score(gold, predictions, zero_division=0)),
                "precision": float(precision_score(gold, predictions, zero_division=0)),
                "recall": float(recall_score(gold, predictions, zero_division=0)),
            },
            counts=np.array(counts),
            predictions=predictions,
        )

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        words = words_of(text, feature["offsets"])
        tokens = [token for token, _, _ in words]
        best_tags = row[tokens].argmax(-1)
        given = row[tokens, best_tags]
        found = get_entities([self.labels[index] for index in best_tags])
        spans = tuple(
            Span(
                start=words[first][1],
                end=words[last][2],
                text=text[words[first][1] : words[last][2]],
                label=label,
                probability=round(float(given[first : last + 1].mean()), 4),
            )
            for label, first, last in found
        )
        within = [word for _, first, last in found for word in range(first, last + 1)] or list(range(len(tokens)))
        return Reading(
            said="; ".join(f"{span.text}:{span.label}" for span in spans),
            spans=spans,
            asked=([tokens[word] for word in within], [int(best_tags[word]) for word in within]),
            probabilities={},
        )


def words_of(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(first token, start, end) of each word that has a token; words and single marks, as the tasks are split."""
    first_token: dict[int, int] = {}
    for token, (start, end) in enumerate(offsets):
        if end > start:
            first_token.setdefault(start, token)
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    return [(first_token[start], start, end) for start, end in spans if start in first_token]
