"""What a run has to say: metrics.json, a table on the terminal, plots and a model card (``models.card``)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.arms import BASELINES
from models.card import checks_of, model_card, table_of
from models.objectives import METRICS
from models.plots import draw_confusion, draw_curve, draw_losses, draw_reliability, draw_scores
from models.proof import Check, Counts, Verdict, judge, labels_needed, mean_and_deviation, score
from models.rerank.confidence import expected_error, reliability
from models.run import Run, aside, write_json, write_text

Results = Sequence[Mapping[str, Any]]
RELIABILITY_BINS = 10


def write_report(run: Run, results: Results) -> None:
    """Write ``metrics.json``, ``plots/`` and ``README.md`` into the run folder and print the table.

    Args:
        results: what the trainings of ``models.stages.finetune`` left, baselines included.
    """
    by_task: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        by_task[result["task"]][result["arm"]].append(result)
    tasks = {task: summarise(task, arms) for task, arms in by_task.items()}
    curves = curves_of(tasks)
    content = {"definitions": METRICS, "tasks": tasks, "curves": curves, "pretrain": run.result("pretrain")}
    write_json(run.path / "metrics.json", content)
    with aside(run.path / "plots") as folder:
        draw_scores(tasks, folder / "scores.png")
        for name, curve in curves.items():
            draw_curve(name, curve, folder / f"{name}-labels.png")
        for task, arms in by_task.items():
            draw_losses(task, arms, folder / f"{task}-loss.png")
            if arms.get("fused") and arms["fused"][0]["confusion"]:
                draw_confusion(task, arms["fused"], folder / f"{task}-confusion.png")
            if (bins := reliability_of(arms.get("fused", ()))) is not None:
                draw_reliability(task, bins, expected_error(bins), folder / f"{task}-reliability.png")
    write_text(run.path / "README.md", model_card(run, tasks, curves))
    for task, summary in tasks.items():
        Console().print(table_of(task, summary))
        Console().print(summary["conclusion"], highlight=False)
        for line in checks_of(summary):
            Console().print(line, highlight=False)
    for name, curve in curves.items():
        Console().print(f"{name}: {curve['conclusion']}", highlight=False)


def summarise(task: str, arms: Mapping[str, Results]) -> dict[str, Any]:
    """One task's section of ``metrics.json``: each arm with its seeds, mean and deviation, then slices and verdict."""
    trained = {arm: results for arm, results in arms.items() if arm not in BASELINES}
    counts = {arm: stack(results) for arm, results in trained.items()}
    one = trained[min(trained, key=lambda arm: arm == "text")]  # its texts name the entities of facts, too
    linked = np.array(one[0]["linked"], dtype=bool)
    # whether an entity was seen depends on what a seed labelled, not on the arm
    seen = np.array([result.get("seen", linked) for result in _by_seed(one)], dtype=bool)
    corrupted = _mean_of([result.get("corrupted") or {} for result in trained.get("fused", ())])
    verdict = judge(task, counts, linked=linked, seen=seen, corrupted=corrupted)
    rows, main = {arm: _arm(results) for arm, results in arms.items()}, one[0]["main_metric"]
    every = np.ones((len(one), 1), dtype=bool)
    slices = {
        "linked": linked & every,
        "unlinked": ~linked & every,
        "linked, seen": linked & seen,
        "linked, unseen": linked & ~seen,
    }
    return {
        "main_metric": main,
        "shots": one[0].get("shots"),
        "test_examples": len(linked),
        "test_examples_linked": int(linked.sum()),
        "arms": rows,
        "slices": {
            name: {arm: _spread(score(arm_counts * kept[..., None])) for arm, arm_counts in counts.items()}
            for name, kept in slices.items()
            if kept.any(axis=1).all()
        },
        "slice_examples": {name: float(kept.sum(axis=1).mean()) for name, kept in slices.items()},
        "corrupted": corrupted,
        "calibration_error": {arm: _calibration(results) for arm, results in trained.items()},
        "gain": _gain(verdict),
        "over_trivial": _over_trivial({arm: row["mean"][main] for arm, row in rows.items()}),
        "conclusion": verdict.sentence if verdict else "Only one arm was run: there is nothing to compare it with.",
    }


