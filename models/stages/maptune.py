"""Part of the second stage: the fusion blocks of each arm are taught its map, on the training texts of the tasks."""

import random
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file
from transformers import AutoModel, set_seed

from kg.errors import ConfigError
from kg.settings import Settings
from models.arms import WITHOUT_KNOWLEDGE, Arm
from models.base import load_base
from models.batch import ANSWER, PAIR, KnowledgeCollator, parts_of
from models.frozen import STATES, lower_known, lower_states
from models.injection import inject_knowledge
from models.map_tuning import TARGET, MapTuner, collate_targets, lead_astray, masked_mentions, unmasked_states
from models.recipe import Recipe, Task, resolve_path
from models.run import Run, aside, write_json
from models.stages.arms import arm_table, text_encoder, with_vocabulary
from models.stages.jobs import RESULT, Job, Report, run_jobs
from models.stages.taskdata import prepared
from models.trainer import fit

console = Console(stderr=True)


def tune_maps(run: Run, settings: Settings, arms: tuple[Arm, ...]) -> None:
    """Leave ``map/<arm>/model`` for each arm that reads a table."""
    recipe = run.recipe
    if not recipe.map.epochs:
        return
    console.rule("pretrain: what an entity's vector stands for, taught without labels")
    # with folds, each text is tested by one of the models
    tasks = [(task, resolve_path(task.path, settings.data)) for task in recipe.tasks if not task.folds]
    jobs = [
        Job(
            name=f"map-{arm}",
            folder=run.path / "map" / arm,
            work=tune_map,
            arguments={
                "recipe": recipe,
                "snapshot": run.manifest["snapshot"]["path"],
                "tasks": tasks,
                "arm": arm,
            },
        )
        for arm in arms
        if arm not in WITHOUT_KNOWLEDGE
    ]
    for job, result in zip(jobs, run_jobs(run, jobs), strict=True):
        (_, first), (_, last) = result["losses"][0], result["losses"][-1]
        console.print(f"{job.name:>18}: loss {first:.3f} → {last:.3f} on {result['mentions']} mentions")


def tune_map(
    run_path: Path,
    folder: Path,
    report: Report,
    *,
    recipe: Recipe,
    snapshot: str,
    tasks: list[tuple[Task, Path]],
    arm: Arm,
) -> dict[str, Any]:
    """Teach one arm's fusion blocks; the base model stays as it is and is not saved."""
    recipe = with_vocabulary(run_path, recipe)
    config = recipe.map
    table = arm_table(run_path, arm)
    assert table is not None
    texts = [
        part
        for task, path in tasks
        for data in [prepared(run_path, recipe.base, snapshot, task, path, facts=False)]
        for feature in data.of(data.division.train)
        for part in parts_of(feature)
        if part["mention_entities"]
    ]
    if not texts:
        raise ConfigError(
            "Map-tuning goes by linked mentions, and no training text of the tasks has one; set map.epochs to 0."
        )
    random.Random(0).shuffle(texts)  # noqa: S311
    texts = texts[: config.max_texts]
    tokenizer = text_encoder(run_path, recipe.base, snapshot, tasks[0][0].training.max_length).tokenizer
    set_seed(0)
    encoder = load_base(recipe.base, AutoModel)
    prefix = f"model.{encoder.base_model_prefix}."
    inject_knowledge(encoder, table, fusion=recipe.fusion)
    collate = KnowledgeCollator(tokenizer=tokenizer)
    texts = [{key: value for key, value in text.items() if key not in ("labels", PAIR, ANSWER)} for text in texts]
    variants = masked_mentions(texts, tokenizer)
    targets = unmasked_states(encoder, texts, collate)
    layers = min(recipe.fusion.layers)
    states = lower_states(encoder, variants, collate, layers)
    features = [
        {**variant, TARGET: target, STATES: known}
        for variant, target, known in zip(variants, targets, states, strict=True)
    ]
    tuner = MapTuner(encoder, spread=float(torch.stack(targets).var()))
    with lower_known(encoder, collate, layers) as collate_known:
        trained = fit(
            tuner,
            features,
            collate_targets(collate_known),
            config,
            seed=0,
            folder=folder / "train",
            is_fresh=lambda name: True,
            report=report,
            prepare=lambda feature, draw: lead_astray(feature, config.wrong_links, len(table.ids), draw),
        )
    learned = {
        prefix + name: value.contiguous()
        for name, value in encoder.state_dict().items()
        if "knowledge_attention" in name
    }
    with aside(folder / "model") as part:
        save_file(learned, part / "model.safetensors")
    shutil.rmtree(folder / "train", ignore_errors=True)
    result = {"arm": arm, "mentions": len(features), "losses": trained.losses, "seconds": trained.seconds}
    write_json(folder / RESULT, result)
    return result
