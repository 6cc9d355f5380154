"""Plots of a comparison: scores by arm, by labels, losses, confusion and reliability."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Results = Sequence[Mapping[str, Any]]
MOST_CELLS = 30
"""Labels from which on a confusion grows no more and shows no counts: with 100 it took 33 s and 3.2 GB."""


def draw_scores(tasks: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Mean of the main metric of each arm with its deviation, one group a task, and every seed as a dot."""
    most = max((len(summary["arms"]) for summary in tasks.values()), default=1)
    figure, axes = _figure(1.6 + 0.65 * most * len(tasks), 3.6)
    named, width = set[str](), 0.8 / most
    for group, (_, summary) in enumerate(tasks.items()):
        metric = summary["main_metric"]
        for offset, (arm, values) in enumerate((arm, v) for arm, v in summary["arms"].items() if metric in v["mean"]):
            x = group + (offset - (most - 1) / 2) * width
            mean, deviation = values["mean"][metric], values["deviation"][metric]
            label = None if arm in named else arm
            named.add(arm)
            axes.errorbar(x, mean, deviation, fmt="_", color=COLOURS[arm], label=label, ms=20, mew=3, capsize=4)
            seeds = [seed[metric] for seed in values["seeds"].values()]
            axes.plot([x] * len(seeds), seeds, ".", color="black", markersize=4)
    axes.set_xticks(range(len(tasks)), [f"{task}\n{summary['main_metric']}" for task, summary in tasks.items()])
    axes.set_xlim(-0.5, len(tasks) - 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.set_title("Test score by arm: mean, deviation, seeds")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(file)


def draw_curve(name: str, curve: Mapping[str, Any], file: Path) -> None:
    """Score of each arm by labels a class."""
    figure, axes = _figure(5.5, 3.6)
    for arm, scores in curve["scores"].items():
        axes.plot(list(scores), list(scores.values()), "o-", color=COLOURS[arm], label=arm)
    axes.set_xscale("log")
    ticks = list(next(iter(curve["scores"].values())))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labels a class")
    axes.set_ylabel("test score")
    axes.set_title(f"{name}: mean of the seeds, by labels")
    axes.legend(frameon=False)
    figure.savefig(file)


def draw_losses(task: str, arms: Mapping[str, Results], file: Path) -> None:
    figure, axes = _figure(5.5, 3.6)
    for arm, results in arms.items():
        for result in results:
            if result.get("losses"):
                steps, losses = zip(*result["losses"], strict=True)
                first = result is results[0]
                axes.plot(steps, losses, color=COLOURS[arm], alpha=0.6, label=arm if first else None)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title(f"{task}: training loss, every seed")
    axes.legend(frameon=False)
    figure.savefig(file)


def draw_confusion(task: str, results: Results, file: Path) -> None:
    counts = np.sum([result["confusion"] for result in results], axis=0)
    labels = results[0]["labels"]
    legible = len(labels) <= MOST_CELLS
    side = 0.7 * min(len(labels), MOST_CELLS)
    figure, axes = _figure(1.8 + side, 1.4 + side)
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts) if legible else ():
        axes.text(column, row, str(count), ha="center", va="center", fontsize=8)
    named = range(0, len(labels), -(-len(labels) // 100))
    axes.set_xticks(named, [labels[at] for at in named], rotation=45, ha="right")
    axes.set_yticks(named, [labels[at] for at in named])
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    axes.set_title(f"{task}: fused model, {len(results)} seeds")
    figure.savefig(file)


def draw_reliability(task: str, bins: Any, error: float, file: Path) -> None:
    """Share that is right by confidence, as wide as the bins, and how many answers are in each.

    Args:
        bins: as ``models.rerank.confidence.reliability`` gives them.
    """
    figure, axes = _figure(4.2, 4.0)
    width, answers = 1 / len(bins), np.maximum(bins[:, 0], 1)
    middle = (np.arange(len(bins)) + 0.5) * width
    axes.bar(middle, bins[:, 2] / answers, 0.95 * width, color=COLOURS["fused"])
    for x, share, count in zip(middle, bins[:, 2] / answers, bins[:, 0], strict=True):
        if count:
            axes.text(x, share + 0.01, f"{count:.0f}", ha="center", fontsize=7)
    axes.plot([0, 1], [0, 1], "--", color="black", linewidth=1)
    axes.set_xlabel("confidence (softmax)")
    axes.set_ylabel("share that is right")
    axes.set_ylim(0, 1.08)
    axes.set_title(f"{task}: fused, calibration error {error:.3f}")
    figure.savefig(file)


COLOURS = {
    "plain": "#7f7f7f",
    "null": "#c7c7c7",
    "shuffled-alike": "#ff9896",
    "shuffled": "#d62728",
    "random": "#8c564b",
    "types": "#9467bd",
    "descriptions": "#c5b0d5",
    "fused": "#1f77b4",
    "unbanned": "#aec7e8",
    "text": "#2ca02c",
    "majority": "#dbdb8d",
    "tf-idf": "#bcbd22",
    "hypothesis only": "#17becf",
    "tf-idf per hypothesis": "#0b6b75",
    "no answer": "#bcbd22",
    "nearest sentence": "#dbdb8d",
    "nearest choice": "#bcbd22",
    "first words": "#bcbd22",
    "nearest text": "#dbdb8d",
    "agreed text": "#9edae5",
    "given words": "#17becf",
}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no display, nothing global

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    return figure, figure.add_subplot()
