"""Last stage: every arm on every task with every seed, a trivial baseline beside them, and the report."""

from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from kg.settings import Settings
from models.arms import ARM_SUMMARIES
from models.baselines import rows
from models.recipe import Task, resolve_path
from models.report import write_report
from models.run import Run
from models.stages.finetune import task_job
from models.stages.found import searched
from models.stages.jobs import run_jobs
from models.stages.taskdata import divided, divisions_of, objective_on

console = Console(stderr=True)


def run_stage(run: Run, settings: Settings) -> None:
    """Leave ``metrics.json``, ``plots/`` and the model card; what other stages trained is not trained again."""
    recipe = run.recipe
    console.rule("evaluate: the arms, same seeds and steps")
    for arm in recipe.arms:
        console.print(f"{arm:>14}: {ARM_SUMMARIES[arm]}", soft_wrap=True)
    jobs = [
        task_job(run, settings, task, arm, seed=seed)
        for whole in searched(run)
        for task in whole.at_shots()
        for seed in range(recipe.seeds)
        for arm in recipe.arms
    ]
    results = run_jobs(run, jobs)
    baselines = [
        trivial(task, resolve_path(task.path, settings.data)) for whole in recipe.tasks for task in whole.at_shots()
    ]
    write_report(run, [*results, *chain.from_iterable(baselines)])
    run.finish("evaluate", {"trainings": len(results)})
    console.print(
        f"Report: {run.path / 'README.md'}; figures: {run.path / 'metrics.json'}; plots: {run.path / 'plots'}"
    )


def trivial(task: Task, path: Path) -> list[dict[str, Any]]:
    """Rows of the trivial systems, trained and tested with what the first seed of the models is."""
    examples, division = divided(task, path)
    divisions = divisions_of(examples, division, task, seed=0)
    given = [([examples[at] for at in one.train], [examples[at] for at in one.test]) for one in divisions]
    return rows(task, objective_on(task, examples, divisions[0]), given)
