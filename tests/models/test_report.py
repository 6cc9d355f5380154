"""The report says what was measured, and no more than that."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.card import checks_of, model_card, table_of
from models.objectives import METRICS
from models.plots import draw_confusion, draw_scores
from models.report import summarise, write_report
from models.run import Run
from tests.models.test_run import recipe

PNG = b"\x89PNG\r\n\x1a\n"
EXAMPLES = 60


def result(arm: str, seed: int, right: float, *, task: str = "one", seed_of_answers: int = 0) -> dict[str, Any]:
    """What a training leaves, with about a share ``right`` of its answers right."""
    draws = np.random.default_rng([seed_of_answers, seed]).random(EXAMPLES)
    counts = np.stack([draws < right, np.ones(EXAMPLES)], axis=1).astype(float)
    accuracy = float(counts[:, 0].mean())
    return {
        "task": task,
        "arm": arm,
        "seed": seed,
        "main_metric": "accuracy",
        "metrics": {"accuracy": accuracy, "macro_f1": accuracy / 2},
        "validation": {},
        "counts": counts.tolist(),
        "linked": [number % 3 > 0 for number in range(EXAMPLES)],
        "seen": [number % 3 == 1 for number in range(EXAMPLES)],
        "shots": None,
        "corrupted": {},
        "predictions": [],
        "confidences": [0.7 if draw < right else 0.65 for draw in draws],
        "labels": ["bank", "insurer"],
        "confusion": [[20, 10], [5, 25]],
        "losses": [[1, 0.9], [2, 0.5]],
        "train_examples": 100,
        "seconds": 1.5,
    }


def results(*, fused: float, plain: float = 0.5, shuffled: float = 0.5, seeds: int = 5) -> list[dict[str, Any]]:
    rights = {"plain": plain, "fused": fused, "shuffled": shuffled}
    # written in no order: runs of seeds that were added later come last
    return [result(arm, seed, right) for seed in reversed(range(seeds)) for arm, right in rights.items()]


def tf_idf(task: str = "one") -> dict[str, Any]:
    return {
        "task": task,
        "arm": "tf-idf",
        "seed": 0,
        "metrics": {"accuracy": 0.4, "macro_f1": 0.3},
        "train_examples": 100,
    }


def spans(arm: str, seed: int, *, task: str = "two") -> dict[str, Any]:
    """A token task: no confusion, another metric."""
    made = result(arm, seed, 0.8, task=task)
    f1 = made["metrics"]["accuracy"]
    return {
        **made,
        "main_metric": "f1",
        "metrics": {"f1": f1, "precision": f1, "recall": f1},
        **dict.fromkeys(("confusion", "confidences")),
    }


def finished_run(folder: Path) -> Run:
    run = Run.open(folder / "run", recipe())
    run.update_manifest(
        snapshot={
            "path": "snapshots/v1",
            "hash": "0123456789abcdef0123",
            "counts": {"entities": 1234, "triples": 56789},
            "sources": [{"id": "ex", "release": "7"}, {"id": "why"}],
        },
        data={"/data/sentences.jsonl": "f" * 64, "/data/graph.ttl": "e" * 64},
        licences={"/data/sentences.jsonl": "CC BY-NC-SA 3.0"},
        coverage={"one": {"texts": 60, "texts_linked": 0.667, "mentions_seen_in_training": 0.25}},
    )
    run.finish("gnn", {"bans": [{"relation": "P17", "why": "states a label", "edges": 1200}]})
    run.finish("pretrain", {"plain": {"loss_before": 3.0, "loss_after": 2.0}})
    return run


def read(run: Run) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((run.path / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_a_report_is_figures_plots_and_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_run(tmp_path)
    two = [spans(arm, seed) for arm in ("plain", "fused", "shuffled") for seed in range(5)]
    write_report(run, [*results(fused=0.9), *two, tf_idf()])
    written = read(run)
    assert written["definitions"] == METRICS
    assert written["pretrain"] == {"plain": {"loss_before": 3.0, "loss_after": 2.0}}
    assert list(written["tasks"]) == ["one", "two"]
    one = written["tasks"]["one"]
    assert one.keys() == {
        "main_metric",
        "shots",
        "test_examples",
        "test_examples_linked",
        "arms",
        "slices",
        "slice_examples",
        "corrupted",
        "calibration_error",
        "gain",
        "over_trivial",
        "conclusion",
    }
    assert (one["main_metric"], one["test_examples"], one["test_examples_linked"]) == ("accuracy", 60, 40)
    assert set(one["arms"]) == {"plain", "fused", "shuffled", "tf-idf"}
    assert set(written["tasks"]["two"]["arms"]) == {"plain", "fused", "shuffled"}
    assert one["arms"]["fused"].keys() == {"seeds", "mean", "deviation", "train_examples", "seconds"}
    plots = {file.name: file.read_bytes() for file in (run.path / "plots").iterdir()}
    assert set(plots) == {"scores.png", "one-loss.png", "one-confusion.png", "one-reliability.png", "two-loss.png"}
    assert all(content.startswith(PNG) and len(content) > 5000 for content in plots.values())
    printed = capsys.readouterr().out
    assert "one (60 test examples, 40 linked)" in printed
    assert "accuracy, unlinked" in printed


def test_means_deviations_and_slices_are_those_of_the_seeds() -> None:
    given = results(fused=0.8, seeds=4)
    arms = {arm: [one for one in given if one["arm"] == arm] for arm in ("plain", "fused", "shuffled")}
    summary = summarise("one", arms)
    ordered = sorted(arms["fused"], key=lambda one: one["seed"])
    accuracies = [one["metrics"]["accuracy"] for one in ordered]
    fused = summary["arms"]["fused"]
    assert fused["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert fused["deviation"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert {seed: metrics["accuracy"] for seed, metrics in fused["seeds"].items()} == {
        str(one["seed"]): one["metrics"]["accuracy"] for one in ordered
    }
    assert list(fused["seeds"]) == ["0", "1", "2", "3"]
    linked = np.array(given[0]["linked"])
    by_hand = [np.array(one["counts"])[linked, 0].mean() for one in ordered]
    assert summary["slices"]["linked"]["fused"]["mean"] == pytest.approx(np.mean(by_hand))
    others = [np.array(one["counts"])[~linked, 0].mean() for one in ordered]
    assert summary["slices"]["unlinked"]["fused"]["mean"] == pytest.approx(np.mean(others))


def test_the_calibration_error_is_the_distance_between_confidence_and_what_is_right(tmp_path: Path) -> None:
    given = results(fused=0.9)
    for one in given:  # of two in three that are sure all are right, of the others half
        one["confidences"] = [0.95 if number % 3 else 0.75 for number in range(EXAMPLES)]
        one["counts"] = [[float(number % 3 > 0 or number % 2), 1.0] for number in range(EXAMPLES)]
    arms = {arm: [one for one in given if one["arm"] == arm] for arm in ("plain", "fused", "shuffled")}
    assert summarise("one", arms)["calibration_error"]["fused"] == pytest.approx(2 / 3 * 0.05 + 1 / 3 * 0.25)
    older = [{key: value for key, value in one.items() if key != "confidences"} for one in arms["fused"]]
    assert summarise("one", {"fused": older})["calibration_error"] == {"fused": None}


def test_a_planted_gain_is_a_yes(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    write_report(run, results(fused=0.9))
    task = read(run)["tasks"]["one"]
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert task["gain"]["helps"] is True
    assert set(task["gain"]["over"]) == {"plain", "shuffled"}
    assert all(0 < gain["low"] < gain["points"] < gain["high"] for gain in task["gain"]["over"].values())
    assert "**The graph helps one: +" in card
    assert "a first look" not in card


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        ({"fused": 0.5}, "does not help"),
        ({"fused": 0.9, "shuffled": 0.9}, "does not help"),  # what shuffled knowledge gives, too, is no gain
        ({"fused": 0.9, "plain": 0.9}, "does not help"),
        ({"fused": 0.2}, "hurts"),
    ],
)
def test_no_gain_is_a_no(rights: dict[str, float], said: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    write_report(run, results(**rights))
    task = read(run)["tasks"]["one"]
    assert task["gain"]["helps"] is False
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert f"**The graph {said} one: " in card
    assert "The graph helps" not in card


def test_the_card_says_what_it_rests_on(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    write_report(run, [*results(fused=0.9, seeds=2), tf_idf()])
    card = (run.path / "README.md").read_text(encoding="utf-8")
    for said in (
        "snapshot `0123456789abcdef`, 1,234 entities, 56,789 triples, from ex 7, why.",
        "because it would give labels away: P17 (states a label; 1,200 edges).",
        "| arm | accuracy | macro_f1 | accuracy, linked | accuracy, unlinked |",
        "| tf-idf | 40.0 | 30.0 | – | – |",
        "Coverage: 67% of 60 test texts have a linked entity; 25% of the linked mentions were seen in training.",
        "![scores](plots/scores.png)",
        "None recorded.",
        f"- `sentences.jsonl` (CC BY-NC-SA 3.0) sha256 `{'f' * 64}`",
        f"- `graph.ttl` (unknown) sha256 `{'e' * 64}`",
        "**Not for commercial use: sentences.jsonl.**",
        "**Ask before use: no licence is known of graph.ttl.**",
        "![reliability](plots/one-reliability.png)",
        "a first look, a proof takes 5",
        f"torch {run.manifest['packages']['torch']}",
    ):
        assert said in card
    assert (run.path / "plots" / "scores.png").is_file()


def test_a_model_that_a_trivial_system_beats_is_told_so() -> None:
    def reached(arm: str, accuracy: float) -> list[dict[str, Any]]:
        return [{**result(arm, 0, accuracy), "metrics": {"accuracy": accuracy}}]

    above = summarise("one", {"plain": reached("plain", 0.3), "fused": reached("fused", 0.9), "tf-idf": [tf_idf()]})
    assert checks_of(above)[0] == "kept: fused against tf-idf, the best trivial system +50.0 points (more than 0)"
    majority = {**tf_idf(), "arm": "majority", "metrics": {"accuracy": 0.2, "macro_f1": 0.1}}
    below = summarise("one", {"plain": reached("plain", 0.3), "majority": [majority], "tf-idf": [tf_idf()]})
    assert checks_of(below) == ["NOT kept: plain against tf-idf, the best trivial system -10.0 points (more than 0)"]
    assert checks_of(summarise("one", {"plain": reached("plain", 0.3)})) == []


def test_what_was_seen_is_what_texts_say_whatever_the_order_of_the_arms() -> None:
    """Facts that are written behind a text name entities that it does not."""
    arms = {arm: [one for one in results(fused=0.9) if one["arm"] == arm] for arm in ("plain", "fused", "shuffled")}
    text = [{**one, "arm": "text", "linked": [True] * EXAMPLES, "seen": [True] * EXAMPLES} for one in arms["plain"]]
    last, first = (summarise("one", given) for given in ({**arms, "text": text}, {"text": text, **arms}))
    assert first["slice_examples"] == last["slice_examples"]
    assert first["gain"] == last["gain"]
    assert first["slice_examples"]["linked, unseen"] == 20


def test_one_arm_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    write_report(run, [result("fused", seed, 0.9) for seed in range(3)])
    task = read(run)["tasks"]["one"]
    assert task["gain"] == {}
    assert "nothing to compare" in task["conclusion"]
    assert "The graph" not in task["conclusion"]


def test_two_arms_prove_nothing(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    write_report(
        run, [result(arm, seed, right) for arm, right in (("plain", 0.5), ("fused", 0.9)) for seed in range(5)]
    )
    assert "Without both plain and shuffled this proves nothing." in read(run)["tasks"]["one"]["conclusion"]


def test_one_seed_has_no_deviation_and_a_slice_of_nothing_is_left_out(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    given = [{**one, "linked": [True] * EXAMPLES} for one in results(fused=0.9, seeds=1)]
    write_report(run, [*given, tf_idf()])
    task = read(run)["tasks"]["one"]
    assert task["arms"]["fused"]["deviation"] == {"accuracy": None, "macro_f1": None}
    assert "unlinked" not in task["slices"]
    assert "linked" in task["slices"]
    cells = [column._cells for column in table_of("one", task).columns]
    assert not any("±" in str(cell) or "nan" in str(cell) for column in cells for cell in column)
    assert "(1 seed; a first look" in task["conclusion"]
    assert (run.path / "plots" / "scores.png").read_bytes().startswith(PNG)


def test_a_slice_in_which_nothing_counts_has_no_score(tmp_path: Path) -> None:
    """No gold and no predicted span in any text without an entity: neither right nor wrong."""
    run = finished_run(tmp_path)
    given = [spans(arm, seed) for arm in ("plain", "fused", "shuffled") for seed in range(2)]
    for one in given:
        one["counts"] = [[c, n * linked] for (c, n), linked in zip(one["counts"], one["linked"], strict=True)]
    write_report(run, given)
    task = read(run)["tasks"]["two"]
    assert task["slices"]["unlinked"]["fused"] == {"mean": None, "deviation": None}
    assert "–" in (run.path / "README.md").read_text(encoding="utf-8")


def test_an_arm_that_only_the_second_task_has_is_in_the_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    labels: list[str] = []
    legend = Axes.legend

    def watched(axes: Axes, *args: Any, **kwargs: Any) -> Any:
        labels.extend(axes.get_legend_handles_labels()[1])
        return legend(axes, *args, **kwargs)

    monkeypatch.setattr(Axes, "legend", watched)
    first = {arm: [spans(arm, seed) for seed in range(2)] for arm in ("plain", "fused")}
    second = {arm: [result(arm, seed, 0.5) for seed in range(2)] for arm in ("plain", "fused")}
    tasks = {"two": summarise("two", first), "one": summarise("one", {**second, "tf-idf": [tf_idf()]})}
    draw_scores(tasks, tmp_path / "scores.png")
    assert labels == ["plain", "fused", "tf-idf"]


def test_a_confusion_of_many_labels_is_no_larger_than_one_that_can_be_read(tmp_path: Path) -> None:
    def drawn(count: int) -> tuple[int, int]:
        labels = [f"label {number}" for number in range(count)]
        draw_confusion("one", [{"confusion": np.eye(count).tolist(), "labels": labels}], tmp_path / "a.png")
        width, height = struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24])
        return width, height

    assert drawn(3) < drawn(31) == drawn(100)


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    write_report(run, results(fused=0.9))
    (run.path / "plots" / "old.png").touch()
    write_report(run, [result("fused", 0, 0.9)])
    assert not (run.path / "plots" / "old.png").exists()
    assert list(read(run)["tasks"]["one"]["arms"]) == ["fused"]
    assert model_card(run, read(run)["tasks"]) == (run.path / "README.md").read_text(encoding="utf-8")
    assert not math.isnan(read(run)["tasks"]["one"]["arms"]["fused"]["mean"]["accuracy"])
