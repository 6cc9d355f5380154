"""Knowledge into any Hugging Face model: chosen blocks are wrapped, nothing of the model is copied."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from kg.errors import ConfigError
from models.entity_table import EntityTable
from models.fusion import KNOWLEDGE_KEYS, FusionConfig, FusionOutput, Knowledge, KnowledgeAttention


@dataclass
class _Pass:
    """One forward of a fused model: the knowledge it was given, and what its blocks read of it."""

    model: nn.Module
    knowledge: Knowledge | None
    outer: "_Pass | None"
    """The pass within which this one runs, in the same thread."""
    calls: dict[int, int] = field(default_factory=dict)
    outputs: dict[int, FusionOutput] = field(default_factory=dict)


_current: ContextVar[_Pass | None] = ContextVar("knowledge", default=None)


class FusedBlock(nn.Module):
    """A transformer block and the knowledge attention after it.

    The attention stands outside the block, so gradient checkpointing, which runs a block twice, reads knowledge once.
    A block that is used several times in one pass (ALBERT shares its weights) has one attention for each chosen use.
    """

    def __init__(self, block: nn.Module, attentions: Mapping[int, KnowledgeAttention], uses: Sequence[int]) -> None:
        super().__init__()
        self.block = block
        self.knowledge_attention = nn.ModuleDict({str(layer): attention for layer, attention in attentions.items()})
        self.uses = tuple(uses)
        """Layer number of each use of the block in one pass."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.block(*args, **kwargs)
        current = _current.get()
        if current is None or current.knowledge is None:
            return output
        layer = self.uses[current.calls.get(id(self), 0)]
        current.calls[id(self)] = current.calls.get(id(self), 0) + 1
        if str(layer) not in self.knowledge_attention:
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        fused: FusionOutput = self.knowledge_attention[str(layer)](hidden, current.knowledge)
        current.outputs[layer] = fused
        return (fused.hidden, *output[1:]) if isinstance(output, tuple) else fused.hidden

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)  # what the model asks its block for


def inject_knowledge(
    model: PreTrainedModel, table: EntityTable, *, layers: Sequence[int] = (4, 5), fusion: FusionConfig | None = None
) -> PreTrainedModel:
    """Fuse a model in place and return it.

    Its forward then takes ``mention_entities``, ``mention_priors`` and ``token_mentions`` (``models.fusion.Knowledge``)
    and its output has ``knowledge``: what each fused layer read. Given none of them it computes what it did before, to
    the bit; the same holds with knowledge until training opens the gates.

    Args:
        model: any encoder, decoder or encoder-decoder (there, its encoder is fused).
        layers: blocks after which knowledge enters, from 0; ``fusion`` says more and goes first.

    Raises:
        ConfigError: the model has no such layer, or is fused already.
    """
    fusion = fusion or FusionConfig(layers=tuple(layers))
    if any(isinstance(module, FusedBlock) for module in model.modules()):
        raise ConfigError(f"{type(model).__name__} has knowledge attention already.")
    blocks, uses = find_blocks(model)
    depth = sum(map(len, uses))
    wrong = [layer for layer in fusion.layers if not 0 <= layer < depth]
    if wrong or not fusion.layers:
        raise ConfigError(
            f"Fusion layers {list(fusion.layers)}: {type(model).__name__} has 0 to {depth - 1}; set fusion.layers."
        )
    hidden_size = int(model.config.get_text_config().hidden_size)
    for position, block in enumerate(blocks):
        chosen = {
            layer: KnowledgeAttention(hidden_size=hidden_size, table=table, config=fusion).to(model.device)
            for layer in uses[position]
            if layer in fusion.layers
        }
        if chosen:
            blocks[position] = FusedBlock(block, chosen, uses[position])
    model.register_forward_pre_hook(_take_knowledge, with_kwargs=True)
    model.register_forward_hook(_give_knowledge, always_call=True)
    return model


def set_table(model: nn.Module, table: EntityTable) -> None:
    """Exchange the knowledge of a fused model; its weights stay.

    Raises:
        ConfigError: the table has another width than the one that the model was trained with.
    """
    for module in model.modules():
        if isinstance(module, KnowledgeAttention):
            if module.table.shape[1] != table.dim:
                raise ConfigError(f"The model reads vectors of {module.table.shape[1]}, the table has {table.dim}.")
            module.register_buffer("table", table.vectors.to(module.table.device), persistent=False)


def find_blocks(model: PreTrainedModel) -> tuple[nn.ModuleList, list[list[int]]]:
    """The list of transformer blocks to wrap, and the layer numbers at which each is used.

    It is the first list as long as the model is deep; an encoder comes before its decoder. ALBERT's list is shorter,
    since it uses each group of weights several times.

    Raises:
        ConfigError: no such list is found.
    """
    config = model.config.get_text_config(encoder=True)
    depth = int(config.num_hidden_layers)
    groups = int(getattr(config, "num_hidden_groups", depth))
    for module in model.modules():
        if not isinstance(module, nn.ModuleList) or len(module) != groups:
            continue
        kinds = {type(block.block if isinstance(block, FusedBlock) else block) for block in module}
        if len(kinds) == 1:
            uses: list[list[int]] = [[] for _ in range(groups)]
            for layer in range(depth):
                uses[int(layer / (depth / groups))].append(layer)
            return module, uses
    raise ConfigError(f"{type(model).__name__} has no list of {groups} blocks; fusing it needs a rule in find_blocks.")


def _take_knowledge(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Before forward: knowledge out of the arguments, and where the blocks find it."""
    given = [kwargs.pop(key, None) for key in KNOWLEDGE_KEYS]
    knowledge = None
    if all(isinstance(value, Tensor) for value in given) and given[0].shape[1] > 0:
        knowledge = Knowledge(*given)
    elif any(value is not None for value in given) and not all(isinstance(value, Tensor) for value in given):
        missing = [key for key, value in zip(KNOWLEDGE_KEYS, given, strict=True) if value is None]
        raise ValueError(f"knowledge is given without {', '.join(missing)}")
    _current.set(_Pass(model, knowledge, _current.get()))
    return args, kwargs


def _give_knowledge(model: nn.Module, args: Any, output: Any) -> Any:
    """After forward, also after one that failed: what was read into the output, and nothing left behind."""
    current = _current.get()
    if current is None or current.model is not model:
        return output  # the pass was refused before it began
    _current.set(current.outer)
    if current.knowledge is not None and output is not None and hasattr(output, "__dict__"):
        object.__setattr__(output, "knowledge", current.outputs)
    return output


def knowledge_of(output: Any) -> dict[int, FusionOutput]:
    """What each fused layer read in a forward; empty when no knowledge was given."""
    found: dict[int, FusionOutput] = getattr(output, "knowledge", {})
    return found


def plain_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Model inputs without knowledge."""
    return {name: value for name, value in inputs.items() if name not in KNOWLEDGE_KEYS}
