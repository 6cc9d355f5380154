"""Knowledge into any Hugging Face model: chosen blocks are wrapped, nothing of the model is copied."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, EncoderDecoderConfig, PreTrainedModel

from kg.errors import ConfigError
from models.entity_table import EntityTable
from models.fusion import KNOWLEDGE_KEYS, VECTORS, FusionConfig, FusionOutput, Knowledge, KnowledgeAttention


@dataclass
class _Pass:
    """One forward of a fused model: the knowledge it was given, and what its blocks read of it."""

    model: PreTrainedModel
    knowledge: Knowledge | None
    outer: "_Pass | None"
    """The pass within which this one runs, in the same thread."""
    vectors: Tensor | None = None
    """Of the candidates, where the caller brings them."""
    earlier: Mapping[int, FusionOutput] = field(default_factory=dict)
    """What was read when the cached tokens, or the source of an encoder-decoder, were."""
    num_cached: int = 0
    """Tokens before those of this pass."""
    calls: dict[int, int] = field(default_factory=dict)
    outputs: dict[int, FusionOutput] = field(default_factory=dict)


_current: ContextVar[_Pass | None] = ContextVar("knowledge", default=None)


class FusedBlock(nn.Module):
    """A transformer block and the knowledge attention after it.

    The attention stands outside the block, so gradient checkpointing, which runs a block twice, reads knowledge once.
    A block that is used several times in one pass (ALBERT shares its weights) has one attention for each chosen use.
    """

    def __init__(
        self,
        block: nn.Module,
        attentions: Mapping[int, KnowledgeAttention],
        uses: Sequence[int],
        *,
        source_layer: int | None = None,
    ) -> None:
        """
        Args:
            uses: layer number of each use of the block in one pass.
            source_layer: of a block that reads what another text mentions: the layer that chose among its candidates.
        """
        super().__init__()
        self.block = block
        self.knowledge_attention = nn.ModuleDict({str(layer): attention for layer, attention in attentions.items()})
        self.uses, self.source_layer = tuple(uses), source_layer
        self.causal = any(getattr(module, "is_causal", False) for module in block.modules())

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
        fused = self._read(layer, hidden, current, current.knowledge)
        current.outputs[layer] = fused
        return (fused.hidden, *output[1:]) if isinstance(output, tuple) else fused.hidden

    def _read(self, layer: int, hidden: Tensor, current: _Pass, knowledge: Knowledge) -> FusionOutput:
        readable = None
        if self.source_layer is not None:
            knowledge = knowledge._replace(token_mentions=knowledge.token_mentions.new_zeros(hidden.shape[:2]))
        elif self.causal:
            knowledge, readable = so_far(knowledge, current.num_cached, hidden.shape[1])
        read = {**current.earlier, **current.outputs}.get(layer if self.source_layer is None else self.source_layer)
        chosen = None if read is None else read.candidate_weights
        if chosen is not None and len(chosen) != len(hidden):  # several answers for each text
            chosen = chosen.repeat_interleave(len(hidden) // len(chosen), dim=0)
        if chosen is not None and chosen.shape != knowledge.mention_entities.shape:
            raise ValueError("the cache was filled with other mentions; give the mention_entities of its first pass")
        fused: FusionOutput = self.knowledge_attention[str(layer)](
            hidden, knowledge, chosen=chosen, readable=readable, vectors=current.vectors
        )
        return fused

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

    In a decoder a token reads only mentions that have ended, and tokens that are generated read those of the prompt:
    ``model.generate`` takes the same three arguments.

    Args:
        model: any encoder, decoder or encoder-decoder (there, its encoder is fused; with ``fusion.decoder`` both are).
        layers: blocks after which knowledge enters, from 0; ``fusion`` says more and goes first.

    Raises:
        ConfigError: the model has no such layer, or is fused already.
    """
    fusion = fusion or FusionConfig(layers=tuple(layers))
    if any(isinstance(module, FusedBlock) for module in model.modules()):
        raise ConfigError(f"{type(model).__name__} has knowledge attention already.")
    two_sided = bool(model.config.is_encoder_decoder)
    if fusion.decoder and not two_sided:
        raise ConfigError(f"{type(model).__name__} is no encoder-decoder; leave fusion.decoder out.")
    sides = [find_blocks(model), *([find_blocks(model, decoder=True)] if fusion.decoder else [])]
    for _, uses in sides:
        depth = sum(map(len, uses))
        wrong = [layer for layer in fusion.layers if not 0 <= layer < depth]
        if wrong or not fusion.layers:
            raise ConfigError(
                f"Fusion layers {list(fusion.layers)}: {type(model).__name__} has 0 to {depth - 1}; set fusion.layers."
            )
    hidden_size = int(model.config.get_text_config().hidden_size)
    for (blocks, uses), source_layer in zip(sides, (None, max(fusion.layers)), strict=False):
        first = min(layer for layers in uses for layer in layers)
        for position, block in enumerate(blocks):
            chosen = {
                layer: KnowledgeAttention(hidden_size=hidden_size, table=table, config=fusion).to(model.device)
                for layer in uses[position]
                if layer - first in fusion.layers
            }
            if chosen:
                blocks[position] = FusedBlock(block, chosen, uses[position], source_layer=source_layer)
    # generate() runs the encoder by itself
    for module in {model, model.get_encoder()} if two_sided else {model}:
        module.register_forward_pre_hook(_take_knowledge, with_kwargs=True)
        module.register_forward_hook(_give_knowledge, always_call=True)
    if model.can_generate():
        model.prepare_inputs_for_generation = MethodType(_prepare_inputs_for_generation, model)  # type: ignore[assignment]
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


