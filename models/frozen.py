"""Lower blocks that stay as they are: what they make of a text is computed once, not in every epoch."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from models.base import fast_bf16
from models.batch import KnowledgeCollator, batches_by_length
from models.injection import find_blocks

STATES = "lower_states"
"""Key of a feature, and then of a batch: what the frozen blocks give ``[batch, seq, hidden]``."""

Batch = dict[str, Any]
Collate = Callable[[Sequence[Batch]], Batch]


class _Reached(Exception):
    """Ends a forward whose rest is not needed."""


class _Skipped(nn.Module):
    """Stands for a frozen block whose result is known."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states


def freeze_lower(model: nn.Module, layers: int) -> None:
    """Let the embeddings and the first ``layers`` blocks stay as they are."""
    if layers:
        blocks, uses = _blocks(model)
        used = (block for block, layers_of in zip(blocks, uses, strict=True) if max(layers_of) < layers)
        for module in (*_embeddings(model, blocks), *used):
            module.requires_grad_(False)


def lower_digest(model: nn.Module, layers: int) -> str:
    """Of the weights below block ``layers``: models that share it share what is computed there."""
    blocks, _ = _blocks(model)
    digest = hashlib.sha256()
    below = [*_embeddings(model, blocks), *(blocks[position] for position in range(layers))]
    for parameter in (parameter for module in below for parameter in module.parameters()):
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def lower_states(
    model: nn.Module, features: Sequence[Batch], collate: Collate, layers: int, *, batch_size: int = 64
) -> list[Tensor]:
    """What the frozen blocks make of each text ``[seq, hidden]``, padding cut off; without dropout."""
    blocks, _ = _blocks(model)
    found: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0].detach())
        raise _Reached

    handle = blocks[layers].register_forward_pre_hook(stop)
    states: dict[int, Tensor] = {}
    model.eval()
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            for indices in batches_by_length(features, batch_size):
                batch = collate([features[index] for index in indices])
                batch.pop("labels", None)
                with suppress(_Reached):
                    model(**batch)
                for index, row, mask in zip(indices, found.pop(), batch["attention_mask"], strict=True):
                    states[index] = row[mask.bool()].to(torch.bfloat16 if fast_bf16() else torch.float32)
    finally:
        handle.remove()
    return [states[index] for index in range(len(features))]


@contextmanager
def lower_known(model: nn.Module, collate: KnowledgeCollator, layers: int) -> Iterator[Collate]:
    """Within it the model begins at block ``layers``, with the states that its batches bring; yields their collator."""
    blocks, _ = _blocks(model)
    below = [blocks[position] for position in range(layers)]
    given: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: Batch) -> tuple[tuple[Any, ...], Batch]:
        given[:] = [kwargs.pop(STATES)]
        return args, kwargs

    def with_states(features: Sequence[Batch]) -> Batch:
        rows = [feature[STATES] for feature in features]
        padded = pad_sequence(rows, batch_first=True, padding_side=collate.tokenizer.padding_side).float()
        return {**collate(features), STATES: padded}

    handles = [
        model.register_forward_pre_hook(take, with_kwargs=True, prepend=True),
        blocks[layers].register_forward_pre_hook(lambda _, args: (given[0], *args[1:])),
    ]
    for position in range(layers):
        blocks[position] = _Skipped()
    try:
        yield with_states
    finally:
        for position, block in enumerate(below):
            blocks[position] = block
        for handle in handles:
            handle.remove()


def _blocks(model: nn.Module) -> tuple[nn.ModuleList, list[list[int]]]:
    inner = getattr(model, "model", model)
    return find_blocks(inner if isinstance(inner, PreTrainedModel) else model)  # type: ignore[arg-type]


def _embeddings(model: nn.Module, blocks: nn.ModuleList) -> list[nn.Module]:
    """The word embeddings and what is made of them before the first block: positions, kinds, their norm."""
    words = model.get_input_embeddings()  # type: ignore[operator]
    holder = next(module for module in model.modules() if any(child is words for child in module.children()))
    if all(module is not blocks for module in holder.modules()):
        return [holder]
    return [child for child in holder.children() if isinstance(child, nn.Embedding)]  # GPT-2's are beside its blocks
