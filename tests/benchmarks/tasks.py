"""What each task reaches: plain and fused, each with and without pretraining, beside the trivial systems.

    export KGFUSE_DATA=../shared/data
    python tests/benchmarks/tasks.py --work /tmp/tasks --json tests/benchmarks/results/tasks.json --tasks cuad

Each task is two runs of ``python -m models.train_kgbert evaluate`` in folders below ``--work``; what is finished there
is not done again, so that more seeds or tasks may be added later. Runs of one graph with nothing banned share its
encoder.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from rich.console import Console
from rich.table import Table

from models.arms import BASELINES
from models.recipe import Recipe, load_recipe
from models.run import FORMAT, as_toml

ROOT = Path(__file__).parent.parent.parent

TASKS: Mapping[str, tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = {
    "phrasebank": ("finance", "sentiment", {}, {"epochs": 5.0}),
    "phrasebank-50": (
        "finance",
        "sentiment",
        {"path": "tasks/finance/phrasebank/Sentences_50Agree.txt"},
        {"epochs": 4.0, "learning_rate": 2e-4},
    ),
    "loan-entities": ("finance", "entities", {}, {"epochs": 12.0}),
    "fiqa": ("finance_more", "score", {}, {}),
    "tatqa": ("finance_more", "questions", {}, {}),
    "credit-risk": ("finance_more", "risk", {}, {}),
    "cuad": ("law", "clauses", {}, {}),
    "contract-nli": ("law", "inference", {}, {}),
    "policyqa": ("law", "policies", {}, {}),
    "legal-summaries": ("law", "summaries", {}, {}),
    "parties": ("law_parties", "parties", {}, {}),
    "ncbi-disease": ("medicine", "diseases", {}, {"epochs": 8.0}),
    "bc5cdr": ("bc5cdr", "bc5cdr", {"shots": (), "max_test": None}, {"epochs": 6.0, "frozen_layers": 0}),
    "chemprot": ("medicine_more", "relations", {}, {"learning_rate": 3e-4}),
    "pubmedqa": ("medicine_more", "answers", {}, {}),
    "notes": ("medicine_more", "notes", {}, {}),
    "patent-entities": ("patents", "entities", {}, {}),
    "patent-relations": ("patents", "relations", {}, {}),
    "patent-titles": ("patents", "titles", {}, {}),
    "citations": ("patents", "citations", {}, {}),
    "module-summaries": ("education", "summaries", {}, {}),
    "syllabus": ("education", "syllabus", {}, {}),
    "exercises": ("education", "exercises", {}, {}),
    "story-questions": ("education", "questions", {}, {}),
}
"""Recipe and task, and what of the task and its training is other than the recipe has it."""
TARGETS = {
    "phrasebank": 0.955,
    "phrasebank-50": 0.83,
    "bc5cdr": 0.80,
    "ncbi-disease": 0.80,
    "chemprot": 0.70,
    "cuad": 0.80,
}
PRETRAIN = {"max_steps": 150, "batch_size": 32, "learning_rate": 2e-4, "max_length": 64, "max_texts": 5000}
"""Where the recipe itself does not pretrain."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--systems", nargs="+", default=["pretrained", "as is"], choices=["pretrained", "as is"])
    parser.add_argument("--arms", nargs="+", default=["plain", "fused"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gnn-epochs", type=int, help="of the entity encoder; default as the recipe says")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--json", type=Path, help="where the figures go; those of other tasks stay")
    asked = parser.parse_args()
    results = json.loads(asked.json.read_text(encoding="utf-8")) if asked.json and asked.json.is_file() else {}
    for name in asked.tasks:
        for system in asked.systems:
            folder = asked.work / f"{name}-{system.replace(' ', '-')}"
            recipe = recipe_of(name, system)
            if asked.gnn_epochs is not None:
                recipe = replace(recipe, gnn=replace(recipe.gnn, epochs=asked.gnn_epochs))
            results.setdefault(name, {})[system] = run(recipe, folder, asked)
            if asked.json:
                asked.json.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    show(results)


def recipe_of(name: str, system: str) -> Recipe:
    """The recipe of one task alone, with or without pretraining."""
    recipe_name, task_name, changes, training = TASKS[name]
    recipe = load_recipe(recipe_name)
    (task,) = (task for task in recipe.tasks if task.name == task_name)
    task = replace(task, **{"name": name, "training": replace(task.training, **training), **changes})
    steps = PRETRAIN if recipe.pretrain.max_steps == 0 else {}
    pretrain = replace(recipe.pretrain, **(steps if system == "pretrained" else {"max_steps": 0}))
    return replace(recipe, name=f"{name}-{system.replace(' ', '-')}", tasks=(task,), pretrain=pretrain)


def run(recipe: Recipe, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".toml")
    file.write_text(as_toml(asdict(recipe)), encoding="utf-8")
    if not folder.exists():
        take_encoder(recipe, folder)
    command = [sys.executable, "-m", "models.train_kgbert", "evaluate", str(file), "--run", str(folder)]
    command += ["--seeds", str(asked.seeds), "--arms", *asked.arms]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=sys.stderr)
    metrics, manifest = (json.loads((folder / part).read_text()) for part in ("metrics.json", "manifest.json"))
    (summary,) = metrics["tasks"].values()
    return {
        "main_metric": summary["main_metric"],
        "test_examples": summary["test_examples"],
        "arms": summary["arms"],
        "conclusion": summary["conclusion"],
        "task": asdict(recipe.tasks[0]),
        "pretrain_steps": recipe.pretrain.max_steps,
        "gnn_epochs": recipe.gnn.epochs,
        "machine": manifest["machine"],
        "packages": manifest["packages"],
    }


