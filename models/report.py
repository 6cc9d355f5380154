"""What a run has to say: metrics.json, a table on the terminal, plots and a model card."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models.objectives import METRICS
from models.proof import Counts, Verdict, judge, mean_and_deviation, score
from models.run import Run, aside, write_json, write_text

Results = Sequence[Mapping[str, Any]]


def write_report(run: Run, results: Results) -> None:
    """Write ``metrics.json``, ``plots/`` and ``README.md`` into the run folder and print the table.

    Args:
        results: what the trainings of ``models.stages.finetune`` left, baselines included.
    """
    by_task: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        by_task[result["task"]][result["arm"]].append(result)
    tasks = {task: summarise(task, arms) for task, arms in by_task.items()}
    write_json(run.path / "metrics.json", {"definitions": METRICS, "tasks": tasks, "pretrain": run.result("pretrain")})
    with aside(run.path / "plots") as folder:
        draw_scores(tasks, folder / "scores.png")
        for task, arms in by_task.items():
            draw_losses(task, arms, folder / f"{task}-loss.png")
            if arms.get("fused") and arms["fused"][0]["confusion"]:
                draw_confusion(task, arms["fused"], folder / f"{task}-confusion.png")
    write_text(run.path / "README.md", model_card(run, tasks))
    for task, summary in tasks.items():
        Console().print(table_of(task, summary))
        Console().print(summary["conclusion"], highlight=False)


def summarise(task: str, arms: Mapping[str, Results]) -> dict[str, Any]:
    """One task's section of ``metrics.json``: each arm with its seeds, mean and deviation, then slices and verdict."""
    trained = {arm: results for arm, results in arms.items() if arm != "tf-idf"}
    counts = {arm: stack(results) for arm, results in trained.items()}
    linked = np.array(next(iter(trained.values()))[0]["linked"], dtype=bool)
    verdict = judge(task, counts)
    return {
        "main_metric": next(iter(trained.values()))[0]["main_metric"],
        "test_examples": len(linked),
        "test_examples_linked": int(linked.sum()),
        "arms": {arm: _arm(results) for arm, results in arms.items()},
        "slices": {
            name: {arm: _spread(score(arm_counts[:, kept])) for arm, arm_counts in counts.items()}
            for name, kept in (("linked", linked), ("unlinked", ~linked))
            if kept.any()
        },
        "gain": _gain(verdict),
        "conclusion": verdict.sentence if verdict else "Only one arm was run: there is nothing to compare it with.",
    }


def stack(results: Results) -> Counts:
    """``[seeds, examples, 2]`` in the order of the seeds."""
    return np.array([result["counts"] for result in sorted(results, key=lambda result: result["seed"])], dtype=float)


def table_of(task: str, summary: Mapping[str, Any]) -> Table:
    """Arms by metrics, mean ± deviation in points."""
    metrics = list(next(iter(summary["arms"].values()))["mean"])
    table = Table(title=f"{task} ({summary['test_examples']} test examples, {summary['test_examples_linked']} linked)")
    table.add_column("arm")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name in summary["slices"]:
        table.add_column(f"{summary['main_metric']}, {name}", justify="right")
    for arm, values in summary["arms"].items():
        row = [_points(values["mean"].get(metric), values["deviation"].get(metric)) for metric in metrics]
        slices = [part.get(arm, {}) for part in summary["slices"].values()]
        row += [_points(part.get("mean"), part.get("deviation")) for part in slices]
        table.add_row(arm, *row)
    return table


