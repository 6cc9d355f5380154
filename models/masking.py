"""Masked language modelling with whole words and whole mentions; a pure function of the example and its draw."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from models.batch import IGNORED
from models.kgbert import KGBertForMaskedLM


@dataclass(frozen=True, kw_only=True)
class Masker:
    """Chooses which tokens a model has to predict.

    A linked mention is masked whole with ``mention_probability``, so that its words can be had from its entity and the
    context only; then whole words until ``mask_probability`` of the tokens are chosen. Of the chosen ones 80 % become
    the mask token, 10 % a random token and 10 % stay (BERT, arXiv 1810.04805, section 3.1).
    """

    tokenizer: PreTrainedTokenizerBase
    mask_probability: float
    mention_probability: float

    def __call__(self, feature: Mapping[str, Any], draw: int) -> dict[str, Any]:
        """``feature`` with masked ``input_ids`` and ``labels``; the same draw gives the same masks."""
        rng = random.Random(draw)  # noqa: S311
        tokens = list(feature["input_ids"])
        mentions = feature.get("token_mentions") or [0] * len(tokens)
        by_mention: dict[int, list[int]] = {}
        for position, mention in enumerate(mentions):
            if mention:
                by_mention.setdefault(mention, []).append(position)
        chosen = {
            position
            for mention in sorted(by_mention)
            if rng.random() < self.mention_probability
            for position in by_mention[mention]
        }
        words = [word for word in self._words(tokens) if not chosen.intersection(word)]
        rng.shuffle(words)
        wanted = max(1, round(self.mask_probability * len(tokens)))
        for word in words:
            if len(chosen) >= wanted:
                break
            chosen.update(word)
        labels = [token if position in chosen else IGNORED for position, token in enumerate(tokens)]
        for position in sorted(chosen):
            dice = rng.random()
            if dice < 0.8:
                tokens[position] = int(self.tokenizer.mask_token_id)
            elif dice < 0.9:
                tokens[position] = rng.randrange(len(self.tokenizer))
        return {**feature, "input_ids": tokens, "labels": labels}

    def _words(self, tokens: Sequence[int]) -> list[list[int]]:
        """Positions of each word's tokens; special tokens belong to none."""
        special = set(self.tokenizer.all_special_ids)
        words: list[list[int]] = []
        for position, piece in enumerate(self.tokenizer.convert_ids_to_tokens(list(tokens))):
            if tokens[position] in special:
                continue
            continues = piece.startswith("##")
            if continues and words and words[-1][-1] == position - 1:
                words[-1].append(position)
            else:
                words.append([position])
        return words


def predict_masked_only(model: nn.Module) -> None:
    """Let a masked language model work out its vocabulary at masked positions only.

    Its head is as dear as its six blocks (30,522 words for each token) and six tokens in seven are not asked: a step of
    32 × 64 tokens took 2.3 CPU-s before. Losses and gradients are the same; the logits are ``[masked, vocabulary]``.
    """
    base: Any = getattr(model, "model", model) if isinstance(model, KGBertForMaskedLM) else model
    words = base.get_output_embeddings()
    head = next(child for child in base.children() if any(module is words for module in child.modules()))
    asked: list[Tensor] = []

    def take_labels(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs["labels"] != IGNORED
        asked[:] = [mask]
        return args, {**kwargs, "labels": kwargs["labels"][mask]}

    def take_states(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][asked[0]], *args[1:])

    base.register_forward_pre_hook(take_labels, with_kwargs=True)
    head.register_forward_pre_hook(take_states)