def take_encoder(recipe: Recipe, folder: Path) -> None:
    """Begin with the graph, the encoder and the entity table of a run that a run of this recipe would do again."""
    for manifest in sorted(folder.parent.glob("*/manifest.json")):
        other, known = manifest.parent, json.loads(manifest.read_text(encoding="utf-8"))
        first = load_recipe(str(other / "config.toml"))
        encoder = known.get("stages", {}).get("gnn")
        kinds = {task.kind for task in (*first.tasks, *recipe.tasks)}
        same = (first.graph, first.gnn, first.base) == (recipe.graph, recipe.gnn, recipe.base)
        if encoder and same and "relation_classification" not in kinds:
            for part in ("gnn", "table", "snapshots"):
                shutil.copytree(other / part, folder / part)
            kept = {**known, "format": FORMAT, "recipe": recipe.name, "stages": {"gnn": encoder}}
            for of_tasks in ("pretrained_arms", "coverage"):
                kept.pop(of_tasks, None)
            (folder / "manifest.json").write_text(json.dumps(kept), encoding="utf-8")
            (folder / "config.toml").write_text(as_toml(asdict(recipe)), encoding="utf-8")
            return


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(title="mean of seeds × 100")
    columns = ("plain", "plain + pretraining", "fused", "fused + pretraining")
    for column in ("task", "metric", "trivial", *columns, "target"):
        table.add_column(column)
    for name, systems in results.items():
        some = next(iter(systems.values()))
        metric = some["main_metric"]
        trivial = [f"{arm} {100 * row['mean'][metric]:.1f}" for arm, row in some["arms"].items() if arm in BASELINES]
        scores = [
            systems.get(system, {}).get("arms", {}).get(arm, {}).get("mean", {}).get(metric)
            for arm in ("plain", "fused")
            for system in ("as is", "pretrained")
        ]
        shown = ["–" if score is None else f"{100 * score:.1f}" for score in scores]
        target = f"{100 * TARGETS[name]:.1f}" if name in TARGETS else ""
        table.add_row(name, metric, ", ".join(trivial) or "–", *shown, target)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