def model_card(run: Run, tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """The run's README: what it is, what it was trained on, what it reached, what it must not be trusted with."""
    manifest, recipe = run.manifest, run.recipe
    counts, read = manifest["snapshot"]["counts"], manifest["snapshot"]["sources"]
    sources = ", ".join(f"{source['id']} {source.get('release', '')}".strip() for source in read)
    banned = ", ".join(recipe.graph.ban_relations) or "none"
    lines = [
        f"# {recipe.name}: a fused model",
        "",
        recipe.summary,
        "",
        f"- Base model: `{recipe.base}`; knowledge attention after layers {list(recipe.fusion.layers)}.",
        f"- Graph: snapshot `{manifest['snapshot']['hash'][:16]}`, {counts['entities']:,} entities, "
        f"{counts['triples']:,} triples, from {sources}.",
        f"- Relations kept from the model because they state a label: {banned}.",
        "",
    ]
    for task, summary in tasks.items():
        lines += [f"## {task}", "", *_markdown(table_of(task, summary)), "", f"**{summary['conclusion']}**", ""]
        coverage = manifest.get("coverage", {}).get(task)
        if coverage:
            lines += [
                f"Coverage: {coverage['texts_linked']:.0%} of {coverage['texts']} test texts have a linked entity; "
                f"{coverage['mentions_seen_in_training']:.0%} of the linked mentions were seen in training.",
                "",
            ]
    lines += ["![scores](plots/scores.png)", "", "## Limits", "", recipe.limits or "None recorded.", ""]
    lines += [
        "## Data",
        "",
        *(f"- `{Path(path).name}` sha256 `{digest}`" for path, digest in manifest["data"].items()),
        "",
    ]
    lines += [
        "## Made with",
        "",
        ", ".join(f"{name} {number}" for name, number in manifest["packages"].items())
        + f", Python {manifest['python']}, {manifest['machine']}, revision {manifest['git_revision'] or 'unknown'}.",
        "",
    ]
    return "\n".join(lines)


def draw_scores(tasks: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Mean of the main metric of each arm with its deviation, one group a task, and every seed as a dot."""
    figure, axes = _figure(1.6 + 2.6 * len(tasks), 3.6)
    low, named = 1.0, set[str]()
    for group, (_, summary) in enumerate(tasks.items()):
        metric = summary["main_metric"]
        for offset, (arm, values) in enumerate((arm, v) for arm, v in summary["arms"].items() if metric in v["mean"]):
            x = group + (offset - 1.5) * 0.2
            mean, deviation = values["mean"][metric], values["deviation"][metric]
            label = None if arm in named else arm
            named.add(arm)
            axes.bar(x, mean, 0.18, yerr=deviation, color=_COLOURS[arm], label=label)
            seeds = [seed[metric] for seed in values["seeds"].values()]
            axes.plot([x] * len(seeds), seeds, ".", color="black", markersize=4)
            low = min(low, *seeds)
    axes.set_xticks(range(len(tasks)), [f"{task}\n{summary['main_metric']}" for task, summary in tasks.items()])
    axes.set_ylim(max(0.0, low - 0.1), 1.0)
    axes.set_title("Test score by arm: mean, deviation, seeds")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(file)


def draw_losses(task: str, arms: Mapping[str, Results], file: Path) -> None:
    figure, axes = _figure(5.5, 3.6)
    for arm, results in arms.items():
        for result in results:
            if result.get("losses"):
                steps, losses = zip(*result["losses"], strict=True)
                first = result is results[0]
                axes.plot(steps, losses, color=_COLOURS[arm], alpha=0.6, label=arm if first else None)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title(f"{task}: training loss, every seed")
    axes.legend(frameon=False)
    figure.savefig(file)


def draw_confusion(task: str, results: Results, file: Path) -> None:
    counts = np.sum([result["confusion"] for result in results], axis=0)
    labels = results[0]["labels"]
    figure, axes = _figure(1.8 + 0.7 * len(labels), 1.4 + 0.7 * len(labels))
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, str(count), ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    axes.set_title(f"{task}: fused model, {len(results)} seeds")
    figure.savefig(file)


_COLOURS = {"plain": "#7f7f7f", "fused": "#1f77b4", "shuffled": "#d62728", "tf-idf": "#bcbd22"}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no display, nothing global

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    return figure, figure.add_subplot()


def _arm(results: Results) -> dict[str, Any]:
    results = sorted(results, key=lambda result: result["seed"])
    metrics = list(results[0]["metrics"])
    spreads = {name: _spread([result["metrics"][name] for result in results]) for name in metrics}
    return {
        "seeds": {str(result["seed"]): result["metrics"] for result in results},
        "mean": {name: spread["mean"] for name, spread in spreads.items()},
        "deviation": {name: spread["deviation"] for name, spread in spreads.items()},
        "train_examples": results[0].get("train_examples"),
        "seconds": [result.get("seconds") for result in results],
    }


def _spread(values: Any) -> dict[str, float | None]:
    mean, deviation = mean_and_deviation(values)
    return {"mean": _number(mean), "deviation": _number(deviation)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def _gain(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {}
    over = {
        arm: {"points": _number(gain.mean), "low": _number(gain.low), "high": _number(gain.high)}
        for arm, gain in verdict.over.items()
    }
    return {"helps": verdict.helps, "over": over}


def _points(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "–"
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def _markdown(table: Table) -> list[str]:
    header = [str(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
    ]
