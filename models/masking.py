"""What a language model is asked of a text, by its family; pure functions of the example and its draw."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import punctuation
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from kg.errors import ConfigError
from models.base import load_config
from models.batch import IGNORED
from models.heads import predict_only
from models.kgbert import KGBertForCausalLM, KGBertForMaskedLM, KGBertForSeq2SeqLM

SENTINEL = "<extra_id_{}>"
"""T5's names for the places of what was taken out."""
_SPACES = ("Ġ", "▁")
"""With which a word begins in byte-level and SentencePiece vocabularies."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How models of one kind are pretrained on texts."""

    name: str
    auto_class: Any
    kgbert_class: Any


MASKED = Family(name="masked words", auto_class=AutoModelForMaskedLM, kgbert_class=KGBertForMaskedLM)
CAUSAL = Family(name="the next token", auto_class=AutoModelForCausalLM, kgbert_class=KGBertForCausalLM)
SPANS = Family(name="corrupted spans", auto_class=AutoModelForSeq2SeqLM, kgbert_class=KGBertForSeq2SeqLM)


def family_of(base: str) -> Family:
    """The objective that a base model is made for.

    Raises:
        ConfigError: it is made for none.
    """
    config = load_config(base)
    if config.is_encoder_decoder:
        return SPANS
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return MASKED
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return CAUSAL
    raise ConfigError(
        f"The base model {base!r} is of the kind {config.model_type!r}, which has no language model; "
        "set pretrain.max_steps = 0 to skip its pretraining."
    )


def next_token(feature: Mapping[str, Any], draw: int) -> dict[str, Any]:
    """The feature with all its tokens as labels; causal models shift them."""
    return {**feature, "labels": list(feature["input_ids"])}


@dataclass(frozen=True, kw_only=True)
class Masker:
    """Chooses which tokens a model has to predict.

    A linked mention is masked whole, and with it each word that it is part of, with ``mention_probability``, so that
    its words can be had from its entity and the context only; then words that are in no mention, until
    ``mask_probability`` of the words are chosen. Of their tokens 80 % become the mask token, 10 % a random token and
    10 % stay (BERT, arXiv 1810.04805, section 3.1). Words are counted, not tokens: so two vocabularies that agree on
    words are asked the same ones.
    """

    tokenizer: PreTrainedTokenizerBase
    mask_probability: float
    mention_probability: float

    def __call__(self, feature: Mapping[str, Any], draw: int) -> dict[str, Any]:
        """``feature`` with masked ``input_ids`` and ``labels``; the same draw gives the same masks."""
        rng = random.Random(f"masks {draw}")  # noqa: S311 - or `hide_mentions` would hide just the masked ones
        tokens = list(feature["input_ids"])
        words = words_of(tokens, self.tokenizer)
        free, mentioned = mentions_apart(words, feature.get("token_mentions") or [0] * len(tokens))
        chosen = [unit for unit in mentioned if rng.random() < self.mention_probability]
        if not chosen and not free:
            chosen = mentioned[:1]  # a text that asks nothing has no loss
        rng.shuffle(free)
        wanted = max(1, round(self.mask_probability * len(words))) - sum(map(len, chosen))
        chosen += [[word] for word in free[: max(0, wanted)]]
        positions = {position for unit in chosen for word in unit for position in word}
        labels = [token if position in positions else IGNORED for position, token in enumerate(tokens)]
        for position in sorted(positions):
            dice = rng.random()
            if dice < 0.8:
                tokens[position] = int(self.tokenizer.mask_token_id)
            elif dice < 0.9:
                tokens[position] = rng.randrange(len(self.tokenizer))
        return {**feature, "input_ids": tokens, "labels": labels}


