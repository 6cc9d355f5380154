"""Third stage: the fused model on each task, and the one training that every arm of every task goes through."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import softmax
from torch import nn

from kg.settings import Settings
from models.arms import Arm
from models.bans import Bans
from models.base import quiet
from models.batch import KnowledgeCollator, hide_mentions, wrong_links
from models.data import read_task
from models.examples import Example, Splits
from models.facts import FACT_TOKENS, Facts
from models.frozen import STATES, Collate, freeze_lower, lower_digest, lower_known, lower_states
from models.objectives import Objective, objective_for
from models.proof import score
from models.recipe import Task, resolve_path
from models.run import Run, aside, write_json
from models.stages.arms import arm_table, build_model, is_fresh, predict_logits, taught, text_encoder, with_vocabulary
from models.stages.jobs import RESULT, Job, Report, run_jobs
from models.trainer import fit

console = Console(stderr=True)
Features: TypeAlias = dict[str, list[dict[str, Any]]]
WRONG_LINKS = (0.1, 0.3, 0.5)
"""Shares of the test links that are led to other entities, to see how the fused model bears it."""


def run_stage(run: Run, settings: Settings) -> None:
    """Leave the fused model of each task in ``model/`` (the first task) and ``model/<task>/`` (the others)."""
    console.rule("finetune: the fused model on each task")
    jobs = [task_job(run, settings, task.at_shots()[-1], "fused", seed=0) for task in run.recipe.tasks]
    results = run_jobs(run, jobs)
    with aside(run.path / "model") as folder:
        for position, job in enumerate(jobs):
            task = run.recipe.tasks[position].name
            shutil.copytree(job.folder / "model", folder if position == 0 else folder / task, dirs_exist_ok=True)
    for result in results:
        console.print(f"{result['task']}: {_said(result['metrics'])}")
    run.finish("finetune", {result["task"]: result["metrics"] for result in results})


def task_job(run: Run, settings: Settings, task: Task, arm: Arm, *, seed: int) -> Job:
    """The training of one arm on one task with one seed."""
    name = f"{task.name}-{arm}-{seed}"
    return Job(
        name=name,
        folder=run.path / "jobs" / name,
        work=train_task,
        arguments={
            "recipe": run.recipe,
            "snapshot": run.manifest["snapshot"]["path"],
            "task": task,
            "path": resolve_path(task.path, settings.data),
            "arm": arm,
            "seed": seed,
        },
    )


def train_task(
    run_path: Path,
    folder: Path,
    report: Report,
    *,
    recipe: Any,
    snapshot: str,
    task: Task,
    path: Path,
    arm: Arm,
    seed: int,
) -> dict[str, Any]:
    """Train, test, keep the answers; the weights are kept for the fused model's first seed only."""
    started = time.monotonic()
    recipe = with_vocabulary(run_path, recipe)
    splits, objective, encoded = prepared(run_path, recipe.base, snapshot, task, path, facts=arm == "text")
    drawn = draw(splits.train, task, seed=seed)
    table = arm_table(run_path, arm)
    model = build_model(
        recipe,
        table,
        auto_class=objective.auto_class,
        kgbert_class=objective.kgbert_class,
        seed=seed,
        warm_start=taught(run_path, arm),
        training=task.training,
        num_labels=len(objective.labels),
        id2label=dict(enumerate(objective.labels)),
        label2id={label: index for index, label in enumerate(objective.labels)},
    )
    encoder = text_encoder(run_path, recipe.base, snapshot, task.training.max_length)
    plain_collate = KnowledgeCollator(tokenizer=encoder.tokenizer, with_knowledge=table is not None)
    labelled = {**encoded, "train": [encoded["train"][index] for index in drawn]}
    with from_frozen(model, labelled, plain_collate, task.training.frozen_layers) as (features, collate):
        trained = fit(
            model,
            features["train"],
            collate,
            task.training,
            seed=seed,
            folder=folder / "train",
            is_fresh=is_fresh,
            report=report,
            prepare=lambda feature, number: hide_mentions(feature, task.training.entity_dropout, number),
        )
        logits = {name: predict_logits(model, features[name], collate) for name in ("validation", "test")}
        scored = {name: objective.score(logits[name], features[name], getattr(splits, name)) for name in logits}
        corrupted = {}
        if arm == "fused" and table is not None:
            for share in WRONG_LINKS:
                wrong = [wrong_links(f, share, len(table.ids), number) for number, f in enumerate(features["test"])]
                answers = objective.score(predict_logits(model, wrong, collate), wrong, splits.test)
                corrupted[str(share)] = answers.metrics[objective.main_metric]
    if arm == "fused" and seed == 0:
        with aside(folder / "model") as part, quiet():
            model.save_pretrained(part)  # type: ignore[operator]
            encoder.tokenizer.save_pretrained(part)
    shutil.rmtree(folder / "train", ignore_errors=True)
    test = scored["test"]
    result = {
        "task": task.name,
        "shots": task.shots[0] if task.shots else None,
        "arm": arm,
        "seed": seed,
        "main_metric": objective.main_metric,
        "metrics": dict(test.metrics),
        "validation": dict(scored["validation"].metrics),
        "counts": test.counts.tolist(),
        "linked": [bool(feature["mention_entities"]) for feature in features["test"]],
        "seen": seen(features["train"], features["test"]),
        "corrupted": corrupted,
        "predictions": test.predictions,
        "confidences": None if test.confusion is None else confidences(logits["test"]),
        "labels": objective.labels,
        "confusion": None if test.confusion is None else test.confusion.tolist(),
        "losses": trained.losses,
        "train_examples": len(features["train"]),
        "seconds": round(time.monotonic() - started, 1),
    }
    assert abs(float(score(test.counts[None])[0]) - test.metrics[objective.main_metric]) < 1e-6
    write_json(folder / RESULT, result)
    return result


