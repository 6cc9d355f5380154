"""From texts and links to tensors: which tokens a mention covers, and which rows of the table it may denote."""

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kg.linking import Linker
from kg.types import Link
from models.entity_table import FIRST, NULL, EntityTable
from models.fusion import KNOWLEDGE_KEYS

IGNORED = -100
"""Label of tokens that are not asked."""
PAIR = "pair_positions"
"""Input of relation classifiers: token at which head and tail begin ``[batch, 2]``."""
ANSWER = "answer_positions"
"""Labels of a question's window: first and last token of the answer, twice 0 where it has none."""
PARTS = "parts"
"""Features that belong to one example: each choice with the question that it answers."""
SMALLEST_PRIOR = 1e-4
_Change = TypeVar("_Change", bound=Callable[..., dict[str, Any]])


class KnowledgeEncoder:
    """Links and tokenizes texts; the features of one text are plain lists, padded later by ``KnowledgeCollator``."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        linker: Linker,
        table: EntityTable,
        *,
        max_length: int = 128,
        max_candidates: int = 8,
        max_mentions: int = 32,
    ) -> None:
        """
        Args:
            table: which entities have a row; links to others are passed over.
            max_candidates: of a mention, NULL included.
        """
        self.tokenizer, self.linker = tokenizer, linker
        self.rows = table.rows
        self.max_length, self.max_candidates, self.max_mentions = max_length, max_candidates, max_mentions

    def encode_texts(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Token ids, mask, the three knowledge keys and ``mention_links`` (which link each mention is), a text each."""
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        links = self.linker.link_batch(texts)
        return [
            self._feature(ids, offsets, found)
            for ids, offsets, found in zip(tokens["input_ids"], tokens["offset_mapping"], links, strict=True)
        ]

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """As ``encode_texts`` for texts that are split already; adds ``word_ids``, None for special tokens.

        Links are looked for in the words joined by blanks.
        """
        tokens = self.tokenizer(
            [list(words) for words in sentences],
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
            is_split_into_words=True,
        )
        links = self.linker.link_batch([" ".join(words) for words in sentences])
        features = []
        for number, words in enumerate(sentences):
            starts, position = [], 0
            for word in words:
                starts.append(position)
                position += len(word) + 1
            word_ids = tokens.word_ids(number)
            offsets = [
                (0, 0) if word is None else (starts[word] + start, starts[word] + end)
                for word, (start, end) in zip(word_ids, tokens["offset_mapping"][number], strict=True)
            ]
            feature = self._feature(tokens["input_ids"][number], offsets, links[number])
            features.append({**feature, "word_ids": word_ids})
        return features

    def encode_linked(
        self, text: str, links: Sequence[Link], *, start: int = 0, end: int | None = None
    ) -> dict[str, Any]:
        """As ``encode_texts`` for one text whose links are known; adds ``offsets``, the code points of each token.

        Args:
            start: with ``end``, what of the text is read; links and offsets are in the whole of it.
        """
        part = text[start:end]
        tokens = self.tokenizer(part, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        offsets = [(s + start, e + start) if e > s else (0, 0) for s, e in tokens["offset_mapping"]]
        return {**self._feature(tokens["input_ids"], offsets, links), "offsets": offsets}

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], *, question_first: bool = False
    ) -> list[list[dict[str, Any]]]:
        """Features of each text with what is put to it, with ``offsets`` in both joined by a line end.

        Args:
            question_first: the second stands before the text, as models that answer questions have learned it, and a
                text that is too long is read in windows that share a quarter; else both are cut, and it is one.
        """
        joined = zip(*(self.linker.link_batch([pair[side] for pair in pairs]) for side in (0, 1)), strict=True)
        return [
            self.encode_pair(text, second, [*links, *shifted(behind, len(text) + 1)], question_first=question_first)
            for (text, second), (links, behind) in zip(pairs, joined, strict=True)
        ]

    def encode_pair(
        self, text: str, second: str, links: Sequence[Link], *, question_first: bool = False
    ) -> list[dict[str, Any]]:
        """As ``encode_pairs`` for one whose links are known."""
        how: dict[str, Any] = {"truncation": "longest_first"}
        given = (text, second)
        if question_first:
            offsets = self.tokenizer(second, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
            asked = min(len(offsets), self.max_length // 2)
            given = (second[: offsets[asked - 1][1]] if asked else "", text)
            room = self.max_length - asked - self.tokenizer.num_special_tokens_to_add(pair=True)
            how = {"truncation": "only_second", "stride": room // 4, "return_overflowing_tokens": True}
        tokens = self.tokenizer([given], max_length=self.max_length, return_offsets_mapping=True, **how)
        features, moved = [], ((len(text) + 1, 0) if question_first else (0, len(text) + 1))
        for window, ids in enumerate(tokens["input_ids"]):
            sides = tokens.sequence_ids(window)
            places = [
                (0, 0) if side is None else (start + moved[side], end + moved[side])
                for side, (start, end) in zip(sides, tokens["offset_mapping"][window], strict=True)
            ]
            feature = {**self._feature(ids, places, links), "offsets": places}
            if "token_type_ids" in tokens:
                feature["token_type_ids"] = tokens["token_type_ids"][window]
            features.append(feature)
        return features

    def encode_prompt(self, text: str, behind: str, links: Sequence[Link]) -> dict[str, Any]:
        """A text that is cut where it and ``behind`` are longer than the model reads; ``behind`` is kept whole."""
        last = self.tokenizer(behind, add_special_tokens=False, return_offsets_mapping=True)
        room = max(self.max_length - len(last["input_ids"]), 1)
        first = self.tokenizer(text, truncation=True, max_length=room, return_offsets_mapping=True)
        places = [*first["offset_mapping"], *((s + len(text), e + len(text)) for s, e in last["offset_mapping"])]
        ids = [*first["input_ids"], *last["input_ids"]]
        return {**self._feature(ids, places, links), "offsets": places}

    def _feature(
        self, input_ids: Sequence[int], offsets: Sequence[tuple[int, int]], links: Sequence[Link]
    ) -> dict[str, Any]:
        token_mentions = [0] * len(input_ids)
        entities: list[list[int]] = []
        priors: list[list[float]] = []
        mention_links: list[int] = []
        for number, link in enumerate(links):
            known = [candidate for candidate in link.candidates if candidate.id in self.rows]
            covered = [i for i, (start, end) in enumerate(offsets) if start < link.end and link.start < end]
            if link.id is None or not known or not covered or len(entities) == self.max_mentions:
                continue
            kept = known[: self.max_candidates - 1]
            entities.append([NULL, *(self.rows[candidate.id] for candidate in kept)])
            mention_links.append(number)
            priors.append([0.0, *(math.log(max(candidate.prior, SMALLEST_PRIOR)) for candidate in kept)])
            for position in covered:
                token_mentions[position] = len(entities)
        return {
            "input_ids": list(input_ids),
            "attention_mask": [1] * len(input_ids),
            "mention_entities": entities,
            "mention_priors": priors,
            "token_mentions": token_mentions,
            "mention_links": mention_links,
        }


def shifted(links: Sequence[Link], by: int) -> list[Link]:
    """The links of a text that begins later."""
    return [replace(link, start=link.start + by, end=link.end + by) for link in links]


@dataclass(frozen=True, kw_only=True)
class KnowledgeCollator:
    """Features of several texts to one batch of tensors."""

    tokenizer: PreTrainedTokenizerBase
    with_knowledge: bool = True
    """False leaves the knowledge keys out: the plain model on the same texts."""

    left: bool | None = None
    """Pad before the texts; None: as the tokenizer does."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """``input_ids`` ``[batch, seq]``, ``labels`` where given, and the keys of ``models.fusion.Knowledge``.

        The parts of an example become rows of their own.
        """
        if PARTS in features[0]:
            batch = self([part for feature in features for part in feature[PARTS]])
            if "labels" in features[0]:
                labels = [feature["labels"] for feature in features]
                batch["labels"] = _padded(labels, max(map(len, labels)), IGNORED, left=False)
            return batch
        length = max(len(feature["input_ids"]) for feature in features)
        left = self.tokenizer.padding_side == "left" if self.left is None else self.left
        pad = int(self.tokenizer.pad_token_id or 0)
        batch = {
            "input_ids": _padded([f["input_ids"] for f in features], length, pad, left=left),
            "attention_mask": _padded([f["attention_mask"] for f in features], length, 0, left=left),
        }
        if "token_type_ids" in features[0]:
            batch["token_type_ids"] = _padded([f["token_type_ids"] for f in features], length, 0, left=left)
        if "labels" in features[0]:
            labels = [feature["labels"] for feature in features]
            if isinstance(labels[0], list) and isinstance(labels[0][0], int):  # tokens, of the text or of another
                most = max(map(len, labels))
                batch["labels"] = _padded(labels, most, IGNORED, left=left and most == length)
            else:
                batch["labels"] = torch.tensor(labels)
        for key, name in ((PAIR, PAIR), (ANSWER, "labels")):
            if key in features[0]:
                moved = [length - len(feature["input_ids"]) if left else 0 for feature in features]
                batch[name] = torch.tensor(
                    [[place + by for place in feature[key]] for feature, by in zip(features, moved, strict=True)]
                )
        if self.with_knowledge:
            batch |= self._knowledge(features, length, left=left)
        return batch

    def _knowledge(self, features: Sequence[Mapping[str, Any]], length: int, *, left: bool) -> dict[str, Tensor]:
        mentions = max(len(feature["mention_entities"]) for feature in features)
        widths = [len(candidates) for feature in features for candidates in feature["mention_entities"]]
        entities = torch.zeros(len(features), mentions, max(widths, default=1), dtype=torch.long)
        priors = torch.zeros(entities.shape)
        for row, feature in enumerate(features):
            pairs = zip(feature["mention_entities"], feature["mention_priors"], strict=True)
            for mention, (candidates, values) in enumerate(pairs):
                entities[row, mention, : len(candidates)] = torch.tensor(candidates)
                priors[row, mention, : len(values)] = torch.tensor(values)
        tokens = _padded([feature["token_mentions"] for feature in features], length, 0, left=left)
        return dict(zip(KNOWLEDGE_KEYS, (entities, priors, tokens), strict=True))


def batches_by_length(features: Sequence[Mapping[str, Any]], size: int) -> Iterator[list[int]]:
    """Positions of all features, ``size`` at a time, the shortest first: little padding."""
    order = sorted(range(len(features)), key=lambda index: len(features[index]["input_ids"]))
    return (order[start : start + size] for start in range(0, len(order), size))


def _of_each_part(change: _Change) -> _Change:
    """Of an example in parts, each part is changed."""

    @wraps(change)
    def changed(feature: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        if PARTS in feature:
            return {**feature, PARTS: [change(part, *args) for part in feature[PARTS]]}
        return change(feature, *args)

    return cast(_Change, changed)


@_of_each_part
def hide_mentions(feature: Mapping[str, Any], share: float, draw: int) -> dict[str, Any]:
    """The feature with each mention hidden with probability ``share``; the same ``draw`` hides the same ones.

    A model that is sometimes not told learns to do without knowledge, too.
    """
    rng = random.Random(draw)  # noqa: S311
    return keep_mentions(feature, [m for m in range(len(feature["mention_entities"])) if rng.random() >= share])


@_of_each_part
def wrong_links(feature: Mapping[str, Any], share: float, num_entities: int, draw: int) -> dict[str, Any]:
    """The feature with each mention led to entities at random with probability ``share``."""
    rng = random.Random(draw)  # noqa: S311
    entities = [
        [row if row == NULL or not wrong else FIRST + rng.randrange(num_entities) for row in candidates]
        for candidates in feature["mention_entities"]
        for wrong in [rng.random() < share]
    ]
    return {**feature, "mention_entities": entities}


def keep_mentions(feature: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The feature with only the mentions ``kept`` (counted from 0)."""
    number = {0: 0} | {mention + 1: position for position, mention in enumerate(kept, 1)}
    return {
        **feature,
        "mention_entities": [feature["mention_entities"][mention] for mention in kept],
        "mention_priors": [feature["mention_priors"][mention] for mention in kept],
        "mention_links": [feature["mention_links"][mention] for mention in kept],
        "token_mentions": [number.get(mention, 0) for mention in feature["token_mentions"]],
    }


@_of_each_part
def keep_links(feature: Mapping[str, Any], kept: Collection[int]) -> dict[str, Any]:
    """The feature with only the mentions of the links ``kept``."""
    return keep_mentions(feature, [m for m, link in enumerate(feature["mention_links"]) if link in kept])


def _padded(rows: Sequence[Sequence[int]], length: int, value: int, *, left: bool) -> Tensor:
    filler = [[value] * (length - len(row)) for row in rows]
    return torch.tensor([[*f, *row] if left else [*row, *f] for row, f in zip(rows, filler, strict=True)])
