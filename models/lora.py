"""Low-rank updates of a model's blocks (arXiv 2106.09685), through peft; merged, nothing of them is left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from models.injection import find_blocks


@contextmanager
def low_rank(model: nn.Module, rank: int, layers: Sequence[str], *, is_fresh: Callable[[str], bool]) -> Iterator[None]:
    """Within it only matrices of ``rank`` beside those of ``layers`` are trained, and what ``is_fresh``; then they are
    added to the weights, so that the model has the layers that it had.

    Args:
        rank: 0 changes nothing: all of the model that is not frozen is trained.
        layers: names of linear layers, as ``linear_layers`` finds them.
    """
    if not rank:
        yield
        return
    wanted = [name for name, parameter in model.named_parameters() if parameter.requires_grad and is_fresh(name)]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(layers))
    adapted = LoraModel(model, config, "default")
    for name, parameter in model.named_parameters():
        if name in wanted:
            parameter.requires_grad_(True)
    yield
    adapted.merge_and_unload()


def linear_layers(model: nn.Module, is_fresh: Callable[[str], bool]) -> list[str]:
    """Names of the linear layers in the blocks that are not frozen."""
    inner = getattr(model, "model", model)
    base = inner if isinstance(inner, PreTrainedModel) else model
    sides = [False, True] if base.config.is_encoder_decoder else [False]  # type: ignore[union-attr]
    within = {
        id(module)
        for side in sides
        for block in find_blocks(base, decoder=side)[0]  # type: ignore[arg-type]
        for module in block.modules()
    }
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and id(module) in within
        and module.weight.requires_grad
        and not is_fresh(name)
    ]
