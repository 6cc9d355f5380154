"""What a recipe asks that its base model or a stage cannot do: said before anything is made."""

from collections.abc import Mapping
from typing import Any

from kg.errors import ConfigError
from models.base import load_config, load_tokenizer, quiet
from models.facts import FACT_TOKENS
from models.injection import depth_of
from models.recipe import Recipe
from models.training import MapTuning, Pretrain

_OF_TASKS = ("frozen_layers", "lora_rank", "class_weights")
UNREAD: Mapping[str, tuple[str, ...]] = {
    "pretrain": _OF_TASKS,
    "map": (
        *_OF_TASKS,
        *("max_length", "patience", "entity_dropout", "freeze_embeddings", "attention_dropout", "learning_rate"),
    ),
}
"""Settings of a task's training that another stage does not read. The ``config.toml`` of a run names them all, so they
are known keys; what is refused is another value than their own."""
_BEHIND_PADDING = (
    *("camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Models that number the first token of a text behind padding, as RoBERTa does: by so many fewer fit."""


def check(recipe: Recipe) -> None:
    """
    Raises:
        ConfigError: a setting is not read where it is, or the base model has not the layers, the places or the mask
            token that the recipe asks.
    """
    for stage, defaults in (("pretrain", Pretrain()), ("map", MapTuning())):
        for name in UNREAD[stage]:
            if (value := getattr(getattr(recipe, stage), name)) != getattr(defaults, name):
                raise ConfigError(f"{stage}.{name} is {value}, but nothing reads it there: leave it out.")
    with quiet():
        config = load_config(recipe.base)
        limit = most_tokens(config)
    depth, blocks = depth_of(config)
    layers = recipe.fusion.layers
    if not layers or not all(0 <= layer < depth for layer in layers):
        raise ConfigError(f"fusion.layers are {list(layers)}, but {recipe.base} has layers 0 to {depth - 1}.")
    first = min(layers)
    for task in recipe.tasks:
        frozen = task.training.frozen_layers
        if not 0 <= frozen <= first:
            raise ConfigError(
                f"task {task.name}: frozen_layers is {frozen}, expected 0 to {first}: knowledge enters after layer "
                f"{first} (fusion.layers), and what is frozen never learns to read it."
            )
        facts = FACT_TOKENS if "text" in recipe.arms else 0
        written = task.decoding.max_tokens if task.kind == "causal_generation" else 0
        _fits(f"task {task.name}", task.training.max_length, {"facts": facts, "what is written": written}, limit)
    if recipe.pretrain.max_steps:
        _fits("pretrain", recipe.pretrain.max_length, {}, limit)
    if blocks < depth and first and (recipe.map.epochs or any(task.training.frozen_layers for task in recipe.tasks)):
        raise ConfigError(
            f"{recipe.base} uses each of its blocks several times, so that none can stay as it is below others; set "
            "frozen_layers and map.epochs to 0."
        )
    if recipe.map.epochs and load_tokenizer(recipe.base).mask_token_id is None:
        raise ConfigError(f"Map-tuning masks words, and {recipe.base} has no mask token; set map.epochs to 0.")


def most_tokens(config: Any) -> int | None:
    """The longest text that a base model has places for; None where it counts them otherwise, as T5 does."""
    places = int(getattr(config, "max_position_embeddings", None) or 0)
    if places <= 0 or not getattr(config, "position_biased_input", True):
        return None
    return places - (config.pad_token_id + 1 if config.model_type in _BEHIND_PADDING else 0)


def _fits(name: str, max_length: int, beside: Mapping[str, int], limit: int | None) -> None:
    if limit is None or max_length + sum(beside.values()) <= limit:
        return
    more = "".join(f", with {tokens} tokens of {what} beside it" for what, tokens in beside.items() if tokens)
    raise ConfigError(f"{name}: max_length is {max_length}{more}, but the base model reads {limit} tokens at most.")