_lower: dict[tuple[str, int], torch.Tensor] = {}
"""What frozen blocks give, by their weights and the feature: arms and seeds of a worker share it."""


@contextmanager
def from_frozen(
    model: nn.Module, encoded: Features, collate: KnowledgeCollator, layers: int
) -> Iterator[tuple[Features, Collate]]:
    """Features that bring what the frozen ``layers`` give, and their collator; within it the model begins there."""
    freeze_lower(model, layers)
    if not layers:
        yield encoded, collate
        return
    digest = lower_digest(model, layers)
    known: Features = {}
    for part, features in encoded.items():
        new = [feature for feature in features if (digest, id(feature)) not in _lower]  # ``prepared`` keeps them all
        for feature, states in zip(new, lower_states(model, new, collate, layers), strict=True):
            _lower[digest, id(feature)] = states
        known[part] = [{**feature, STATES: _lower[digest, id(feature)]} for feature in features]
    with lower_known(model, collate, layers) as collate_known:
        yield known, collate_known


def confidences(logits: Sequence[NDArray[np.float32]]) -> list[float]:
    """Probability of the label that is answered for each text."""
    return [round(float(row), 4) for row in softmax(np.stack(logits), axis=-1).max(-1)]


def some(examples: tuple[Example, ...], most: int | None) -> tuple[Example, ...]:
    """``most`` of the examples at random, always the same, in their order."""
    if most is None or len(examples) <= most:
        return examples
    return tuple(examples[index] for index in sorted(random.Random(0).sample(range(len(examples)), most)))  # noqa: S311


def draw(train: Sequence[Example], task: Task, *, seed: int) -> list[int]:
    """Positions of the training examples that this seed labels, in order: ``shots`` of each label, or all.

    Of tagged sentences, as many as it takes until each type has been in ``shots`` of them, and as many without any.
    """
    if not task.shots:
        return list(range(len(train)))
    (shots,) = task.shots
    order = list(range(len(train)))
    random.Random(seed).shuffle(order)  # noqa: S311
    counts: Counter[str] = Counter()
    drawn = []
    for index in order:
        example = train[index]
        types = {tag[2:] for tag in example.tags if tag != "O"} if example.tags else {str(example.label)}
        if any(counts[label] < shots for label in types or {"O"}):
            drawn.append(index)
            counts.update(types or {"O"})
    return sorted(drawn)


def seen(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> list[bool]:
    """True for the test examples of whose entities one was in a training example."""
    trained = {row for feature in train for candidates in feature["mention_entities"] for row in candidates[1:2]}
    return [
        any(row in trained for candidates in feature["mention_entities"] for row in candidates[1:2]) for feature in test
    ]


def prepared(
    run_path: Path, base: str, snapshot: str, task: Task, path: Path, *, facts: bool
) -> tuple[Splits, Objective, dict[str, list[dict[str, Any]]]]:
    """A task read, linked and tokenized; kept by a worker process for its later trainings.

    Args:
        facts: write what the graph says of the linked entities behind each text.
    """
    # whatever the number of shots, the texts are the same
    return _prepared(run_path, base, snapshot, replace(task, name="any", shots=()), path, facts)


@cache
def _prepared(
    run_path: Path, base: str, snapshot: str, task: Task, path: Path, facts: bool
) -> tuple[Splits, Objective, dict[str, list[dict[str, Any]]]]:
    splits = read_task(task.reader, path)
    most = task.max_test
    splits = Splits(
        train=splits.train[: task.max_train],
        validation=some(splits.validation, None if most is None else most // 4),
        test=some(splits.test, most),
    )
    everything: tuple[Example, ...] = (*splits.train, *splits.validation, *splits.test)
    objective = objective_for(task.kind, everything)
    encoder = text_encoder(run_path, base, snapshot, task.training.max_length)
    if facts:
        written = Facts(encoder.linker, Bans.load(run_path / "table"))
        splits = Splits(**{part: tuple(map(written.behind, getattr(splits, part))) for part in Splits.PARTS})
        encoder = text_encoder(run_path, base, snapshot, task.training.max_length + FACT_TOKENS)
    parts = {name: objective.encode(getattr(splits, name), encoder) for name in Splits.PARTS}
    return splits, objective, parts


def _said(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
