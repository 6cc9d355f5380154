"""Third stage: the fused model on each task, and the one training that every arm of every task goes through."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from rich.console import Console
from torch import nn

from kg.errors import ConfigError
from kg.settings import Settings
from models.arms import Arm
from models.base import quiet
from models.batch import KnowledgeCollator
from models.examples import Splits
from models.frozen import STATES, Collate, freeze_lower, lower_digest, lower_known, lower_states
from models.lora import linear_layers, low_rank
from models.mentions import hide_mentions, wrong_links
from models.objectives import Objective
from models.proof import score
from models.recipe import Task, resolve_path
from models.run import Run, aside, write_json
from models.stages.arms import arm_table, build_model, is_fresh, taught, text_encoder, with_vocabulary
from models.stages.found import searched
from models.stages.jobs import RESULT, Job, Report, run_jobs
from models.stages.taskdata import Division, Prepared, any_of_example, divisions_of, objective_on, prepared, seen
from models.stopping import KeepBest
from models.trainer import fit

console = Console(stderr=True)
Features: TypeAlias = dict[str, list[dict[str, Any]]]
WRONG_LINKS = (0.1, 0.3, 0.5)
"""Shares of the test links that are led to other entities, to see how the fused model bears it."""


def run_stage(run: Run, settings: Settings) -> None:
    """Leave the fused model of each task in ``model/`` (the first task) and ``model/<task>/`` (the others)."""
    console.rule("finetune: the fused model on each task")
    tasks = searched(run)
    jobs = [task_job(run, settings, task.at_shots()[-1], "fused", seed=0) for task in tasks]
    results = run_jobs(run, jobs)
    with aside(run.path / "model") as folder:
        for position, job in enumerate(jobs):
            to = folder if position == 0 else folder / tasks[position].name
            shutil.copytree(job.folder / "model", to, dirs_exist_ok=True)
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
    validate_only: bool = False,
) -> dict[str, Any]:
    """Train, test, keep the answers; weights are kept of the first seed and fold, of the fused model if not of all.

    Args:
        validate_only: leave no more than the validation score: the test is not for choosing settings.
    """
    started = time.monotonic()
    recipe = with_vocabulary(run_path, recipe)
    data = prepared(run_path, recipe.base, snapshot, task, path, facts=arm == "text")
    divisions = divisions_of(data.read, data.division, task, seed=seed)
    given = [replace(data, objective=objective_on(task, data.examples, division)) for division in divisions]
    kept = (arm == "fused" or recipe.keep_models) and not seed and not validate_only
    outcomes = []
    for number, division in enumerate(divisions):
        own = folder / f"fold-{number}" if task.folds else folder
        file = own / "outcome.json"
        if not (task.folds and file.is_file()):
            outcome = _train_once(
                given[number],
                division,
                own / "train",
                lambda share, before=number: report((before + share) / len(divisions)),  # type: ignore[misc]
                run_path=run_path,
                recipe=recipe,
                snapshot=snapshot,
                task=task,
                arm=arm,
                seed=seed,
                model_folder=folder / "model" if kept and not number else None,
                validate_only=validate_only,
            )
            write_json(file, outcome)
        outcomes.append(json.loads(file.read_text(encoding="utf-8")))
    names = outcomes[0]["validation"]
    result = {
        "task": task.name,
        "shots": task.shots[0] if task.shots else None,
        "arm": arm,
        "seed": seed,
        "main_metric": data.objective.main_metric,
        "validation": {name: sum(one["validation"][name] for one in outcomes) / len(outcomes) for name in names},
        "losses": outcomes[0]["losses"],
        "train_examples": outcomes[0]["train_examples"],
        "seconds": round(time.monotonic() - started, 1),
    }
    if not validate_only:
        result |= _tested(given[0], divisions, outcomes)
    write_json(folder / RESULT, result)
    for number in range(len(divisions)):
        shutil.rmtree(folder / f"fold-{number}", ignore_errors=True)
    (folder / "outcome.json").unlink(missing_ok=True)
    return result


def _tested(data: Prepared, divisions: Sequence[Division], outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answers of all folds in the order of their examples, and what they score together."""
    places = [place for division in divisions for place in division.test]
    order = sorted(range(len(places)), key=places.__getitem__)
    examples = [data.examples[places[index]] for index in order]

    def together(lists: Iterable[list[Any]]) -> list[Any]:
        joined = [value for values in lists for value in values]
        return [joined[index] for index in order]

    objective = data.objective
    test = objective.score(together(one["answers"] for one in outcomes), examples)
    corrupted = {}
    for share in outcomes[0]["corrupted"]:
        answers = together(one["corrupted"][share] for one in outcomes)
        corrupted[share] = objective.score(answers, examples).metrics[objective.main_metric]
    (counted,) = np.nan_to_num(score(test.counts[None]))  # of nothing to be found and nothing found both are 0
    assert abs(float(counted) - test.metrics[objective.main_metric]) < 1e-6
    return {
        "metrics": dict(test.metrics),
        "counts": test.counts.tolist(),
        "linked": together(one["linked"] for one in outcomes),
        "seen": together(one["seen"] for one in outcomes),
        "corrupted": corrupted,
        "predictions": test.predictions,
        "confidences": together(one["confidences"] for one in outcomes) if outcomes[0]["confidences"] else None,
        "labels": objective.labels,
        "confusion": None if test.confusion is None else test.confusion.tolist(),
    }


