"""From texts and links to tensors: which tokens a mention covers, and which rows of the table it may denote."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedTokenizerBase

from kg.linking import Linker
from kg.types import Link
from models.entity_table import NULL, EntityTable
from models.fusion import KNOWLEDGE_KEYS

IGNORED = -100
"""Label of tokens that are not asked."""
PAIR = "pair_positions"
"""Input of relation classifiers: token at which head and tail begin ``[batch, 2]``."""
ANSWER = "answer_positions"
"""Labels of a question's window: first and last token of the answer, twice 0 where it has none."""
PARTS = "parts"
"""Features that belong to one example: each choice with the question that it answers, each window of a long text."""
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

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
        """As ``encode_windows`` for texts that are split already; adds ``word_ids``, None for special tokens.

        Links are looked for in the words joined by blanks.
        """
        tokens = self._windows([list(words) for words in sentences], is_split_into_words=True)
        links = self.linker.link_batch([" ".join(words) for words in sentences])
        starts = [list(accumulate((len(word) + 1 for word in words), initial=0)) for words in sentences]
        features: list[list[dict[str, Any]]] = [[] for _ in sentences]
        for window, number in enumerate(tokens["overflow_to_sample_mapping"]):
            word_ids = tokens.word_ids(window)
            offsets = [
                (0, 0) if word is None else (starts[number][word] + start, starts[number][word] + end)
                for word, (start, end) in zip(word_ids, tokens["offset_mapping"][window], strict=True)
            ]
            feature = self._feature(tokens["input_ids"][window], offsets, links[number])
            features[number].append({**feature, "word_ids": word_ids})
        return features

    def encode_windows(self, text: str, links: Sequence[Link]) -> list[dict[str, Any]]:
        """As ``encode_linked``; a text that is too long is read in windows that share a quarter."""
        tokens = self._windows([text])
        return [
            {**self._feature(ids, offsets, links), "offsets": list(offsets)}
            for ids, offsets in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
        ]

    def _windows(self, texts: Sequence[Any], **how: Any) -> BatchEncoding:
        tokens: BatchEncoding = self.tokenizer(
            texts,
            truncation=True,
            max_length=self.max_length,
            stride=(self.max_length - self.tokenizer.num_special_tokens_to_add()) // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            **how,
        )
        return tokens

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

    def encode_pairs(self, pairs: Sequence[tuple[str, str]], *, windows: bool = False) -> list[list[dict[str, Any]]]:
        """Features of what is put to each text and then the text, with ``offsets`` in text and second joined by a line
        end.

        Args:
            windows: a text that is too long is read in windows that share a quarter; else the longer side is cut.
        """
        joined = zip(*(self.linker.link_batch([pair[side] for pair in pairs]) for side in (0, 1)), strict=True)
        return [
            self.encode_pair(text, second, [*links, *shifted(behind, len(text) + 1)], windows=windows)
            for (text, second), (links, behind) in zip(pairs, joined, strict=True)
        ]

    def encode_pair(
        self, text: str, second: str, links: Sequence[Link], *, windows: bool = False
    ) -> list[dict[str, Any]]:
        """As ``encode_pairs`` for one whose links are known."""
        how: dict[str, Any] = {"truncation": "longest_first"}
        given = (second, text)  # what is put to a text is always in the same place: behind it, it is hardly learnt
        if windows:
            offsets = self.tokenizer(second, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
            asked = min(len(offsets), self.max_length // 2)
            given = (second[: offsets[asked - 1][1]] if asked else "", text)
            room = self.max_length - asked - self.tokenizer.num_special_tokens_to_add(pair=True)
            how = {"truncation": "only_second", "stride": room // 4, "return_overflowing_tokens": True}
        tokens = self.tokenizer([given], max_length=self.max_length, return_offsets_mapping=True, **how)
        features, moved = [], (len(text) + 1, 0)
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
        places = sorted((start, end, token) for token, (start, end) in enumerate(offsets))
        starts, ends = [start for start, _, _ in places], list(accumulate((end for _, end, _ in places), max))
        for number, link in enumerate(links):  # of the whole text: in every window most are elsewhere
            near = places[bisect_right(ends, link.start) : bisect_left(starts, link.end)]
            covered = [token for _, end, token in near if link.start < end]
            if link.id is None or not covered or len(entities) == self.max_mentions:
                continue
            known = [candidate for candidate in link.candidates if candidate.id in self.rows]
            if not known:
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


def on_device_of(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch where the model's weights are: after a training that may be a GPU."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return {name: value.to(device) for name, value in batch.items()}


def parts_of(feature: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The parts of an example; of one that is read at once, itself."""
    parts: Sequence[Mapping[str, Any]] = feature.get(PARTS, [feature])
    return parts


def batches_by_length(features: Sequence[Mapping[str, Any]], size: int) -> Iterator[list[int]]:
    """Positions of all features, ``size`` at a time, the shortest first: little padding."""
    order = sorted(range(len(features)), key=lambda index: len(features[index]["input_ids"]))
    return (order[start : start + size] for start in range(0, len(order), size))


def _padded(rows: Sequence[Sequence[int]], length: int, value: int, *, left: bool) -> Tensor:
    filler = [[value] * (length - len(row)) for row in rows]
    return torch.tensor([[*f, *row] if left else [*row, *f] for row, f in zip(rows, filler, strict=True)])
