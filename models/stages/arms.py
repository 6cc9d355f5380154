"""The arms of a comparison: one model each, the same in all but the knowledge that it is given."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import set_seed

from kg.errors import ConfigError
from kg.linking import Linker
from models.arms import WITHOUT_KNOWLEDGE, Arm
from models.base import load_base, load_tokenizer, without_attention_dropout
from models.batch import KnowledgeEncoder
from models.entity_table import EntityTable
from models.recipe import Recipe, load_recipe
from models.training import Training

GROUPS = "groups.safetensors"
"""Beside a table: a number for each entity, the same for those of one type and like degree."""
SHUFFLE_SEED = 20
"""One permutation for all seeds: its pretraining is done once, as for the real table."""
_HEAD = re.compile(r"classifi|qa_outputs|\bscore\.")
_FRESH = re.compile(rf"{_HEAD.pattern}|knowledge_attention|crossattention|copy_|cls\.predictions\.transform")
TABLES: Mapping[Arm, str] = {"types": "types", "descriptions": "descriptions", "unbanned": "unbanned"}
"""Arms with an entity table of their own, and its folder in ``tables/``; the others read ``table/``."""


def arm_table(run_path: Path, arm: Arm) -> EntityTable | None:
    """The entity table that an arm reads; None for one that reads none."""
    if arm in WITHOUT_KNOWLEDGE:
        return None
    table = EntityTable.load(run_path / "tables" / TABLES[arm] if arm in TABLES else run_path / "table")
    if arm == "null":
        return table.emptied()
    if arm == "random":
        return table.randomised(SHUFFLE_SEED)
    if arm == "shuffled-alike":
        groups = load_file(run_path / "table" / GROUPS)["groups"]
        return table.shuffled(SHUFFLE_SEED, groups=groups.tolist())
    return table.shuffled(SHUFFLE_SEED) if arm == "shuffled" else table


def build_model(
    recipe: Recipe,
    table: EntityTable | None,
    *,
    auto_class: Any,
    kgbert_class: Any,
    seed: int,
    warm_start: Path | None,
    training: Training,
    **options: Any,
) -> nn.Module:
    """A base model with a fresh head, fused when ``table`` is given, ready to be trained.

    The base and its head are made first, under ``seed``, so that every arm begins with the same head.
    ``warm_start`` is a saved model whose weights of the same name and shape are taken over.
    """
    if not training.attention_dropout:
        options |= without_attention_dropout(recipe.base)
    set_seed(seed)
    if table is None:
        model: nn.Module = load_base(recipe.base, auto_class, **options)
    else:
        model = kgbert_class.from_base(recipe.base, table, fusion=recipe.fusion, **options)
    if warm_start is not None:
        take_over(model, warm_start)
    if training.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
    return model


def take_over(model: nn.Module, folder: Path) -> None:
    """Copy the saved weights that ``model`` has too; heads stay as they are. Those of an encoder go to both sides of
    an encoder-decoder that is made of it.

    Raises:
        ConfigError: the saved fusion blocks read vectors of another width.
    """
    saved = load_file(folder / "model.safetensors")
    own = model.state_dict()
    if saved.keys().isdisjoint(own):
        # T5 is named within its classifiers, and is not where it writes
        within = {name: name.replace("transformer.", "", 1) for name in own}
        inner = {name: saved[bare] for name, bare in within.items() if bare in saved}
        saved = inner or on_both_sides(saved, own)
    carried = {name: value for name, value in saved.items() if name in own and not _HEAD.search(name)}
    shared = {name: value for name, value in carried.items() if own[name].shape == value.shape}
    if any("knowledge_attention" in name for name in carried.keys() - shared.keys()):
        raise ConfigError(f"The fusion blocks of {folder} are of another size; give both runs the same fusion and gnn.")
    if not shared:
        raise ValueError(f"no weight of {folder} fits {type(model).__name__}")
    model.load_state_dict(shared, strict=False)


def on_both_sides(saved: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Weights of an encoder by the names that an encoder-decoder has for them; knowledge attention where it has any."""
    bare = {name.removeprefix("model.").replace(".block.", "."): value for name, value in saved.items()}
    inner = {name.partition(".")[2]: value for name, value in bare.items()}  # an encoder has no name for itself there
    found = {}
    for name in own:
        side, _, rest = name.removeprefix("model.").replace(".block.", ".").partition(".")
        among = {"encoder": inner, "decoder": bare}.get(side, {})
        if rest in among:
            found[name] = among[rest]
    return found


def taught(run_path: Path, arm: Arm, *, begin_with: str = "") -> Path | None:
    """The weights that an arm's next training begins with: of its pretraining, or else of its map; None: the base's.

    Args:
        begin_with: a run that kept its models; those of its first task go before all others.

    Raises:
        ConfigError: it kept none of this arm.
    """
    if begin_with:
        run = Path(begin_with)
        (task, *_) = load_recipe(str(run / "config.toml")).tasks
        model = run / "jobs" / f"{task.at_shots()[-1].name}-{arm}-0" / "model"
        if not model.is_dir():
            raise ConfigError(f"{run} has no model of the arm {arm}; run it with --keep-models and this arm first.")
        return model
    folders = (run_path / "pretrain" / arm / "model", run_path / "map" / arm / "model")
    return next((folder for folder in folders if folder.is_dir()), None)


def with_vocabulary(run_path: Path, recipe: Recipe) -> Recipe:
    """The recipe whose base model has the words that the run's pretraining added, where it added some."""
    folder = run_path / "vocabulary"
    return replace(recipe, base=str(folder)) if recipe.pretrain.new_terms and folder.is_dir() else recipe


def is_fresh(name: str) -> bool:
    """True for parameters that no pretrained model brings: fusion blocks, task heads, what joins two models in one."""
    return _FRESH.search(name) is not None


@cache
def text_encoder(run_path: Path, base: str, snapshot: str, max_length: int) -> KnowledgeEncoder:
    """Tokenizer, linker and table rows of a run; kept by a worker process for its later trainings."""
    table = EntityTable.load(run_path / "table")
    linker = Linker.load(run_path / snapshot)
    return KnowledgeEncoder(load_tokenizer(base), linker, table, max_length=max_length)
