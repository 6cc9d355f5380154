"""A summary made of sentences of the text."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rouge_score.tokenizers import DefaultTokenizer
from transformers import AutoModelForTokenClassification

from kg.types import Link
from models.batch import IGNORED, PARTS, KnowledgeEncoder
from models.cleaning import sentence_spans
from models.examples import Example, Lengths, lengths_of, target_words
from models.kgbert import KGBertForTokenClassification
from models.objectives.generation import scored_texts
from models.objectives.objective import Objective, Reading, Scored, Span

SENTENCES = "token_sentences"
"""Of a feature: which sentence of the text each token is in; -1 for those that are in none."""


@dataclass(frozen=True)
class ExtractiveSummary(Objective):
    """The sentences that a summary would say, in the order of the text; a long text is read in passages of sentences.

    As BertSum (arXiv 1908.08345), but that all tokens of a sentence vote for it. Taught are the sentences that
    together share most with the target, chosen one after another (SummaRuNNer, arXiv 1611.04230).
    """

    lengths: Lengths = (0.0, 0.0, 0, 0)
    """How long the training targets are: when the sentences have as many words, no more are said."""

    main_metric: ClassVar[str] = "rouge_l"
    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    kgbert_class: ClassVar[Any] = KGBertForTokenClassification
    needs: ClassVar[tuple[str, ...]] = ("target",)
    windowed: ClassVar[bool] = True
    explains_words: ClassVar[bool] = False

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        return cls(("left out", "said"), lengths=lengths_of(train))

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        features = []
        linked = encoder.linker.link_batch([example.text for example in examples])
        for number, (example, links) in enumerate(zip(examples, linked, strict=True)):
            taught = best_sentences(
                [example.text[start:end] for start, end in sentence_places(example.text)], example.target
            )
            for feature in self.passages(example.text, links, encoder):
                labels = [IGNORED if sentence < 0 else int(sentence in taught) for sentence in feature[SENTENCES]]
                features.append({**feature, "labels": labels, "example": number})
        return features

    def passages(self, text: str, links: Sequence[Link], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        """Features of as many sentences each as the model reads at once, with a mark before the first of a line.

        A tokenizer takes the end of a line for a blank, but the first sentence of a paragraph says most of it.
        """
        spans = sentence_places(text)
        lines = {spans[0][0], *(start for (_, end), (start, _) in pairwise(spans) if "\n" in text[end:start])}
        mark = encoder.tokenizer.sep_token_id or encoder.tokenizer.eos_token_id
        tokens = encoder.tokenizer([text[start:end] for start, end in spans], add_special_tokens=False)["input_ids"]
        room = encoder.max_length - encoder.tokenizer.num_special_tokens_to_add()
        first, used, passages = 0, 0, []
        for number, count in enumerate(
            len(own) + (start in lines) for own, (start, _) in zip(tokens, spans, strict=True)
        ):
            if used and used + count > room:
                passages.append((first, number))
                first, used = number, 0
            used += count
        passages.append((first, len(spans)))
        starts = [start for start, _ in spans]
        features = []
        for first, last in passages:
            feature = encoder.encode_linked(text, links, start=starts[first], end=spans[last - 1][1])
            feature = _marked(feature, lines, mark, encoder.max_length)
            within = [bisect_right(starts, start) - 1 if end > start else -1 for start, end in feature["offsets"]]
            features.append({**feature, SENTENCES: within})
        return features

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        passages: dict[int, list[tuple[Any, Mapping[str, Any]]]] = {}
        for row, feature in zip(outputs, features, strict=True):
            passages.setdefault(feature["example"], []).append((row, feature))
        said = []
        for example, own in zip(examples, passages.values(), strict=True):
            spans = self.chosen([row for row, _ in own], [feature for _, feature in own], example.text)
            said.append(_joined(example.text, spans.values()))
        return said

    def chosen(
        self, rows: Sequence[NDArray[np.float32]], passages: Sequence[Mapping[str, Any]], text: str
    ) -> dict[int, tuple[int, int]]:
        """Number and place of the best sentences that share no three words in a row, until they are long enough.

        Args:
            rows: of each passage ``[seq, 2]``: scores that its tokens are left out, and said.
        """
        spans, length = sentence_places(text), target_words(text, self.lengths)
        votes: dict[int, list[float]] = {}
        for row, passage in zip(rows, passages, strict=True):
            for sentence, (left_out, said) in zip(passage[SENTENCES], row.tolist(), strict=False):  # padding aside
                votes.setdefault(sentence, []).append(said - left_out)
        votes.pop(-1, None)
        chosen, words, known = list[int](), 0, set[tuple[str, ...]]()
        for sentence in sorted(votes, key=lambda one: -float(np.mean(votes[one]))):
            own = text[slice(*spans[sentence])].split()
            triples = set(zip(own, own[1:], own[2:], strict=False))
            if words < length and not triples & known:
                chosen.append(sentence)
                words += len(own)
                known |= triples
        return {sentence: spans[sentence] for sentence in sorted(chosen)}

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        return scored_texts(predictions, examples)

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        """``row`` is ``[passages, seq, 2]``."""
        chosen = self.chosen(np.log(row.clip(1e-30)), feature[PARTS], text)
        asked: dict[int, list[tuple[int, int]]] = {sentence: [] for sentence in chosen}
        for part, passage in enumerate(feature[PARTS]):
            for token, sentence in enumerate(passage[SENTENCES]):
                if sentence in asked:
                    asked[sentence].append((part, token))
        spans = []
        for sentence, (start, end) in chosen.items():
            sure = round(float(np.mean([row[part, token, 1] for part, token in asked[sentence]])), 4)
            spans.append(Span(start=start, end=end, text=text[start:end], label="said", probability=sure))
        places = [place for of_sentence in asked.values() for place in of_sentence]
        positions = ([part for part, _ in places], [token for _, token in places], [1] * len(places))
        return Reading(said=_joined(text, chosen.values()), spans=tuple(spans), asked=positions, probabilities={})


def _marked(feature: Mapping[str, Any], starts: Collection[int], mark: int, max_length: int) -> dict[str, Any]:
    """The feature with ``mark`` before each token that begins at one of ``starts``; what is too long then is cut."""
    order, left = list[int | None](), set(starts)
    for place, (start, end) in enumerate(feature["offsets"]):
        if end > start and start in left:
            left.remove(start)
            order.append(None)
        order.append(place)
    del order[max_length - 1 : -1]
    blanks = {"input_ids": mark, "attention_mask": 1, "offsets": (0, 0), "token_mentions": 0}
    return {
        **feature,
        **{key: [blank if place is None else feature[key][place] for place in order] for key, blank in blanks.items()},
    }


def _joined(text: str, spans: Iterable[tuple[int, int]]) -> str:
    return " ".join(text[start:end] for start, end in spans)


def best_sentences(sentences: Sequence[str], target: str) -> Collection[int]:
    """Those that together share most with the target, by F1 of words and of word pairs, stemmed (ROUGE-1, -2)."""
    wanted = _grams(target)
    grams = [_grams(sentence) for sentence in sentences]
    chosen: list[int] = []
    said, best = (Counter[Any](), Counter[Any]()), 0.0
    while len(chosen) < len(sentences):
        tried = [
            (sum(_f1(a + b, c) for a, b, c in zip(said, own, wanted, strict=True)), -number)
            for number, own in enumerate(grams)
            if number not in chosen
        ]
        reached, number = max(tried)
        if reached <= best:
            break
        best = reached
        chosen.append(-number)
        said = (said[0] + grams[-number][0], said[1] + grams[-number][1])
    return chosen


def sentence_places(text: str) -> list[tuple[int, int]]:
    """``sentence_spans``, or the whole text where it has no sentence."""
    return list(sentence_spans(text)) or [(0, len(text))]


def _grams(text: str) -> tuple[Counter[Any], Counter[Any]]:
    words = _tokenizer().tokenize(text)
    return Counter(words), Counter(pairwise(words))


def _f1(given: Counter[Any], wanted: Counter[Any]) -> float:
    return 2 * (given & wanted).total() / max(given.total() + wanted.total(), 1)


@cache
def _tokenizer() -> DefaultTokenizer:
    return DefaultTokenizer(use_stemmer=True)