def words_of(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Positions of each word's tokens; special tokens belong to none, and words that are partly unknown are left out.

    Of a word are the pieces up to the next that begins with a space, as byte-level and SentencePiece vocabularies
    write it, or that WordPiece does not mark as going on. Punctuation, and a token that was added to a vocabulary, is
    a word.
    """
    unknown = tokenizer.unk_token_id
    special = {*tokenizer.all_special_ids} - {unknown}
    added = {*tokenizer.added_tokens_encoder} - {tokenizer.unk_token}
    pieces = tokenizer.convert_ids_to_tokens(list(tokens))
    spaced = any(piece.startswith(_SPACES) for piece in pieces)
    alone = [piece in added or not piece.strip(punctuation) for piece in pieces]
    words: list[list[int]] = []
    for position, piece in enumerate(pieces):
        if tokens[position] in special:
            continue
        marked = not piece.startswith(_SPACES) if spaced else piece.startswith("##")
        if marked and words and words[-1][-1] == position - 1 and not (alone[position] or alone[position - 1]):
            words[-1].append(position)
        else:
            words.append([position])
    return [word for word in words if all(tokens[position] != unknown for position in word)]


def mentions_apart(
    words: Sequence[list[int]], mentions: Sequence[int]
) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Words in no mention, and the words of each mention; mentions that share a word are one."""
    free: list[list[int]] = []
    units: list[tuple[set[int], list[list[int]]]] = []
    for word in words:
        within = {mentions[position] for position in word} - {0}
        if not within:
            free.append(word)
        elif units and units[-1][0] & within:
            units[-1][0].update(within)
            units[-1][1].append(word)
        else:
            units.append((within, [word]))
    return free, [unit for _, unit in units]


@dataclass(frozen=True, kw_only=True)
class SpanCorruptor:
    """Takes spans of tokens out of a text, a sentinel for each, which the decoder has to write (T5, arXiv 1910.10683).

    Of the tokens ``density`` are taken, in spans of ``mean_length`` on average. Between two spans, and before the
    first, is a token that stays.
    """

    tokenizer: PreTrainedTokenizerBase
    density: float = 0.15
    mean_length: float = 3.0

    def __call__(self, feature: Mapping[str, Any], draw: int) -> dict[str, Any]:
        """``feature`` with sentinels in ``input_ids`` and, as ``labels``, the spans, each behind its sentinel."""
        rng = random.Random(draw)  # noqa: S311
        tokens, mentions = list(feature["input_ids"]), feature.get("token_mentions")
        end = len(tokens) - (tokens[-1:] == [self.tokenizer.eos_token_id])
        spans = self._spans(end, rng)
        kept: list[int] = []  # positions of what the encoder reads; a span's first one stands for its sentinel
        written: list[int] = []
        sentinels: dict[int, int] = {}
        last = 0
        for number, (start, stop) in enumerate(spans):
            sentinels[start] = self._sentinel(number)
            kept += range(last, start + 1)
            written += [sentinels[start], *tokens[start:stop]]
            last = stop
        kept += range(last, len(tokens))
        written += [self._sentinel(len(spans)), *tokens[end:]]
        made = {"input_ids": [sentinels.get(position, tokens[position]) for position in kept], "labels": written}
        made["attention_mask"] = [1] * len(kept)
        if mentions is not None:
            made["token_mentions"] = [mentions[position] for position in kept]
        return {**feature, **made}

    def _spans(self, length: int, rng: random.Random) -> list[tuple[int, int]]:
        noise = min(max(1, round(self.density * length)), length - 1)
        if noise < 1:
            return []
        count = min(max(1, round(noise / self.mean_length)), length - noise)
        spans, position = [], 0
        for between, taken in zip(_parts(length - noise, count, rng), _parts(noise, count, rng), strict=True):
            spans.append((position + between, position + between + taken))
            position += between + taken
        return spans

    def _sentinel(self, number: int) -> int:
        found: Any = self.tokenizer.convert_tokens_to_ids(SENTINEL.format(number))
        if found in (None, self.tokenizer.unk_token_id):
            raise ConfigError(
                f"The tokenizer of the base model has no {SENTINEL.format(number)}, which span corruption puts in "
                "the place of what it takes out; take a T5, a smaller pretrain.max_length, or pretrain.max_steps = 0."
            )
        return int(found)


def _parts(total: int, count: int, rng: random.Random) -> list[int]:
    """``total`` as a sum of ``count`` numbers from 1 on, each such sum as likely as any other."""
    cuts = [0, *sorted(rng.sample(range(1, total), count - 1)), total]
    return [stop - start for start, stop in pairwise(cuts)]


def corruptor(
    family: Family, tokenizer: PreTrainedTokenizerBase, *, mask_probability: float, mention_probability: float
) -> Callable[[Mapping[str, Any], int], dict[str, Any]]:
    """What makes of a feature and a number the example that a model of this family learns from."""
    if family is CAUSAL:
        return next_token
    if family is SPANS:
        return SpanCorruptor(tokenizer=tokenizer, density=mask_probability)
    return Masker(tokenizer=tokenizer, mask_probability=mask_probability, mention_probability=mention_probability)


def predict_masked_only(model: nn.Module) -> None:
    """Let a masked language model work out its vocabulary at masked positions only.

    Six tokens in seven are not asked: a step of 32 × 64 tokens took 2.3 CPU-s before. Losses and gradients are the
    same; the logits are ``[masked, vocabulary]``.
    """
    base: Any = getattr(model, "model", model) if isinstance(model, KGBertForMaskedLM) else model
    asked: list[Tensor] = []

    def take_labels(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs["labels"] != IGNORED
        asked[:] = [mask]
        return args, {**kwargs, "labels": kwargs["labels"][mask]}

    base.register_forward_pre_hook(take_labels, with_kwargs=True)
    predict_only(base, lambda: asked[0])
