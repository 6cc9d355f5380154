"""Figures of each kind of task, as by hand."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models.examples import Example
from models.objectives import KINDS, objective_for
from models.objectives.answers import answer_f1
from models.proof import score


def scored(kind: str, predictions: list[Any], examples: list[Example], **state: Any) -> Any:
    objective = dataclasses.replace(objective_for(kind, examples), **state)
    found = objective.score(predictions, examples)
    assert float(score(found.counts[None])[0]) == pytest.approx(found.metrics[objective.main_metric], abs=1e-6)
    return found


def test_labels_are_scored_as_by_hand() -> None:
    examples = [Example(id=str(i), text="", label=label) for i, label in enumerate("aabb")]
    found = scored("sequence_classification", list("abbb"), examples)
    assert found.metrics["accuracy"] == 0.75
    assert found.metrics["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert found.confusion.tolist() == [[1, 1], [0, 2]]
    examples = [Example(id="1", text="", labels=("a", "b")), Example(id="2", text="", labels=())]
    found = scored("multi_label_classification", [["a"], ["b"]], examples)
    assert found.counts.tolist() == [[2, 3], [0, 1]]
    assert found.metrics == pytest.approx({"micro_f1": 0.5, "macro_f1": 0.5, "exact_set": 0.0})


def test_the_threshold_of_labels_is_the_best_one_on_the_validation_texts() -> None:
    examples = [Example(id="1", text="", labels=("a",)), Example(id="2", text="", labels=("a", "b"))]
    objective = objective_for("multi_label_classification", examples)
    logits = [np.array([p, q]) for p, q in ((-1.0, -2.0), (3.0, -1.0))]  # sigmoid(-1) = 0.27, sigmoid(-2) = 0.12
    chosen = objective.calibrated(logits, [], examples)
    assert 0.12 < chosen.state()["threshold"] < 0.27
    assert chosen.answers(logits, [], examples) == [["a"], ["a", "b"]]


def test_a_number_is_scored_against_the_mean_of_training() -> None:
    examples = [Example(id=str(i), text="", value=value) for i, value in enumerate((1.0, 2.0, 6.0))]
    found = scored("regression", [2.0, 2.0, 4.0], examples)
    assert found.metrics["r2"] == pytest.approx(1 - 5 / 14)  # mean 3: distances 4 + 1 + 9
    assert found.metrics["mae"] == 1.0
    assert found.metrics["pearson"] == pytest.approx(np.corrcoef([1, 2, 6], [2, 2, 4])[0, 1])
    assert found.metrics["spearman"] == pytest.approx(3**0.5 / 2)
    assert scored("regression", [3.0, 3.0, 3.0], examples).metrics == {
        "r2": 0.0,
        "pearson": 0.0,
        "spearman": 0.0,
        "mae": 2.0,
    }


def test_an_answer_is_scored_as_the_squad_script_does_it() -> None:
    assert answer_f1("The Acme Bank!", ((0, "acme bank"), (3, "Bank"))) == 1.0
    assert answer_f1("Acme", ((0, "Acme Bank of Oslo"),)) == pytest.approx(0.4)
    assert (answer_f1("", ()), answer_f1("Acme", ()), answer_f1("", ((0, "Acme"),))) == (1.0, 0.0, 0.0)
    examples = [
        Example(id="1", text="", second="?", answers=((0, "Acme Bank"),)),
        Example(id="2", text="", second="?"),
    ]
    assert scored("question_answering", ["Bank", ""], examples).metrics == pytest.approx(
        {"answer_f1": (2 / 3 + 1) / 2, "exact_match": 0.5}
    )


def test_what_is_written_is_scored_by_words_and_signs() -> None:
    examples = [Example(id="1", text="", target="the bank rose"), Example(id="2", text="", target="it fell today")]
    found = scored("seq2seq_generation", ["the bank rose", "today it"], examples)
    assert found.metrics["rouge_l"] == pytest.approx((1 + 0.4) / 2)
    assert found.metrics["rouge_1"] == pytest.approx((1 + 0.8) / 2)
    assert found.metrics["rouge_2"] == pytest.approx(0.5)
    assert scored("seq2seq_generation", ["the bank rose", "it fell today"], examples).metrics["chrf"] == 1.0


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification", "multi_label_classification"])
def test_rare_labels_weigh_more_where_they_are_balanced(kind: str) -> None:
    gold = {
        "sequence_classification": [0, 0, 0, 1],
        "token_classification": [[-100, 0, 0], [0, 1, -100]],
        "multi_label_classification": [[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]],
    }[kind]
    objective = KINDS[kind](("a", "b"))
    loss = objective.loss([{"labels": labels} for labels in gold], balanced=True)
    assert loss is not None
    assert objective.loss([], balanced=False) is None
    targets = torch.tensor(gold)
    logits = torch.randn(*targets.shape, 2) if kind != "multi_label_classification" else torch.randn(4, 2)
    if kind == "multi_label_classification":  # of a: three have it and one has not; of b the other way round
        weight = torch.where(targets > 0, torch.tensor([1 / 3, 3.0]), 1.0)
        each = -(targets * logits.sigmoid().log() + (1 - targets) * (-logits).sigmoid().log())
        expected = (weight * each).mean()
    else:  # 4 labels of 2 kinds: 4 / (2 * 3) and 4 / (2 * 1)
        asked = targets.flatten() >= 0
        rows, given = logits.flatten(0, -2)[asked], targets.flatten()[asked]
        weight = torch.tensor([2 / 3, 2.0])[given]
        expected = -(weight * rows.log_softmax(-1).gather(1, given[:, None])[:, 0]).sum() / weight.sum()
    assert float(loss(SimpleNamespace(logits=logits), targets)) == pytest.approx(float(expected), rel=1e-5)