def _train_once(
    data: Prepared,
    division: Division,
    folder: Path,
    report: Report,
    *,
    run_path: Path,
    recipe: Any,
    snapshot: str,
    task: Task,
    arm: Arm,
    seed: int,
    model_folder: Path | None,
    validate_only: bool,
) -> dict[str, Any]:
    """Train one model, choose its thresholds by the validation examples, and let it answer the tested ones."""
    training, objective = task.training, data.objective
    validation, tested = ([data.examples[at] for at in part] for part in (division.validation, division.test))
    if not validation and (training.patience or validate_only):
        raise ConfigError(f"task {task.name}: early stopping and searching need validation examples; there are none.")
    table = arm_table(run_path, arm)
    model = build_model(
        recipe,
        table,
        auto_class=objective.auto_class,
        kgbert_class=objective.kgbert_class,
        seed=seed,
        warm_start=taught(run_path, arm, begin_with=recipe.begin_with),
        training=training,
        **objective.options(),
    )
    tokenizer = text_encoder(run_path, recipe.base, snapshot, training.max_length).tokenizer
    plain_collate = KnowledgeCollator(tokenizer=tokenizer, with_knowledge=table is not None)
    freeze_lower(model, training.frozen_layers)
    layers = linear_layers(model, is_fresh) if training.lora_rank else []
    encoded = {part: data.of(getattr(division, part)) for part in Splits.PARTS}
    corrupted = {}
    with from_frozen(model, encoded, plain_collate, training.frozen_layers if objective.from_states else 0) as (
        features,
        collate,
    ):

        def validated() -> tuple[Objective, Mapping[str, float]]:
            outputs = objective.predict(model, features["validation"], collate)
            chosen = objective.calibrated(outputs, features["validation"], validation)
            return chosen, chosen.score(chosen.answers(outputs, features["validation"], validation), validation).metrics

        stopping = KeepBest(
            lambda: validated()[1][objective.main_metric],
            every=len(features["train"]) / training.batch_size,
            patience=training.patience,
            folder=folder,
        )
        with low_rank(model, training.lora_rank, layers, is_fresh=is_fresh):
            trained = fit(
                model,
                features["train"],
                collate,
                training,
                seed=seed,
                folder=folder,
                is_fresh=is_fresh,
                report=report,
                prepare=lambda feature, number: hide_mentions(data.taught(feature), training.entity_dropout, number),
                loss=objective.loss(features["train"], balanced=training.class_weights == "balanced"),
                callbacks=[stopping] if training.patience else [],
            )
        chosen, metrics = validated() if validation else (objective, {})
        answers: list[Any] = []
        confidences = None
        if not validate_only:
            outputs = objective.predict(model, features["test"], collate)
            answers, confidences = chosen.answers(outputs, features["test"], tested), chosen.confidences(outputs)
            if arm == "fused" and table is not None:
                for share in WRONG_LINKS:
                    wrong = [wrong_links(f, share, len(table.ids), number) for number, f in enumerate(features["test"])]
                    outputs = objective.predict(model, wrong, collate)
                    corrupted[str(share)] = chosen.answers(outputs, wrong, tested)
    if model_folder is not None:
        model.config.objective = chosen.state()  # type: ignore[union-attr]
        with aside(model_folder) as part, quiet():
            model.save_pretrained(part)  # type: ignore[operator]
            tokenizer.save_pretrained(part)
            if data.memory is not None:
                data.memory.save(part)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "validation": dict(metrics),
        "answers": answers,
        "confidences": confidences,
        "corrupted": corrupted,
        "linked": any_of_example([bool(feature["mention_entities"]) for feature in features["test"]], features["test"]),
        "seen": any_of_example(seen(features["train"], features["test"]), features["test"]),
        "losses": trained.losses,
        "train_examples": len(division.train),
    }


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


def _said(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
