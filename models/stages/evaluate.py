"""Last stage: every arm on every task with every seed, a trivial baseline beside them, and the report."""

from typing import Any

from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from kg.settings import Settings
from models.arms import ARM_SUMMARIES
from models.data import read_task
from models.recipe import Task, resolve_path
from models.report import write_report
from models.run import Run
from models.stages.finetune import task_job
from models.stages.found import searched
from models.stages.jobs import run_jobs

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
    baselines = [tf_idf(run, settings, task) for task in recipe.tasks if task.kind == "sequence_classification"]
    write_report(run, [*results, *baselines])
    run.finish("evaluate", {"trainings": len(results)})
    console.print(
        f"Report: {run.path / 'README.md'}; figures: {run.path / 'metrics.json'}; plots: {run.path / 'plots'}"
    )


def tf_idf(run: Run, settings: Settings, task: Task) -> dict[str, Any]:
    """Words and word pairs with logistic regression: on topical texts a serious rival, so it is always shown."""
    splits = read_task(task.reader, resolve_path(task.path, settings.data), task.columns)
    train = splits.train[: task.max_train] if task.max_train else splits.train
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1000)
    )
    model.fit([example.text for example in train], [example.label for example in train])
    gold = [example.label for example in splits.test]
    predicted = model.predict([example.text for example in splits.test])
    metrics = {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, average="macro")),
    }
    return {"task": task.name, "arm": "tf-idf", "seed": 0, "metrics": metrics, "train_examples": len(train)}
