"""Third stage: the fused model on each task, and the one training that every arm of every task goes through."""

import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from kg.settings import Settings
from models.base import quiet
from models.batch import KnowledgeCollator, hide_mentions
from models.data import Example, Splits, read_task
from models.objectives import Objective, objective_for
from models.proof import score
from models.recipe import Arm, Task, resolve_path
from models.run import Run, aside, write_json
from models.stages.arms import arm_table, build_model, is_fresh, predict_logits, text_encoder
from models.stages.jobs import RESULT, Job, Report, run_jobs
from models.trainer import fit

console = Console(stderr=True)


def run_stage(run: Run, settings: Settings) -> None:
    """Leave the fused model of each task in ``model/`` (the first task) and ``model/<task>/`` (the others)."""
    console.rule("finetune: the fused model on each task")
    jobs = [task_job(run, settings, task, "fused", seed=0) for task in run.recipe.tasks]
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
    splits, objective, features = prepared(run_path, recipe.base, snapshot, task, path)
    table = arm_table(run_path, arm)
    warm_start = run_path / "pretrain" / arm / "model"
    model = build_model(
        recipe,
        table,
        auto_class=objective.auto_class,
        kgbert_class=objective.kgbert_class,
        seed=seed,
        warm_start=warm_start if warm_start.is_dir() else None,
        training=task.training,
        num_labels=len(objective.labels),
        id2label=dict(enumerate(objective.labels)),
        label2id={label: index for index, label in enumerate(objective.labels)},
    )
    encoder = text_encoder(run_path, recipe.base, snapshot, task.training.max_length)
    collate = KnowledgeCollator(tokenizer=encoder.tokenizer, with_knowledge=table is not None)
    trained = fit(
        model,
        features["train"],
        collate,
        task.training,
        seed=seed,
        folder=folder / "train",
        is_fresh=is_fresh,
        report=report,
        prepare=lambda feature, draw: hide_mentions(feature, task.training.entity_dropout, draw),
    )
    scored = {
        name: objective.score(predict_logits(model, features[name], collate), features[name], getattr(splits, name))
        for name in ("validation", "test")
    }
    if arm == "fused" and seed == 0:
        with aside(folder / "model") as part, quiet():
            model.save_pretrained(part)  # type: ignore[operator]
            encoder.tokenizer.save_pretrained(part)
    shutil.rmtree(folder / "train", ignore_errors=True)
    test = scored["test"]
    result = {
        "task": task.name,
        "arm": arm,
        "seed": seed,
        "main_metric": objective.main_metric,
        "metrics": dict(test.metrics),
        "validation": dict(scored["validation"].metrics),
        "counts": test.counts.tolist(),
        "linked": [bool(feature["mention_entities"]) for feature in features["test"]],
        "predictions": test.predictions,
        "labels": objective.labels,
        "confusion": None if test.confusion is None else test.confusion.tolist(),
        "losses": trained.losses,
        "train_examples": len(features["train"]),
        "seconds": round(time.monotonic() - started, 1),
    }
    assert abs(float(score(test.counts[None])[0]) - test.metrics[objective.main_metric]) < 1e-6
    write_json(folder / RESULT, result)
    return result


@cache
def prepared(
    run_path: Path, base: str, snapshot: str, task: Task, path: Path
) -> tuple[Splits, Objective, dict[str, list[dict[str, Any]]]]:
    """A task read, linked and tokenized; kept by a worker process for its later trainings."""
    splits = read_task(task.reader, path)
    if task.max_train:
        splits = Splits(train=splits.train[: task.max_train], validation=splits.validation, test=splits.test)
    everything: tuple[Example, ...] = (*splits.train, *splits.validation, *splits.test)
    objective = objective_for(task.kind, everything)
    encoder = text_encoder(run_path, base, snapshot, task.training.max_length)
    parts = {name: objective.encode(getattr(splits, name), encoder) for name in ("train", "validation", "test")}
    return splits, objective, parts


def _said(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
