"""Looks for better training settings of each task, on its validation examples alone; an interrupted search goes on."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from kg.errors import ConfigError, KGError, UserError
from kg.settings import Settings
from models.arms import Arm
from models.recipe import Task
from models.run import Run, write_json, write_text
from models.stages.finetune import task_job, train_task
from models.stages.found import FOUND, searched
from models.stages.jobs import RESULT, Job, Report, run_jobs
from models.training import Training

console = Console(stderr=True)


def search(run: Run, settings: Settings, trials: int) -> None:
    """Try ``trials`` settings of each task with the fused model, and leave the best in ``search.toml``.

    The first are the recipe's own. What was trained with other settings than the best is removed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (run.path / "search").mkdir(exist_ok=True)
    before, lines = searched(run), []
    for task in run.recipe.tasks:
        console.rule(f"search: {task.name}, {trials} settings")
        best = _best(run, settings, task, trials)
        console.print(f"{task.name}: validation {best.value:.3f} with {best.params}")
        lines += ["[[tasks]]", f'name = "{task.name}"', "", "[tasks.training]"]
        lines += [f"{name} = {value}" for name, value in best.params.items()] + [""]
    write_text(run.path / FOUND, "\n".join(lines))
    for old, new in zip(before, searched(run), strict=True):
        if old != new:
            of_task = re.compile(rf"{re.escape(new.name)}(-\d+)?-({'|'.join(get_args(Arm))})-\d+")
            for folder in (run.path / "jobs").glob("*"):
                if of_task.fullmatch(folder.name):
                    shutil.rmtree(folder)


def space(training: Training) -> dict[str, BaseDistribution]:
    """What is searched: a factor of 4 around the recipe's learning rate, up to twice its epochs."""
    low, high = training.learning_rate / 4, training.learning_rate * 4
    sizes = sorted({8, 16, 32, training.batch_size})
    most = max(2, round(2 * training.epochs))
    return {
        "learning_rate": FloatDistribution(low, high, log=True),
        "epochs": IntDistribution(1, most),
        "batch_size": CategoricalDistribution(sizes),
        "entity_dropout": FloatDistribution(0.0, max(0.5, training.entity_dropout)),
    }


def _best(run: Run, settings: Settings, task: Task, trials: int) -> FrozenTrial:
    """As many trials at a time as there are cores; those that were begun and not finished are the first to be."""
    log = run.path / "search" / f"{task.name}.log"
    storage = JournalStorage(JournalFileBackend(str(log)))
    study = optuna.create_study(study_name=task.name, storage=storage, direction="maximize", load_if_exists=True)
    wanted = space(task.training)
    if not study.trials:
        own = {name: getattr(task.training, name) for name in wanted}
        study.enqueue_trial({**own, "epochs": max(1, round(task.training.epochs))})
    while (done := sum(trial.state.is_finished() for trial in study.trials)) < trials:
        waiting = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
        study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=5)  # else it begins anew
        for _ in range(min(trials - done, len(os.sched_getaffinity(0))) - len(waiting)):
            asked = study.ask(wanted)
            waiting.append(study.trials[asked.number])
        jobs = [_job(run, settings, task, trial) for trial in waiting]
        for trial, result in zip(waiting, run_jobs(run, jobs), strict=True):
            if failed := result.get("failed"):
                console.print(f"{task.name}, trial {trial.number}: {failed}")
                study.tell(trial.number, state=TrialState.FAIL)
            else:
                study.tell(trial.number, result["validation"][result["main_metric"]])
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
        raise ConfigError(
            f"task {task.name}: none of {len(study.trials)} settings could be trained with, of those around its "
            f"learning_rate of {task.training.learning_rate}; lower it and search again in another run."
        )
    return study.best_trial


def try_task(run_path: Path, folder: Path, report: Report, **arguments: Any) -> dict[str, Any]:
    """A training that its settings may break: then that is its result, and the search goes on."""
    try:
        return train_task(run_path, folder, report, **arguments)
    except UserError:
        raise  # it would break any other, too
    except KGError as error:
        result = {"failed": str(error)}
        write_json(folder / RESULT, result)
        return result


def _job(run: Run, settings: Settings, task: Task, trial: FrozenTrial) -> Job:
    tried = replace(task.at_shots()[-1], training=replace(task.training, **trial.params))
    job = task_job(run, settings, tried, "fused", seed=0)
    return replace(
        job,
        name=f"{task.name}, trial {trial.number}",
        work=try_task,
        folder=run.path / "search" / task.name / str(trial.number),
        arguments={**job.arguments, "validate_only": True},
    )
