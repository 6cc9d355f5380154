"""Second stage: masked language modelling on domain text, each arm with its own knowledge, same texts and masks."""

import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import AutoModelForMaskedLM

from kg.errors import ConfigError
from kg.settings import Settings
from models.arms import Arm
from models.base import quiet
from models.batch import KnowledgeCollator, hide_mentions
from models.data import read_corpus, read_task
from models.kgbert import KGBertForMaskedLM
from models.masking import Masker, predict_masked_only
from models.recipe import Pretrain, Recipe, resolve_path
from models.run import Run, aside, write_json
from models.stages.arms import arm_table, build_model, is_fresh, taught, text_encoder
from models.stages.gnn import make_tables
from models.stages.jobs import RESULT, Job, Report, run_jobs
from models.stages.maptune import tune_maps
from models.trainer import fit

console = Console(stderr=True)
FUSED: Arm = "fused"
HELD_OUT = 200
"""Texts on which the loss is measured before and after; a tenth where there are few."""


def run_stage(run: Run, settings: Settings) -> None:
    """Leave ``pretrain/<arm>/model`` for each arm, and for the fused one, which is served; no steps skip this."""
    make_tables(run, settings)
    arms = pretrained_arms(run.recipe)
    tune_maps(run, settings, arms)
    if run.recipe.pretrain.max_steps == 0:
        run.update_manifest(pretrained_arms=arms)
        run.finish("pretrain", {})
        return
    console.rule("pretrain: masked language modelling on domain text")
    texts = corpus(run, settings)
    jobs = [
        Job(
            name=f"pretrain-{arm}",
            folder=run.path / "pretrain" / arm,
            work=pretrain_arm,
            arguments={
                "recipe": run.recipe,
                "snapshot": run.manifest["snapshot"]["path"],
                "texts": texts,
                "arm": arm,
            },
        )
        for arm in arms
    ]
    results = run_jobs(run, jobs)
    for result in results:
        console.print(
            f"{result['arm']:>9}: held-out loss {result['loss_before']:.3f} → {result['loss_after']:.3f} "
            f"in {result['seconds']:.0f} s"
        )
    run.update_manifest(pretrained_arms=arms)
    kept = ("loss_before", "loss_after", "seconds")
    run.finish("pretrain", {result["arm"]: {key: result[key] for key in kept} for result in results})


def pretrained_arms(recipe: Recipe) -> tuple[Arm, ...]:
    return tuple(dict.fromkeys((*recipe.arms, FUSED)))


def corpus(run: Run, settings: Settings) -> tuple[str, ...]:
    """Training texts of the tasks, then texts of the corpora, without repeats; never a validation or test text."""
    recipe = run.recipe
    splits = [read_task(task.reader, resolve_path(task.path, settings.data), task.columns) for task in recipe.tasks]
    barred = {example.text for split in splits for part in (split.validation, split.test) for example in part}
    task_texts = [example.text for split in splits for example in split.train]
    read = [list(read_corpus(resolve_path(path, settings.data))) for path in recipe.pretrain.corpus]
    for texts in read:  # a spread over the whole corpus, not its first documents
        random.Random(0).shuffle(texts)  # noqa: S311
    unique = dict.fromkeys(
        text for texts in (task_texts, *read) for text in texts if text not in barred and len(text) > 20
    )
    if len(unique) < 2:
        raise ConfigError(
            "There are no texts to pretrain on; set pretrain.corpus, or max_steps = 0 to skip this stage."
        )
    return tuple(unique)[: recipe.pretrain.max_texts]


def pretrain_arm(
    run_path: Path, folder: Path, report: Report, *, recipe: Recipe, snapshot: str, texts: tuple[str, ...], arm: Arm
) -> dict[str, Any]:
    """Train one arm and measure the loss on texts held out from all arms alike."""
    config = recipe.pretrain
    table = arm_table(run_path, arm)
    model = build_model(
        recipe,
        table,
        auto_class=AutoModelForMaskedLM,
        kgbert_class=KGBertForMaskedLM,
        seed=0,
        warm_start=taught(run_path, arm),
        training=config,
    )
    predict_masked_only(model)
    features = encoded(run_path, recipe.base, snapshot, texts, config.max_length)
    held = max(1, min(HELD_OUT, len(features) // 10))
    train, held_out = features[:-held], features[-held:]
    encoder = text_encoder(run_path, recipe.base, snapshot, config.max_length)
    collate = KnowledgeCollator(tokenizer=encoder.tokenizer, with_knowledge=table is not None)
    masker = masker_of(encoder.tokenizer, config)
    before = masked_loss(model, held_out, collate, masker)
    trained = fit(
        model,
        train,
        collate,
        config,
        seed=0,
        folder=folder / "train",
        is_fresh=is_fresh,
        report=report,
        prepare=lambda feature, draw: hide_mentions(masker(feature, draw), config.entity_dropout, draw),
    )
    with aside(folder / "model") as part, quiet():
        model.save_pretrained(part)  # type: ignore[operator]
    shutil.rmtree(folder / "train", ignore_errors=True)
    result = {
        "arm": arm,
        "loss_before": before,
        "loss_after": masked_loss(model, held_out, collate, masker),
        "losses": trained.losses,
        "seconds": trained.seconds,
    }
    write_json(folder / RESULT, result)
    return result


def masker_of(tokenizer: Any, config: Pretrain) -> Masker:
    return Masker(
        tokenizer=tokenizer, mask_probability=config.mask_probability, mention_probability=config.mention_probability
    )


@cache
def encoded(run_path: Path, base: str, snapshot: str, texts: tuple[str, ...], max_length: int) -> list[dict[str, Any]]:
    """Texts linked and tokenized once for all arms of a worker process."""
    order = list(texts)
    random.Random(0).shuffle(order)  # noqa: S311
    return text_encoder(run_path, base, snapshot, max_length).encode_texts(order)


def masked_loss(
    model: nn.Module,
    features: list[dict[str, Any]],
    collate: KnowledgeCollator,
    masker: Masker,
    *,
    batch_size: int = 32,
) -> float:
    """Mean loss over the masked tokens of ``features``, always the same ones."""
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(features), batch_size):
            batch = collate(
                [masker(feature, start + offset) for offset, feature in enumerate(features[start : start + batch_size])]
            )
            asked = int((batch["labels"] != -100).sum())
            total += float(model(**batch).loss) * asked
            count += asked
    return total / max(count, 1)
