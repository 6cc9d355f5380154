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

from models.batch import IGNORED, PARTS, KnowledgeEncoder, parts_of
from models.examples import Example
from models.kgbert import KGBertForTokenClassification
from models.objectives.objective import Loss, Objective, Reading, Scored, Span, cross_entropy

ASKED = "asked"
"""Of a window, the words that are asked in it, and the first token of each."""


@dataclass(frozen=True)
class TokenClassification(Objective):
    """A tag for each word, IOB2; sub-tokens after a word's first are not asked.

    A long text is read in windows that overlap, and a word is asked where most of its neighbours are read, too.
    """

    main_metric: ClassVar[str] = "f1"
    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    kgbert_class: ClassVar[Any] = KGBertForTokenClassification
    needs: ClassVar[tuple[str, ...]] = ("words", "tags")
    windowed: ClassVar[bool] = True

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        return cls(tuple(sorted({tag for example in everything for tag in example.tags})))

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        index = {label: number for number, label in enumerate(self.labels)}
        features = []
        read = encoder.encode_words([example.words for example in examples])
        for number, (windows, example) in enumerate(zip(read, examples, strict=True)):
            first = [_first_tokens(window.pop("word_ids")) for window in windows]
            for window, asked in zip(windows, in_context(windows, first), strict=True):
                if not asked and len(windows) > 1:  # the middle of a word that is longer than a window
                    continue
                labels = [IGNORED] * len(window["input_ids"])
                for word, token in asked.items():
                    labels[token] = index[example.tags[word]]
                features.append({**window, ASKED: asked, "labels": labels, "example": number})
        return features

    def loss(self, features: Sequence[Mapping[str, Any]], *, balanced: bool) -> Loss | None:
        labels = [label for feature in features for label in feature["labels"]]
        return cross_entropy(labels, len(self.labels)) if balanced else None

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        tags: dict[int, dict[int, str]] = {}
        for row, feature in zip(outputs, features, strict=True):
            of_example = tags.setdefault(feature["example"], {})
            of_example.update({word: self.labels[int(row[token].argmax())] for word, token in feature[ASKED].items()})
        return [
            [found.get(word, "O") for word in range(len(example.tags))]  # of some words nothing is left to read
            for found, example in zip(tags.values(), examples, strict=True)
        ]

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
        """``row`` is ``[seq, labels]``, of a text in windows ``[windows, seq, labels]``."""
        windows = parts_of(feature)
        words = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]  # and single marks, as tasks are split
        at_start = {start: word for word, (start, _) in enumerate(words)}
        first = [
            _first_tokens([at_start.get(start) if end > start else None for start, end in window["offsets"]])
            for window in windows
        ]
        places = sorted(
            (word, window, token)
            for window, asked in enumerate(in_context(windows, first))
            for word, token in asked.items()
        )
        rows = row.reshape(len(windows), -1, row.shape[-1])
        at = tuple(np.array([place[axis] for place in places], dtype=int) for axis in (1, 2))
        best_tags = rows[at].argmax(-1)
        given = rows[at].max(-1)
        found = get_entities([self.labels[index] for index in best_tags])
        spans = tuple(
            Span(
                start=start,
                end=end,
                text=text[start:end],
                label=label,
                probability=round(float(given[begin : last + 1].mean()), 4),
            )
            for label, begin, last in found
            for start, end in [(words[places[begin][0]][0], words[places[last][0]][1])]
        )
        within = [place for _, begin, last in found for place in range(begin, last + 1)] or list(range(len(places)))
        token_axes = at if PARTS in feature else at[1:]
        return Reading(
            said="; ".join(f"{span.text}:{span.label}" for span in spans),
            spans=spans,
            asked=(*(axis[within].tolist() for axis in token_axes), best_tags[within].tolist()),
            probabilities={},
        )


def in_context(windows: Sequence[Mapping[str, Any]], first: Sequence[Mapping[int, int]]) -> list[dict[int, int]]:
    """Of each window of one text the words that are asked in it, and the token: each word once, where it is farthest
    from both ends.

    Args:
        first: of each window, its words and the first token of each.
    """
    best: dict[int, tuple[int, int, int]] = {}
    for number, (window, tokens) in enumerate(zip(windows, first, strict=True)):
        last = len(window["input_ids"]) - 1
        for word, token in tokens.items():
            context = min(token, last - token)
            if word not in best or context > best[word][0]:
                best[word] = context, number, token
    asked: list[dict[int, int]] = [{} for _ in windows]
    for word, (_, number, token) in sorted(best.items()):
        asked[number][word] = token
    return asked


def _first_tokens(words: Sequence[int | None]) -> dict[int, int]:
    """The first token of each word, by the word that each token is of."""
    first: dict[int, int] = {}
    for token, word in enumerate(words):
        if word is not None:
            first.setdefault(word, token)
    return first
