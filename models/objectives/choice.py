"""The right one of several choices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kg.types import Link
from models.batch import PARTS, KnowledgeEncoder, shifted
from models.classifiers import SequenceClassifier
from models.examples import Example
from models.frozen import Collate
from models.kgbert import KGBertForSequenceClassification
from models.objectives.objective import Loss, Objective, Reading, Scored, by_label, predict_raw


@dataclass(frozen=True)
class MultipleChoice(Objective):
    """One number for the text with the question and each of its choices; the highest is the answer.

    A sequence classifier with one logit, which, unlike ``…ForMultipleChoice``, is there for every family; and examples
    may differ in how many choices they have.
    """

    main_metric: ClassVar[str] = "accuracy"
    auto_class: ClassVar[Any] = SequenceClassifier
    kgbert_class: ClassVar[Any] = KGBertForSequenceClassification
    needs: ClassVar[tuple[str, ...]] = ("label", "choices")
    pairs: ClassVar[bool] = True
    from_states: ClassVar[bool] = False
    explains_words: ClassVar[bool] = False

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        return cls()

    def options(self) -> dict[str, Any]:
        return {"num_labels": 1}

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        said = [text for example in examples for text in (example.text, example.second, *example.choices)]
        links = iter(encoder.linker.link_batch(said))
        features = []
        for example in examples:
            own = [next(links) for _ in range(2 + len(example.choices))]
            feature = encode_choices(example, own, encoder)
            features.append({**feature, "labels": [int(choice == example.label) for choice in example.choices]})
        return features

    def loss(self, features: Sequence[Mapping[str, Any]], *, balanced: bool) -> Loss:
        def loss(output: Any, targets: Tensor, **_: Any) -> Tensor:
            """Cross-entropy over the choices of each example; ``targets`` is 1 at the right one, below 0 where none."""
            scores = torch.full(targets.shape, -torch.inf, device=targets.device)
            scores = scores.masked_scatter(targets >= 0, output.logits.float().flatten())
            return nn.functional.cross_entropy(scores, targets.argmax(1))

        return loss

    def predict(self, model: nn.Module, features: Sequence[dict[str, Any]], collate: Collate) -> list[Any]:
        rows = predict_raw(model, [part for feature in features for part in feature[PARTS]], collate, self.raw)
        ends = list(accumulate(len(feature[PARTS]) for feature in features))
        return np.split(np.concatenate(rows), ends[:-1])

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        return [example.choices[int(row.argmax())] for row, example in zip(outputs, examples, strict=True)]

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        right = np.array([given == ex.label for given, ex in zip(predictions, examples, strict=True)], dtype=float)
        return Scored(
            metrics={"accuracy": float(right.mean())},
            counts=np.stack([right, np.ones_like(right)], axis=1),
            predictions=predictions,
        )

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        choices, best = feature["choices"], int(row.argmax())
        return Reading(said=choices[best], label=choices[best], asked=([best],), probabilities=by_label(choices, row))


def encode_choices(example: Example, links: Sequence[Sequence[Link]], encoder: KnowledgeEncoder) -> dict[str, Any]:
    """A feature whose parts are the text with the question and one choice each.

    Args:
        links: of the text, of the question, and of each choice. A link's number is its place in all of them in turn.
    """
    of_text, of_question, *of_choices = links
    behind = len(example.text) + 1
    first = [*of_text, *shifted(of_question, behind)]
    parts, number = [], len(first)
    for choice, found in zip(example.choices, of_choices, strict=True):
        before = f"{example.second} " if example.second else ""
        (part,) = encoder.encode_pair(example.text, before + choice, [*first, *shifted(found, behind + len(before))])
        moved = [link if link < len(first) else link - len(first) + number for link in part["mention_links"]]
        parts.append({**part, "mention_links": moved})
        number += len(found)
    longest = max(parts, key=lambda part: len(part["input_ids"]))
    entities = [mention for part in parts for mention in part["mention_entities"]]
    return {
        "input_ids": longest["input_ids"],
        "mention_entities": entities,
        "choices": example.choices,
        PARTS: parts,
    }
