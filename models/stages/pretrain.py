"""Second stage: language modelling on domain text, each arm with its own knowledge, same texts and masks."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kg.settings import Settings
from models.arms import Arm
from models.base import MINILM, load_tokenizer, quiet
from models.batch import KnowledgeCollator, on_device_of
from models.cleaning import cleaning_table
from models.masking import CAUSAL, MASKED, Family, corruptor, family_of, predict_masked_only
from models.mentions import hide_mentions
from models.recipe import Recipe
from models.run import Run, aside, write_json
from models.stages.arms import arm_table, build_model, text_encoder, with_vocabulary
from models.stages.gnn import make_tables
from models.stages.jobs import RESULT, Job, Report, run_jobs
from models.stages.maptune import tune_maps
from models.stages.texts import Texts, read_texts
from models.stopping import KeepBest
from models.trainer import fit
from models.vocabulary import Extension, choose_terms, tokens_per_word

console = Console(stderr=True)
FUSED: Arm = "fused"
WITHOUT_TERMS = "without new terms"
KEPT = ("loss_before", "loss_after", "tokens_per_word", "loss_per_word", "general_before", "general_after", "seconds")
"""Of an arm's result, what the run's report tells: ``loss_per_word`` can be compared where vocabularies differ."""
Prepare = Callable[[Mapping[str, Any], int], dict[str, Any]]


def run_stage(run: Run, settings: Settings) -> None:
    """Leave ``pretrain/<arm>/model`` for each arm, and for the fused one, which is served; no steps skip this."""
    arms = pretrained_arms(run.recipe)
    make_tables(run, settings)
    config = run.recipe.pretrain
    if config.max_steps == 0:
        tune_maps(run, settings, arms)
        run.update_manifest(pretrained_arms=arms)
        run.finish("pretrain", {})
        return
    family = family_of(run.recipe.base)
    texts, counts = read_texts(run, settings)
    console.print(cleaning_table(counts))
    run.update_manifest(cleaning=counts)
    if config.new_terms:
        terms = choose_terms(texts.train, load_tokenizer(run.recipe.base), config.new_terms)
        with aside(run.path / "vocabulary") as folder:
            Extension(run.recipe.base, terms).save(folder)
    tune_maps(run, settings, arms)
    console.rule(f"pretrain: {family.name}, on domain text")
    names: dict[str, tuple[Arm, Recipe]] = {arm: (arm, run.recipe) for arm in arms}
    if config.new_terms:
        without = replace(run.recipe, pretrain=replace(config, new_terms=0))
        names[f"{arms[0]} {WITHOUT_TERMS}"] = (arms[0], without)
    jobs = [
        Job(
            name=f"pretrain-{name}",
            folder=run.path / "pretrain" / name.replace(" ", "-"),
            work=pretrain_arm,
            arguments={"recipe": recipe, "snapshot": run.manifest["snapshot"]["path"], "texts": texts, "arm": arm},
        )
        for name, (arm, recipe) in names.items()
    ]
    results = dict(zip(names, run_jobs(run, jobs), strict=True))
    console.print(table_of(results))
    run.update_manifest(pretrained_arms=arms)
    run.finish("pretrain", {name: {key: result[key] for key in KEPT} for name, result in results.items()})


def pretrained_arms(recipe: Recipe) -> tuple[Arm, ...]:
    return tuple(dict.fromkeys((*recipe.arms, FUSED)))


def pretrain_arm(
    run_path: Path, folder: Path, report: Report, *, recipe: Recipe, snapshot: str, texts: Texts, arm: Arm
) -> dict[str, Any]:
    """Train one arm and measure the loss on texts held out from all arms alike."""
    config = recipe.pretrain
    family = family_of(recipe.base)
    recipe, brings_head = with_vocabulary(run_path, recipe), recipe.base not in MINILM
    table = arm_table(run_path, arm)
    mapped = run_path / "map" / arm / "model"
    model = build_model(
        recipe,
        table,
        auto_class=family.auto_class,
        kgbert_class=family.kgbert_class,
        seed=0,
        warm_start=mapped if mapped.is_dir() else None,
        training=config,
    )
    if family is MASKED:
        predict_masked_only(model)
    train, held_out, watched, general = encoded(run_path, recipe.base, snapshot, texts, config.max_length)
    tokenizer = text_encoder(run_path, recipe.base, snapshot, config.max_length).tokenizer
    collate = KnowledgeCollator(tokenizer=tokenizer, with_knowledge=table is not None)
    prepare = corruptor(
        family,
        tokenizer,
        mask_probability=config.mask_probability,
        mention_probability=config.mention_probability,
    )

    def measure(features: Sequence[dict[str, Any]]) -> float:
        return held_out_loss(model, features, collate, prepare, family)

    def is_fresh(name: str) -> bool:
        return "knowledge_attention" in name or (not brings_head and "cls.predictions.transform" in name)

    before, general_before = measure(held_out), measure(general) if general else None
    base = {name: p.detach().clone() for name, p in model.named_parameters() if config.average and not is_fresh(name)}
    keeper = KeepBest(
        lambda: -measure(watched),
        every=config.evaluate_steps,
        patience=config.patience,
        folder=folder / "train",
        from_start=True,
    )
    trained = fit(
        model,
        train,
        collate,
        config,
        seed=0,
        folder=folder / "train",
        is_fresh=is_fresh,
        report=report,
        prepare=lambda feature, draw: hide_mentions(prepare(feature, draw), config.entity_dropout, draw),
        callbacks=[keeper] if config.evaluate_steps else [],
    )
    towards(model, base, config.average)
    with aside(folder / "model") as part, quiet():
        model.save_pretrained(part)  # type: ignore[operator]
    shutil.rmtree(folder / "train", ignore_errors=True)
    after, length = measure(held_out), tokens_per_word(texts.held_out, tokenizer)
    result = {
        "arm": arm,
        "loss_before": before,
        "loss_after": after,
        "tokens_per_word": length,
        "loss_per_word": after * length,
        "general_before": general_before,
        "general_after": measure(general) if general else None,
        "losses": trained.losses,
        "steps": trained.steps,
        "seconds": trained.seconds,
    }
    write_json(folder / RESULT, result)
    return result


@torch.no_grad()
def towards(model: nn.Module, base: Mapping[str, Tensor], share: float) -> None:
    """Move the weights towards those of ``base`` by ``share`` of the way: on it lies less forgotten, most of it learnt.

    Wortsman et al., arXiv 2109.01903.
    """
    own = dict(model.named_parameters())
    for name, weight in base.items():
        own[name].lerp_(weight.to(own[name].device), share)


@cache
def encoded(
    run_path: Path, base: str, snapshot: str, texts: Texts, max_length: int
) -> tuple[list[dict[str, Any]], ...]:
    """The four lists of ``texts``, linked and tokenized once for all arms of a worker process."""
    encoder = text_encoder(run_path, base, snapshot, max_length)
    lists = (texts.train, texts.held_out, texts.watched, texts.general)
    return tuple(encoder.encode_texts(part) if part else [] for part in lists)


def held_out_loss(
    model: nn.Module,
    features: Sequence[dict[str, Any]],
    collate: KnowledgeCollator,
    prepare: Prepare,
    family: Family,
    *,
    batch_size: int = 32,
) -> float:
    """Mean loss over the tokens that are asked of ``features``, always the same ones."""
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(features), batch_size):
            some = enumerate(features[start : start + batch_size], start)
            batch = on_device_of(model, collate([prepare(feature, number) for number, feature in some]))
            labels = batch["labels"][:, 1:] if family is CAUSAL else batch["labels"]
            asked = int((labels != -100).sum())
            total += float(model(**batch).loss) * asked
            count += asked
    return total / max(count, 1)


def table_of(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """What pretraining did to the loss of each arm; a loss per word is per token times the tokens of a word."""
    general = any(result["general_after"] is not None for result in results.values())
    columns = ["arm", "held-out loss before", "after", "tokens per word", "loss per word"]
    table = Table(*columns, *(["general text before", "after"] if general else []), "s")
    for name, result in results.items():
        keys = KEPT[:-1] if general else KEPT[:4]
        table.add_row(name, *(f"{result[key]:.3f}" for key in keys), f"{result['seconds']:.0f}")
    return table
