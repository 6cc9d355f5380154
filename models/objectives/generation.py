"""Text for a text: by an encoder-decoder, or by a decoder that goes on where the text ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from kg.types import Link
from models.batch import IGNORED, KnowledgeCollator, KnowledgeEncoder, batches_by_length, on_device_of, shifted
from models.examples import Example
from models.kgbert import KGBertForCausalLM, KGBertForSeq2SeqLM
from models.objectives.objective import Objective, Reading, Scored

ENDS = "\n=> "
"""Between what a decoder reads and what it is to write."""
BATCH = 16


@dataclass(frozen=True)
class Seq2SeqGeneration(Objective):
    """What an encoder-decoder writes for a text; an encoder becomes one, with itself as decoder (arXiv 1907.12461)."""

    max_tokens: int = 64
    num_beams: int = 1
    no_repeat: int = 3

    main_metric: ClassVar[str] = "rouge_l"
    auto_class: ClassVar[Any] = AutoModelForSeq2SeqLM
    kgbert_class: ClassVar[Any] = KGBertForSeq2SeqLM
    needs: ClassVar[tuple[str, ...]] = ("target",)
    from_states: ClassVar[bool] = False
    explains_words: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        return cls(**options)

    def options(self) -> dict[str, Any]:
        return {}

    def source(self, example: Example, links: Sequence[Link], encoder: KnowledgeEncoder) -> dict[str, Any]:
        """What the model reads, with ``offsets`` in the text and what is put to it, joined by a line end."""
        if example.second:
            return encoder.encode_pair(example.text, example.second, links)[0]
        return encoder.encode_linked(example.text, links)

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        linked = zip(*(encoder.linker.link_batch(side) for side in _sides(examples)), strict=True)
        features = []
        for example, (links, behind) in zip(examples, linked, strict=True):
            feature = self.source(example, [*links, *shifted(behind, len(example.text) + 1)], encoder)
            features.append(self.with_target(feature, self.target(example.target, encoder)))
        return features

    def target(self, text: str, encoder: KnowledgeEncoder) -> list[int]:
        ids: list[int] = encoder.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return ids

    def with_target(self, feature: Mapping[str, Any], target: Sequence[int]) -> dict[str, Any]:
        """The feature as the model learns from it."""
        return {**feature, "labels": list(target)}

    def write(self, model: Any, features: Sequence[Mapping[str, Any]], collate: KnowledgeCollator) -> list[list[int]]:
        """The tokens that the model writes for each feature, by greedy or beam search."""
        tokenizer = collate.tokenizer
        end = _end(tokenizer)
        model.eval()
        found: dict[int, list[int]] = {}
        with torch.inference_mode():
            for indices in batches_by_length(features, BATCH):
                batch = self.prompts([features[index] for index in indices], collate)
                written = model.generate(
                    **on_device_of(model, batch),
                    max_new_tokens=self.max_tokens,
                    num_beams=self.num_beams,
                    no_repeat_ngram_size=self.no_repeat,
                    do_sample=False,
                    eos_token_id=end,
                    pad_token_id=int(tokenizer.pad_token_id or 0),
                )
                for index, row in zip(indices, written.tolist(), strict=True):
                    found[index] = self.new_tokens(row, batch["input_ids"].shape[1], end)
        return [found[index] for index in range(len(features))]

    def prompts(self, features: Sequence[Mapping[str, Any]], collate: KnowledgeCollator) -> dict[str, Any]:
        return collate([{key: value for key, value in feature.items() if key != "labels"} for feature in features])

    def new_tokens(self, row: list[int], prompt: int, end: int) -> list[int]:
        """Of what ``generate`` gives, what was written, its end included: the first token is where it began."""
        return row[1 : row.index(end, 1) + 1] if end in row[1:] else row[1:]

    def predict(self, model: nn.Module, features: Sequence[dict[str, Any]], collate: Any) -> list[Any]:
        return [self.text(ids, collate) for ids in self.write(model, features, collate)]

    def text(self, ids: Sequence[int], collate: KnowledgeCollator) -> str:
        return str(collate.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        return list(outputs)

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        return scored_texts(predictions, examples)

    def forced(self, batch: dict[str, Any], model: Any) -> dict[str, Any]:
        """The batch with its labels, all equally long, as what has been written."""
        labels = batch.pop("labels")
        first = torch.full_like(labels[:, :1], model.model.generation_config.decoder_start_token_id)
        return {**batch, "decoder_input_ids": torch.cat([first, labels[:, :-1]], dim=1)}

    def token_probabilities(self, output: Any, ids: Sequence[int]) -> Tensor:
        """``[batch, written]``: of each token of ``ids``, by a model that was forced to write them."""
        return _of_tokens(output.logits, ids)

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        """``text`` is what was written, ``row`` the probabilities of its tokens."""
        return Reading(said=text, asked=(list(range(len(row))),), probabilities={})


@dataclass(frozen=True)
class CausalGeneration(Seq2SeqGeneration):
    """What a decoder writes behind a text and a mark; it learns from what is behind the mark alone."""

    auto_class: ClassVar[Any] = AutoModelForCausalLM
    kgbert_class: ClassVar[Any] = KGBertForCausalLM

    def source(self, example: Example, links: Sequence[Link], encoder: KnowledgeEncoder) -> dict[str, Any]:
        behind = f"\n{example.second}{ENDS}" if example.second else ENDS
        return encoder.encode_prompt(example.text, behind, links)

    def target(self, text: str, encoder: KnowledgeEncoder) -> list[int]:
        ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"][: self.max_tokens - 1]
        return [*ids, _end(encoder.tokenizer)]

    def with_target(self, feature: Mapping[str, Any], target: Sequence[int]) -> dict[str, Any]:
        prompt = len(feature["input_ids"])
        return {
            **feature,
            "input_ids": [*feature["input_ids"], *target],
            "attention_mask": [1] * (prompt + len(target)),
            "token_mentions": [*feature["token_mentions"], *([0] * len(target))],
            "labels": [*([IGNORED] * prompt), *target],
        }

    def prompts(self, features: Sequence[Mapping[str, Any]], collate: KnowledgeCollator) -> dict[str, Any]:
        cut = []
        for feature in features:
            length = feature["labels"].count(IGNORED) if "labels" in feature else len(feature["input_ids"])
            keys = ("input_ids", "attention_mask", "token_mentions")
            cut.append(
                {**{k: v for k, v in feature.items() if k != "labels"}, **{k: feature[k][:length] for k in keys}}
            )
        return replace(collate, left=True)(cut)

    def new_tokens(self, row: list[int], prompt: int, end: int) -> list[int]:
        new = row[prompt:]
        return new[: new.index(end) + 1] if end in new else new

    def forced(self, batch: dict[str, Any], model: Any) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name != "labels"}

    def token_probabilities(self, output: Any, ids: Sequence[int]) -> Tensor:
        return _of_tokens(output.logits[:, -len(ids) - 1 : -1], ids)


def scored_texts(predictions: list[Any], examples: Sequence[Example]) -> Scored:
    """Texts beside the targets of their examples."""
    gold = [example.target for example in examples]
    scores = [_rouge().score(target, said) for target, said in zip(gold, predictions, strict=True)]
    f1 = {name: np.array([one[name].fmeasure for one in scores]) for name in ("rougeL", "rouge1", "rouge2")}
    return Scored(
        metrics={
            "rouge_l": float(f1["rougeL"].mean()),
            "rouge_1": float(f1["rouge1"].mean()),
            "rouge_2": float(f1["rouge2"].mean()),
            "bleu": BLEU().corpus_score(predictions, [gold]).score / 100,
            "chrf": CHRF().corpus_score(predictions, [gold]).score / 100,
        },
        counts=np.stack([f1["rougeL"], np.ones(len(gold))], axis=1),
        predictions=predictions,
    )


def _end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a text."""
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    return int(end)


def _of_tokens(logits: Tensor, ids: Sequence[int]) -> Tensor:
    chosen = torch.tensor(ids, device=logits.device)[None, :, None].expand(len(logits), -1, 1)
    return torch.softmax(logits.float(), dim=-1).gather(-1, chosen)[..., 0]


def _sides(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [example.text for example in examples], [example.second for example in examples]


@cache
def _rouge() -> RougeScorer:
    return RougeScorer(["rougeL", "rouge1", "rouge2"], use_stemmer=True)
