"""Trainings that stop early, train low-rank updates, cross-validate, and look for their settings."""

import json
import multiprocessing
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BertModel

from kg.errors import ConfigError
from kg.settings import Settings
from models.base import attention_written_out, load_base
from models.batch import KnowledgeCollator, KnowledgeEncoder
from models.classifiers import SequenceClassifier
from models.entity_table import FIRST, EntityTable
from models.examples import Example
from models.kgbert import KGBertForSequenceClassification
from models.lora import linear_layers, low_rank
from models.objectives import KINDS
from models.recipe import Graph, Recipe, Task, load_settings
from models.run import Run
from models.stages.arms import build_model, is_fresh
from models.stages.finetune import train_task
from models.stages.found import FOUND, searched
from models.stages.search import search
from models.stages.taskdata import divided, divisions_of, draw, folds_of
from models.stopping import KeepBest
from models.table_reader import Columns
from models.trainer import fit
from models.training import Training
from tests.builders import COMPANIES, tiny_snapshot
from tests.models.families import tiny_language_model
from tests.models.tiny import FUSION, TABLE, answer, open_gates, tiny_base, tiny_encoder

TRAINING = Training(
    epochs=3, batch_size=8, learning_rate=3e-3, head_learning_rate=3e-3, max_length=24, freeze_embeddings=False
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("options"), max_length=24)