def find_blocks(model: PreTrainedModel, *, decoder: bool = False) -> tuple[nn.ModuleList, list[list[int]]]:
    """The list of transformer blocks to wrap, and the layer numbers at which each is used.

    It is the first list as long as the model is deep; an encoder comes before its decoder, whose numbers go on from
    its. ALBERT's list is shorter, since it uses each group of weights several times.

    Args:
        decoder: the blocks of an encoder-decoder's decoder.

    Raises:
        ConfigError: no such list is found.
    """
    depth, groups = depth_of(model.config, decoder=decoder)
    first = sum(map(len, find_blocks(model)[1])) if decoder else 0
    side: nn.Module = model.get_decoder() if decoder else model
    for module in side.modules():
        if not isinstance(module, nn.ModuleList) or len(module) != groups:
            continue
        kinds = {type(block.block if isinstance(block, FusedBlock) else block) for block in module}
        if len(kinds) == 1:
            uses: list[list[int]] = [[] for _ in range(groups)]
            for layer in range(depth):
                uses[int(layer / (depth / groups))].append(first + layer)
            return module, uses
    raise ConfigError(f"{type(model).__name__} has no list of {groups} blocks; fusing it needs a rule in find_blocks.")


def depth_of(config: Any, *, decoder: bool = False) -> tuple[int, int]:
    """Layers of a model, and the blocks that they are made of: ALBERT's are fewer, each used several times."""
    if isinstance(config, EncoderDecoderConfig):
        config = config.decoder if decoder else config.encoder
    else:
        config = config.get_text_config(decoder=decoder, encoder=not decoder)
    depth = int((decoder and getattr(config, "num_decoder_layers", None)) or config.num_hidden_layers)
    return depth, int(getattr(config, "num_hidden_groups", depth))


def so_far(knowledge: Knowledge, num_cached: int, seq: int) -> tuple[Knowledge, Tensor]:
    """Of a decoder's text, the part that this pass computes, and which mentions each of its tokens may read.

    A mention may be read from its last token on, so that no token depends on later ones. Tokens beyond
    ``token_mentions`` were generated and belong to no mention.
    """
    tokens = knowledge.token_mentions
    tokens = nn.functional.pad(tokens, (0, max(0, num_cached + seq - tokens.shape[1])))
    covers = nn.functional.one_hot(tokens, knowledge.mention_entities.shape[1] + 1)[..., 1:]
    still_to_come = covers.flip(1).cumsum(1).flip(1) - covers  # [batch, seq, mentions]: tokens after this one
    now = slice(num_cached, num_cached + seq)
    return knowledge._replace(token_mentions=tokens[:, now]), still_to_come[:, now] == 0


# a ContextVar cannot be set within a graph; the blocks, which only read it, are compiled
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _take_knowledge(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Before forward: knowledge out of the arguments, and where the blocks find it."""
    outer = _current.get()
    if outer is not None and outer.model is not model and outer.model.get_encoder() is model:
        return args, kwargs  # the encoder of a model that has taken it
    given, vectors = [kwargs.pop(key, None) for key in KNOWLEDGE_KEYS], kwargs.pop(VECTORS, None)
    knowledge = None
    if all(isinstance(value, Tensor) for value in given) and given[0].shape[1] > 0:
        knowledge = Knowledge(*given)
    elif any(value is not None for value in given) and not all(isinstance(value, Tensor) for value in given):
        missing = [key for key, value in zip(KNOWLEDGE_KEYS, given, strict=True) if value is None]
        raise ValueError(f"knowledge is given without {', '.join(missing)}")
    cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
    earlier = {**knowledge_of(cache), **knowledge_of(kwargs.get("encoder_outputs"))}
    cached = 0 if cache is None else int(cache.get_seq_length())
    _current.set(_Pass(model, knowledge, outer, vectors, earlier, cached))
    return args, kwargs


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _give_knowledge(model: nn.Module, args: Any, output: Any) -> Any:
    """After forward, also after one that failed: what was read into the output, and nothing left behind."""
    current = _current.get()
    if current is None or current.model is not model:
        return output  # the pass was refused before it began
    _current.set(current.outer)
    if current.knowledge is not None:
        # with a cache the mentions are behind its tokens in later passes, and what they were taken for is needed there
        for carrier in (output, getattr(output, "past_key_values", None)):
            if hasattr(carrier, "__dict__"):
                object.__setattr__(carrier, "knowledge", current.outputs)
    return output


def _prepare_inputs_for_generation(
    self: PreTrainedModel,
    *args: Any,
    inputs_embeds: Any = None,
    mention_entities: Tensor | None = None,
    mention_priors: Tensor | None = None,
    token_mentions: Tensor | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """As the model's own. Its arguments are those that ``generate`` allows, hence their names."""
    given = zip(KNOWLEDGE_KEYS, (mention_entities, mention_priors, token_mentions), strict=True)
    own: Any = type(self)
    inputs: dict[str, Any] = own.prepare_inputs_for_generation(
        self, *args, inputs_embeds=inputs_embeds, **dict(given), **kwargs
    )
    return inputs


def knowledge_of(output: Any) -> dict[int, FusionOutput]:
    """What each fused layer read in a forward; empty when no knowledge was given."""
    found: dict[int, FusionOutput] = getattr(output, "knowledge", {})
    return found
