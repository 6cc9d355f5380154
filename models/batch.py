"""From texts and links to tensors: which tokens a mention covers, and which rows of the table it may denote."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
SMALLEST_PRIOR = 1e-4


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

    def encode_linked(self, text: str, links: Sequence[Link]) -> dict[str, Any]:
        """As ``encode_texts`` for one text whose links are known; adds ``offsets``, the code points of each token."""
        tokens = self.tokenizer(text, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        offsets = [(int(start), int(end)) for start, end in tokens["offset_mapping"]]
        return {**self._feature(tokens["input_ids"], offsets, links), "offsets": offsets}

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


@dataclass(frozen=True, kw_only=True)
class KnowledgeCollator:
    """Features of several texts to one batch of tensors."""

    tokenizer: PreTrainedTokenizerBase
    with_knowledge: bool = True
    """False leaves the knowledge keys out: the plain model on the same texts."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """``input_ids`` ``[batch, seq]``, ``labels`` where given, and the keys of ``models.fusion.Knowledge``."""
        length = max(len(feature["input_ids"]) for feature in features)
        left = self.tokenizer.padding_side == "left"
        pad = int(self.tokenizer.pad_token_id or 0)
        batch = {
            "input_ids": _padded([f["input_ids"] for f in features], length, pad, left=left),
            "attention_mask": _padded([f["attention_mask"] for f in features], length, 0, left=left),
        }
        if "labels" in features[0]:
            labels = [feature["labels"] for feature in features]
            longest = max(map(len, labels)) if isinstance(labels[0], list) else 0
            batch["labels"] = _padded(labels, longest, IGNORED, left=left) if longest else torch.tensor(labels)
        if PAIR in features[0]:
            moved = [length - len(feature["input_ids"]) if left else 0 for feature in features]
            batch[PAIR] = torch.tensor(
                [[place + by for place in feature[PAIR]] for feature, by in zip(features, moved, strict=True)]
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


def hide_mentions(feature: Mapping[str, Any], share: float, draw: int) -> dict[str, Any]:
    """The feature with each mention hidden with probability ``share``; the same ``draw`` hides the same ones.

    A model that is sometimes not told learns to do without knowledge, too.
    """
    rng = random.Random(draw)  # noqa: S311
    return keep_mentions(feature, [m for m in range(len(feature["mention_entities"])) if rng.random() >= share])


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


def _padded(rows: Sequence[Sequence[int]], length: int, value: int, *, left: bool) -> Tensor:
    filler = [[value] * (length - len(row)) for row in rows]
    return torch.tensor([[*f, *row] if left else [*row, *f] for row, f in zip(rows, filler, strict=True)])