@pytest.fixture(scope="module")
def features(encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
    texts = [f"{name} {'rose' if i % 2 else 'fell'} in week {i}." for i in range(4) for name in COMPANIES]
    return [{**feature, "labels": i // 4 % 2} for i, feature in enumerate(encoder.encode_texts(texts))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_base(tmp_path_factory.mktemp("base"), BertModel)


@pytest.fixture
def run(tmp_path: Path, base: str) -> Run:
    """A run whose encoder is trained, as far as its files go, with a task of forty sentences in a CSV."""
    rows = [
        f"{company} {'rose' if week % 2 else 'fell'} in week {week}.,{'up' if week % 2 else 'down'}"
        for week in range(10)
        for company in COMPANIES
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["sentence,trend", *rows]), encoding="utf-8")
    recipe = Recipe(
        name="mine",
        summary="Forty sentences.",
        base=base,
        graph=Graph(source="rdf", paths=("x",), source_id="x"),
        fusion=FUSION,
        tasks=(
            Task(
                name="trend",
                kind="sequence_classification",
                reader="table",
                path=str(tmp_path / "mine.csv"),
                columns={"text": "sentence", "label": "trend"},  # type: ignore[arg-type]
                training=TRAINING,
            ),
        ),
    )
    made = Run.open(tmp_path / "run", recipe)
    snapshot = tiny_snapshot(made.path / "snapshot")
    vectors = torch.randn(snapshot.num_entities + FIRST, 8, generator=torch.Generator().manual_seed(2))
    (made.path / "table").mkdir()
    EntityTable(tuple(snapshot.ids), vectors, snapshot.hash, "random").save(made.path / "table")
    made.update_manifest(snapshot={"path": "snapshot", "hash": snapshot.hash})
    return made


def trained(run: Run, task: Task, arm: Any = "fused", **options: Any) -> dict[str, Any]:
    folder = run.path / "jobs" / f"{task.name}-{time.monotonic_ns()}"
    shares: list[float] = []
    result = train_task(
        run.path,
        folder,
        shares.append,
        recipe=run.recipe,
        snapshot="snapshot",
        task=task,
        path=Path(task.path),
        arm=arm,
        seed=0,
        **options,
    )
    assert shares == sorted(shares)
    return {**result, "folder": folder}


def model_of(base: str) -> nn.Module:
    torch.manual_seed(0)
    model = KGBertForSequenceClassification.from_base(base, TABLE, fusion=FUSION, num_labels=2)
    open_gates(model)
    return model


def train(
    model: nn.Module,
    features: list[dict[str, Any]],
    encoder: KnowledgeEncoder,
    folder: Path,
    *callbacks: Any,
    **of: Any,
) -> list[tuple[int, float]]:
    collate = KnowledgeCollator(tokenizer=encoder.tokenizer)
    training = replace(TRAINING, **of)
    return fit(
        model, features, collate, training, seed=0, folder=folder, is_fresh=is_fresh, callbacks=list(callbacks)
    ).losses


NO_OTHER_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0},
    "roberta": {"hidden_dropout_prob": 0.0},
    "albert": {"hidden_dropout_prob": 0.0, "classifier_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.1},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0},
}


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "sequence_classification"),
        ("roberta", "token_classification"),
        ("albert", "sequence_classification"),
        ("gpt2", "causal_generation"),
        ("bert", "seq2seq_generation"),
    ],
)
def test_attention_is_trained_without_dropout_where_asked(family: str, kind: str, run: Run, tmp_path: Path) -> None:
    recipe = replace(run.recipe, base=tiny_language_model(family, tmp_path / family))
    objective = KINDS[kind]
    asked = {"input_ids": torch.arange(20, 44).reshape(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    if kind == "seq2seq_generation":
        asked["decoder_input_ids"] = asked["input_ids"]
    differ = {}
    for drops in (True, False):
        model = build_model(
            recipe,
            None,
            auto_class=objective.auto_class,
            kgbert_class=objective.kgbert_class,
            seed=0,
            warm_start=None,
            training=replace(TRAINING, attention_dropout=drops),
            **NO_OTHER_DROPOUT[family],
        ).train()
        with attention_written_out(model):
            first, again = (model(**asked).logits for _ in range(2))
        differ[drops] = not torch.equal(first, again)
    assert differ == {True: True, False: False}


class Scores:
    """A validation score that rises twice and then falls, and the weights at each measure."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.weights = model, []

    def __call__(self) -> float:
        self.weights.append(self.model.get_parameter("model.classifier.weight").detach().clone())
        return (0.1, 0.5, 0.5, 0.4, 0.9)[len(self.weights) - 1]


def test_a_training_that_gets_no_better_stops_and_has_its_best_weights(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    model = model_of(base)
    scores = Scores(model)
    stopping = KeepBest(scores, every=len(features) / 8, patience=2, folder=tmp_path)
    losses = train(model, features, encoder, tmp_path, stopping, epochs=5)
    assert len(scores.weights) == 4  # the second was the best; equal is no better
    assert losses[-1][0] <= 4 * len(features) / 8
    assert torch.equal(model.get_parameter("model.classifier.weight"), scores.weights[1])
    assert not torch.equal(scores.weights[1], scores.weights[3])


def test_a_training_that_was_cut_off_stops_where_an_uninterrupted_one_does(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def stops(model: nn.Module, folder: Path, *, until: int | None = None) -> tuple[list[int], torch.Tensor]:
        steps: list[int] = []

        def measure() -> float:
            steps.append(len(steps))
            if until == len(steps):
                raise Killed
            weight = model.get_parameter("model.classifier.weight")
            return -abs(float(weight.detach().abs().sum()) - float(target))

        stopping = KeepBest(measure, every=len(features) / 8, patience=1, folder=folder)
        train(model, features, encoder, folder, stopping, epochs=5, save_steps=3)
        return steps, model.get_parameter("model.classifier.weight").detach().clone()

    target = model_of(base).get_parameter("model.classifier.weight").detach().abs().sum()
    whole, weights = stops(model_of(base), tmp_path / "whole")
    with pytest.raises(Killed):
        stops(model_of(base), tmp_path / "cut", until=len(whole))
    _, again = stops(model_of(base), tmp_path / "cut")
    assert torch.equal(weights, again)


def test_low_rank_updates_are_merged_into_the_weights_that_were(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    model = model_of(base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = linear_layers(model, is_fresh)
    assert len(layers) == 4 * 6  # query, key, value and output, and two of the feed-forward part
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(features[:4])
    with low_rank(model, 2, layers, is_fresh=is_fresh):
        learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert any("lora_A" in name for name in learned)
        assert all("lora" in name or is_fresh(name) for name in learned)
        train(model, features, encoder, tmp_path, max_steps=6)
        model.eval()
        unmerged = answer(model, **batch)
    np.testing.assert_allclose(answer(model, **batch), unmerged, atol=2e-2)  # training's forward is in bfloat16
    after = model.state_dict()
    assert list(after) == list(before)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {f"{name}.weight" for name in layers} <= moved
    assert "model.classifier.weight" in moved
    assert not any("embeddings" in name or "LayerNorm" in name for name in moved if "knowledge" not in name)
    for name in layers:
        change = after[f"{name}.weight"] - before[f"{name}.weight"]
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2


def test_merging_gives_what_was_there_before_it(
    base: str, encoder: KnowledgeEncoder, features: list[dict[str, Any]]
) -> None:
    model = model_of(base).eval()
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(features[:4])
    plain = answer(model, **batch)
    with low_rank(model, 3, linear_layers(model, is_fresh), is_fresh=is_fresh):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=1.0)
        model.eval()
        unmerged = answer(model, **batch)
    torch.testing.assert_close(answer(model, **batch), unmerged, atol=1e-5, rtol=1e-5)
    assert (unmerged - plain).abs().max() > 1e-2


def test_folds_test_each_example_once_and_keep_the_shares_of_labels() -> None:
    examples = [Example(id=str(i), text="", label="a" if i % 4 else "b") for i in range(40)]
    divisions = folds_of(examples, 5, seed=1)
    assert sorted(index for one in divisions for index in one.test) == list(range(40))
    for one in divisions:
        assert sorted([*one.train, *one.validation, *one.test]) == list(range(40))
        assert Counter(examples[index].label for index in one.test) == {"a": 6, "b": 2}
        assert 3 <= len(one.validation) <= 4
    assert folds_of(examples, 5, seed=1) == divisions != folds_of(examples, 5, seed=2)


def test_all_that_is_asked_of_one_text_is_in_one_part_of_a_fold() -> None:
    examples = [Example(id=str(i), text=f"premise {i // 3}", second=f"{i}", label="ab"[i % 2]) for i in range(60)]
    for one in folds_of(examples, 4, seed=0):
        parts = [{examples[index].text for index in part} for part in (one.train, one.validation, one.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 20
        assert len(parts[2]) == 5


def test_fewer_training_examples_are_drawn_from_all_of_them(tmp_path: Path) -> None:
    rows = [{"text": f"{label} {i}", "label": label, "split": "train"} for label in "ab" for i in range(50)]
    rows += [{"text": f"b {part}", "label": "b", "split": part} for part in ("validation", "test")]
    (tmp_path / "sorted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "sorted.jsonl"
    task = Task(name="t", kind="sequence_classification", reader="table", path=str(path), max_train=20)
    examples, division = divided(task, path)
    assert len(division.train) == 20
    assert 4 < sum(examples[index].label == "a" for index in division.train) < 16
    assert divided(task, path) == (examples, division)


@pytest.mark.parametrize("drawn", [{"shots": (4,)}, {"folds": 2}], ids=["shots", "folds"])
def test_a_model_is_told_of_values_no_more_than_those_it_is_trained_with(drawn: dict[str, Any], run: Run) -> None:
    (task,) = run.recipe.tasks
    path = run.path.parent / "numbers.jsonl"
    numbers = [0.0, 1, 2, 1e6, 4, 5, 6, 7, 8, 9]
    rows = [{"text": f"{company} in week {i}.", "value": numbers[i]} for i in range(10) for company in COMPANIES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    training = replace(TRAINING, max_steps=1)
    task = replace(task, kind="regression", path=str(path), columns=Columns(), training=training, **drawn)
    result = trained(run, task)
    examples, division = divided(task, path)
    first = divisions_of(examples, division, task, seed=0)[0]
    values = [examples[index].value for index in first.train]
    objective = json.loads((result["folder"] / "model" / "config.json").read_text(encoding="utf-8"))["objective"]
    assert (objective["mean"], objective["deviation"]) == pytest.approx((np.mean(values), np.std(values)))
    if "shots" in drawn:  # all in one batch: what is learned has a deviation of 1, whatever is said at first
        assert max(values) < 1e6
        assert result["losses"][0][1] > 0.99


def test_shots_are_of_each_label_that_a_text_may_have_and_some_where_there_are_none() -> None:
    task = Task(name="t", kind="regression", reader="table", path="p", shots=(3,))
    numbers = [Example(id=str(i), text="", value=i) for i in range(20)]
    assert len(draw(numbers, range(20), task, seed=0)) == 3
    several = [Example(id=str(i), text="", labels=("a", "b") if i < 10 else ("c",)) for i in range(20)]
    drawn = draw(several, range(20), task, seed=0)
    assert Counter(label for index in drawn for label in several[index].labels) == {"a": 3, "b": 3, "c": 3}


def test_the_answers_of_all_folds_are_the_test(run: Run) -> None:
    (task,) = run.recipe.tasks
    result = trained(run, replace(task, folds=2, training=replace(TRAINING, epochs=1)))
    assert len(result["predictions"]) == len(result["counts"]) == len(result["linked"]) == 40
    rows = (run.path.parent / "mine.csv").read_text(encoding="utf-8").splitlines()[1:]
    right = np.array(result["counts"])[:, 0].mean()
    assert right == result["metrics"]["accuracy"]
    assert np.array(result["confusion"]).sum() == len(rows)
    assert {path.name for path in result["folder"].iterdir()} == {"model", "result.json"}


@pytest.mark.parametrize("kind", ["multi_label_classification", "token_classification"])
def test_a_test_in_which_there_is_nothing_to_find_scores_nothing(kind: str, run: Run) -> None:
    file = run.path.parent / "nothing.jsonl"
    parts = ["train"] * 8 + ["validation", "test", "test"]
    rows = [
        {"split": part, "text": "It rained.", "labels": [], "words": ["It", "rained"], "tags": ["O", "O"]}
        for part in parts
    ]
    rows[0] |= {"labels": ["up"], "tags": ["B-UP", "O"]}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = trained(run, Task(name="nothing", kind=kind, reader="table", path=str(file), training=TRAINING))
    assert set(result["metrics"].values()) <= {0.0, 1.0}
    assert result["metrics"][result["main_metric"]] == 0.0


def test_all_options_together_leave_a_model_like_any_other(run: Run, encoder: KnowledgeEncoder) -> None:
    (task,) = run.recipe.tasks
    options = {"patience": 1, "lora_rank": 2, "class_weights": "balanced", "frozen_layers": 1, "epochs": 2}
    result = trained(run, replace(task, training=replace(TRAINING, **options)))
    model = KGBertForSequenceClassification.from_pretrained(result["folder"] / "model")
    assert not any("lora" in name for name in load_file(result["folder"] / "model" / "model.safetensors"))
    plain = load_base(run.recipe.base, SequenceClassifier, num_labels=2)
    frozen = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(plain.get_parameter(frozen), model.model.get_parameter(frozen))
    learned = "bert.encoder.layer.3.attention.self.query.weight"
    assert not torch.equal(plain.get_parameter(learned), model.model.get_parameter(learned))
    assert tuple(model.config.objective["labels"]) == ("down", "up")


def test_only_validation_is_looked_at_where_settings_are_chosen(run: Run) -> None:
    (task,) = run.recipe.tasks
    result = trained(run, replace(task, training=replace(TRAINING, epochs=1)), validate_only=True)
    assert set(result["validation"]) == {"accuracy", "macro_f1"}
    assert not {"metrics", "predictions", "counts"} & set(result)
    assert not (result["folder"] / "model").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"folds": 1}, "folds is 1, expected 2 or more"),
        ({"folds": 3, "shots": (2,)}, "no shots beside it"),
        ({"kind": "regression", "training": replace(TRAINING, class_weights="balanced")}, "weigh labels"),
        ({"reader": "phrasebank"}, "columns are of the reader table"),
        ({"training": replace(TRAINING, lora_rank=-1)}, "lora_rank and patience are 0 or more"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changed: dict[str, Any], said: str, run: Run) -> None:
    (task,) = run.recipe.tasks
    with pytest.raises(ValueError, match=said):
        replace(run.recipe, tasks=(replace(task, **changed),))


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_and_its_best_settings_are_used(run: Run, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    stale = run.path / "jobs" / "trend-fused-0"
    stale.mkdir(parents=True)
    process = multiprocessing.get_context("spawn").Process(target=search, args=(run, settings, 3))
    process.start()
    end = time.monotonic() + 200
    while not (run.path / "search" / "trend" / "1").exists() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -9
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(run.path / "search" / "trend.log"))
    )

    def trials() -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="trend", storage=storage).trials

    before = [trial.params for trial in trials()]
    assert before[0] == {"learning_rate": 3e-3, "epochs": 3, "batch_size": 8, "entity_dropout": 0.15}
    assert len(before) < 4
    search(run, settings, 3)
    found = trials()
    assert [trial.state for trial in found] == [optuna.trial.TrialState.COMPLETE] * 3
    assert [trial.params for trial in found][: len(before)] == before
    best = max(found, key=lambda trial: (trial.value, -trial.number))
    assert load_settings(run.path / FOUND)["trend"] == best.params
    (task,) = searched(run)
    assert {name: getattr(task.training, name) for name in best.params} == best.params
    assert stale.exists() == (task == run.recipe.tasks[0])
    results = [json.loads((run.path / "search/trend" / str(number) / "result.json").read_text()) for number in range(3)]
    assert [result["validation"]["accuracy"] for result in results] == [trial.value for trial in found]
    search(run, settings, 3)
    assert len(trials()) == 3


@pytest.mark.slow
def test_settings_that_diverge_have_failed_and_are_not_tried_for_ever(run: Run, tmp_path: Path) -> None:
    (task,) = run.recipe.tasks
    training = replace(TRAINING, epochs=1, learning_rate=1e30)
    tried = Run(run.path, replace(run.recipe, tasks=(replace(task, training=training),)))
    for _ in range(2):  # the second time nothing is left to be tried
        with pytest.raises(ConfigError, match=r"task trend: none of 1 settings could be trained with, .* of 1e\+30"):
            search(tried, Settings(home=tmp_path), 1)
    (told,) = (run.path / "search").glob("trend/*/result.json")
    assert "The training loss is nan" in json.loads(told.read_text(encoding="utf-8"))["failed"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "search.toml: expected"),
        ("[tasks.training]\nlerning_rate = 1\n", r"search.toml: tasks.0.training.lerning_rate: .* \(got 1\)$"),
        ("[tasks.training]\nepochs = 'x'\n", r"search.toml: tasks.0.training.epochs: .* \(got 'x'\)$"),
    ],
)
def test_a_file_of_settings_that_is_none_is_named(settings: str, said: str, run: Run) -> None:
    (run.path / FOUND).write_text(f"[[tasks]]\nname = 'trend'\n{settings}", encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as caught:
        searched(run)
    assert "\n" not in str(caught.value)


def test_settings_that_were_found_take_the_place_of_the_recipe_s(run: Run) -> None:
    assert searched(run) == run.recipe.tasks
    (run.path / FOUND).write_text("[[tasks]]\nname = 'trend'\n[tasks.training]\nepochs = 7\n", encoding="utf-8")
    (task,) = run.recipe.tasks
    assert searched(run) == (replace(task, training=replace(task.training, epochs=7)),)