def stack(results: Results) -> Counts:
    """``[seeds, examples, 2]`` in the order of the seeds."""
    return np.array([result["counts"] for result in _by_seed(results)], dtype=float)


def reliability_of(results: Results) -> NDArray[np.float64] | None:
    """Answers of all seeds by their confidence; None where a text has more answers than one, or none was kept."""
    rows = [
        (confidence, bool(count[0]))
        for result in results
        for confidence, count in zip(result.get("confidences") or (), result["counts"], strict=False)
    ]
    return reliability(rows, RELIABILITY_BINS) if rows else None


def _by_seed(results: Results) -> Results:
    return sorted(results, key=lambda result: result["seed"])


def _mean_of(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {share: float(np.mean([one[share] for one in scores])) for share in (scores[0] if scores else {})}


def curves_of(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scores by labels a class of the tasks that have several numbers of them, and what the graph saves of these."""
    points: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for task, summary in tasks.items():
        if summary["shots"] is not None:
            points[task.removesuffix(f"-{summary['shots']}")][summary["shots"]] = summary
    curves = {}
    for name, by_shots in points.items():
        if len(by_shots) < 2:
            continue
        arms = [arm for arm in next(iter(by_shots.values()))["arms"] if arm not in BASELINES]
        scores = {
            arm: {shots: part["arms"][arm]["mean"][part["main_metric"]] for shots, part in sorted(by_shots.items())}
            for arm in arms
        }
        curves[name] = {"scores": scores, "conclusion": _saved(scores)}
    return curves


def _saved(scores: Mapping[str, Mapping[int, float]]) -> str:
    """How many labels a class the fused model needs for what the plain one does with more."""
    if not {"plain", "fused"} <= set(scores):
        return "Without plain and fused no label is saved."
    said = []
    for shots, reached in list(scores["plain"].items())[1:]:
        needed = labels_needed(scores["fused"], reached)
        said.append(
            f"what plain reaches with {shots} labels a class ({100 * reached:.1f}), fused "
            + ("does not reach" if needed is None else f"reaches with {needed:.0f}")
        )
    return "; ".join(said) + "."


def _over_trivial(means: Mapping[str, float]) -> list[dict[str, Any]]:
    """The fused model, or the first there is, against the best trivial system; nothing where none fits the task."""
    trivial = {arm: mean for arm, mean in means.items() if arm in BASELINES}
    if not trivial:
        return []
    best = max(trivial, key=trivial.__getitem__)
    arm = "fused" if "fused" in means else next(arm for arm in means if arm not in BASELINES)
    points = 100 * (means[arm] - trivial[best])
    name = f"{arm} against {best}, the best trivial system"
    return [asdict(Check(name=name, points=points, bound="more than 0", kept=points > 0))]


def _arm(results: Results) -> dict[str, Any]:
    results = _by_seed(results)
    metrics = list(results[0]["metrics"])
    spreads = {name: _spread([result["metrics"][name] for result in results]) for name in metrics}
    return {
        "seeds": {str(result["seed"]): result["metrics"] for result in results},
        "mean": {name: spread["mean"] for name, spread in spreads.items()},
        "deviation": {name: spread["deviation"] for name, spread in spreads.items()},
        "train_examples": results[0].get("train_examples"),
        "seconds": [result.get("seconds") for result in results],
    }


def _calibration(results: Results) -> float | None:
    bins = reliability_of(results)
    return None if bins is None else expected_error(bins)


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
    checks = [asdict(check) for check in verdict.checks]
    return {"helps": verdict.helps, "slice": verdict.slice, "over": over, "checks": checks}
