"""The words of a text that answer a question, or that it does not say."""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForQuestionAnswering

from models.batch import ANSWER, KnowledgeEncoder
from models.examples import Example
from models.kgbert import KGBertForQuestionAnswering
from models.objectives.objective import Loss, Objective, Reading, Scored, Span

MAX_ANSWER_TOKENS = 30
SILENCE = "silence"
"""Of a window of a long text: how much higher it scores that there is no answer than the window that does it least."""


@dataclass(frozen=True)
class QuestionAnswering(Objective):
    """An answer is words of the text, as SQuAD 2.0 has it; a long text is read in windows that overlap.

    Where the text does not say, start and end are the first token; an answer counts when it is more likely than that
    by ``threshold``, the best one on the validation questions.
    """

    threshold: float = 0.0

    main_metric: ClassVar[str] = "answer_f1"
    auto_class: ClassVar[Any] = AutoModelForQuestionAnswering
    kgbert_class: ClassVar[Any] = KGBertForQuestionAnswering
    needs: ClassVar[tuple[str, ...]] = ("second",)
    pairs: ClassVar[bool] = True
    windowed: ClassVar[bool] = True

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        return cls()

    def options(self) -> dict[str, Any]:
        return {}

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        windows = encoder.encode_pairs([(example.text, example.second) for example in examples], windows=True)
        return [
            {**feature, ANSWER: _place(feature["offsets"], example), "example": number}
            for number, (example, features) in enumerate(zip(examples, windows, strict=True))
            for feature in features
        ]

    def loss(self, features: Sequence[Mapping[str, Any]], *, balanced: bool) -> Loss:
        def loss(output: Any, targets: Tensor, **_: Any) -> Tensor:
            both = zip((output.start_logits, output.end_logits), targets.unbind(1), strict=True)
            parts = [nn.functional.cross_entropy(logits.float(), target) for logits, target in both]
            return (parts[0] + parts[1]) / 2

        return loss

    def raw(self, output: Any) -> Tensor:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)

    def probabilities(self, raw: Tensor) -> Tensor:
        """``[batch, seq, 2]``: of each token, that the answer starts there, and that it ends there."""
        return torch.softmax(raw.float(), dim=-2)

    def calibrated(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> Objective:
        if not examples:
            return self
        found = self._found(outputs, features, examples)
        margins = np.array([margin for margin, _ in found])
        given = np.array([answer_f1(said, example.answers) for (_, said), example in zip(found, examples, strict=True)])
        silent = np.array([float(not example.answers) for example in examples])
        order = np.sort(margins)
        cuts = [order[0] - 1.0, *((order[1:] + order[:-1]) / 2), order[-1] + 1.0, 0.0]  # of equals, the first
        reached = [float(np.where(margins > cut, given, silent).mean()) for cut in cuts]
        return replace(self, threshold=round(float(cuts[int(np.argmax(reached))]), 4))

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        found = self._found(outputs, features, examples)
        return [said if margin > self.threshold else "" for margin, said in found]

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        f1 = np.array([answer_f1(given, example.answers) for given, example in zip(predictions, examples, strict=True)])
        exact = [
            float(plain_words(given) in [plain_words(text) for _, text in example.answers or ((0, ""),)])
            for given, example in zip(predictions, examples, strict=True)
        ]
        return Scored(
            metrics={"answer_f1": float(f1.mean()), "exact_match": float(np.mean(exact))},
            counts=np.stack([f1, np.ones_like(f1)], axis=1),
            predictions=predictions,
        )

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        _, margin, first, last = best_span(np.log(row.clip(1e-30)), feature["offsets"], len(text))
        if margin + feature.get(SILENCE, 0.0) <= self.threshold:
            return Reading(said="", asked=([0, 0], [0, 1]), probabilities={})
        start, end = feature["offsets"][first][0], feature["offsets"][last][1]
        sure = round(float(row[[first, last], [0, 1]].mean()), 4)
        span = Span(start=start, end=end, text=text[start:end], label="answer", probability=sure)
        return Reading(said=span.text, spans=(span,), asked=([first, last], [0, 1]), probabilities={})

    def best_window(self, outputs: Sequence[Any], windows: Sequence[dict[str, Any]], text: str) -> dict[str, Any]:
        """Of a text's windows the one that ``read`` finds the answer in."""
        scores = [best_span(row, window["offsets"], len(text))[0] for row, window in zip(outputs, windows, strict=True)]
        best, silent = int(np.argmax(scores)), [float(row[0].sum()) for row in outputs]
        return {**windows[best], SILENCE: silent[best] - min(silent)}

    def _found(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[tuple[float, str]]:
        """The best answer to each example over its windows, and by how much it is more likely than that there is none.

        None there is when every window says so, hence the least of what they give it.
        """
        ranks: dict[int, int] = {}
        best: dict[int, tuple[float, str]] = {}
        silent: dict[int, float] = defaultdict(lambda: float("inf"))
        for row, feature in zip(outputs, features, strict=True):
            number, offsets = ranks.setdefault(feature["example"], len(ranks)), feature["offsets"]
            text = examples[number].text
            score, _, first, last = best_span(row, offsets, len(text))
            said = text[offsets[first][0] : offsets[last][1]]
            best[number] = max(best.get(number, (-np.inf, "")), (score, said), key=lambda pair: pair[0])
            silent[number] = min(silent[number], float(row[0].sum()))
        return [(best[number][0] - silent[number], best[number][1]) for number in range(len(examples))]


def best_span(
    row: NDArray[np.float32], offsets: Sequence[tuple[int, int]], length: int
) -> tuple[float, float, int, int]:
    """Score of the best span of tokens of the text, by how much it beats that there is none, first and last token.

    Args:
        row: score of each token as start and as end ``[seq, 2]``. length: code points of the text; what is behind it
            in ``offsets`` is the question.
    """
    within = np.array([end > start and end <= length for start, end in offsets])
    if not within.any():
        return -np.inf, -np.inf, 0, 0
    scores = np.where(np.outer(within, within), row[:, :1] + row[:, 1], -np.inf)
    longer = np.subtract.outer(np.arange(len(row)), np.arange(len(row))).T  # last token less first
    scores = np.where((longer >= 0) & (longer < MAX_ANSWER_TOKENS), scores, -np.inf)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    score = float(scores[first, last])
    return score, score - float(row[0].sum()), int(first), int(last)


def _place(offsets: Sequence[tuple[int, int]], example: Example) -> list[int]:
    """First and last token of the first accepted answer; twice 0 where the window does not hold it whole."""
    for start, said in example.answers[:1]:
        end = start + len(said)
        inside = [i for i, (s, e) in enumerate(offsets) if e > s and s < end and e > start and e <= len(example.text)]
        if inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= end:
            return [inside[0], inside[-1]]
    return [0, 0]


def plain_words(text: str) -> list[str]:
    """Lower case, without marks and articles, as the SQuAD script compares answers."""
    plain = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def answer_f1(given: str, accepted: Sequence[tuple[int, str]]) -> float:
    """F1 of the words with the nearest accepted answer; where there is none, 1 for silence."""
    return max(_words_f1(plain_words(given), plain_words(text)) for _, text in accepted or ((0, ""),))


def _words_f1(given: Sequence[str], gold: Sequence[str]) -> float:
    if not given or not gold:
        return float(list(given) == list(gold))
    return 2 * (Counter(given) & Counter(gold)).total() / (len(given) + len(gold))
