"""Each family is pretrained as it is made for, exactly also when resumed, and forgetting is held back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kg.errors import ConfigError
from kg.settings import Settings
from models.arms import Arm
from models.entity_table import EntityTable
from models.recipe import RECIPES, Graph, Recipe, Task, load_recipe
from models.run import Run
from models.stages.arms import with_vocabulary
from models.stages.pretrain import pretrain_arm
from models.stages.texts import HELD_OUT, Texts, read_texts
from models.training import Pretrain
from models.vocabulary import Extension
from tests.builders import tiny_snapshot
from tests.models.families import FAMILIES, SUBJECTS, domain_texts, general_texts, tiny_language_model

TEXTS = Texts(
    tuple(domain_texts(160)),
    tuple(domain_texts(30, seed=1)),
    tuple(domain_texts(30, seed=2)),
    tuple(general_texts(30, seed=3)),
)
TASK = Task(name="desk", kind="sequence_classification", reader="sample_desks", path="sample/sentences.jsonl")
STEPS = 24
Make = Callable[..., tuple[Path, Recipe]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run folder with a table and a snapshot, and a recipe with a tiny base model of a family."""

    def made(family: str = "bert", **options: Any) -> tuple[Path, Recipe]:
        run = tmp_path / "run"
        snapshot = tiny_snapshot(run / "snapshot", names=("Acme Corporation", "Acme Bank", "Borealis Group", "Corvus"))
        (run / "table").mkdir()
        vectors = EntityTable.random(num_entities=snapshot.num_entities, dim=8).vectors
        EntityTable(tuple(snapshot.ids), vectors, snapshot.hash, "random").save(run / "table")
        values = {
            "max_steps": STEPS,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "max_length": 96,
            "freeze_embeddings": False,
            "save_steps": 8,
        }
        recipe = load_recipe("sample")
        recipe = replace(
            recipe,
            base=tiny_language_model(family, tmp_path / "base"),
            fusion=replace(recipe.fusion, layers=(1,), dim=16, num_heads=2),
            pretrain=Pretrain(**{**values, **options}),
        )
        return run, recipe

    return made


def pretrained(run: Path, recipe: Recipe, *, arm: Arm = "plain", name: str = "one", stop_at: float = 2) -> dict:
    """The result of an arm, or of nothing when the training is killed at a share of its steps."""

    def report(share: float) -> None:
        if share >= stop_at:
            raise KeyboardInterrupt

    result = pretrain_arm(run, run / name, report, recipe=recipe, snapshot="snapshot", texts=TEXTS, arm=arm)
    assert json.loads((run / name / "result.json").read_text())["loss_after"] == result["loss_after"]
    return result


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / name / "model" / "model.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_the_texts(family: str, make: Make) -> None:
    run, recipe = make(family)
    result = pretrained(run, recipe, arm="fused")
    assert result["loss_after"] < 0.9 * result["loss_before"]
    assert result["general_before"] > 0
    assert any(mentioned in text for text in TEXTS.train for mentioned in SUBJECTS[:2])


def test_a_killed_training_that_keeps_its_best_goes_on_exactly(make: Make) -> None:
    run, recipe = make(evaluate_steps=4, patience=2, learning_rate=3e-2, entity_dropout=0.5)
    whole = pretrained(run, recipe, arm="fused", name="whole")
    expected = weights(run, "whole")
    for killed in (11, whole["steps"]):  # between two checkpoints; in the last step
        with pytest.raises(KeyboardInterrupt):
            pretrained(run, recipe, arm="fused", name=f"cut{killed}", stop_at=killed / STEPS)
        again = pretrained(run, recipe, arm="fused", name=f"cut{killed}")
        assert again["loss_after"] == whole["loss_after"]
        for name, value in weights(run, f"cut{killed}").items():
            assert torch.equal(value, expected[name]), name


def test_training_ends_when_the_loss_no_longer_falls_and_the_best_weights_stay(make: Make) -> None:
    run, recipe = make(evaluate_steps=4, patience=2, learning_rate=3.0)  # so high that nothing is learnt
    ended = pretrained(run, recipe, name="ended")
    assert ended["steps"] < STEPS
    assert ended["loss_after"] <= ended["loss_before"] * 1.01
    on = pretrained(run, replace(recipe, pretrain=replace(recipe.pretrain, evaluate_steps=0)), name="on")
    assert on["steps"] == STEPS
    assert on["loss_after"] > ended["loss_after"]


def test_averaging_goes_a_share_of_the_way_back(make: Make) -> None:
    run, recipe = make()
    after = pretrained(run, recipe, name="after")
    middle = pretrained(run, replace(recipe, pretrain=replace(recipe.pretrain, average=0.3)), name="middle")
    base = load_file(Path(recipe.base) / "model.safetensors")
    trained, averaged = weights(run, "after"), weights(run, "middle")
    for name in set(base) & set(trained):
        torch.testing.assert_close(averaged[name], 0.7 * trained[name] + 0.3 * base[name])
    assert after["loss_after"] < middle["loss_after"] < after["loss_before"]


def test_new_words_are_used_and_their_effect_can_be_compared(make: Make) -> None:
    run, recipe = make(new_terms=8)
    terms = ("securitised", "receivables", "debenture")
    assert with_vocabulary(run, recipe) == recipe
    Extension(recipe.base, terms).save(run / "vocabulary")
    assert with_vocabulary(run, recipe).base == str(run / "vocabulary")
    result = pretrained(run, recipe, arm="fused", name="more")
    without = pretrained(run, replace(recipe, pretrain=replace(recipe.pretrain, new_terms=0)), name="without")
    assert result["tokens_per_word"] < 0.9 * without["tokens_per_word"]
    for one in (result, without):
        assert one["loss_per_word"] == pytest.approx(one["loss_after"] * one["tokens_per_word"])
    rows = [
        next(value for name, value in weights(run, name).items() if name.endswith("word_embeddings.weight"))
        for name in ("more", "without")
    ]
    assert len(rows[0]) == len(rows[1]) + 3


def recipe_of(corpus: Path, **options: Any) -> Recipe:
    graph = Graph(source="rdf", paths=("sample/graph.ttl",), source_id="sample")
    return Recipe(
        name="texts", summary="", graph=graph, tasks=(TASK,), pretrain=Pretrain(corpus=(str(corpus),), **options)
    )


def test_general_texts_are_mixed_in_and_kept_apart_from_those_that_measure(tmp_path: Path) -> None:
    (tmp_path / "domain.txt").write_text("\n".join(f"{text} {'x' * n}" for n, text in enumerate(domain_texts(90))))
    general = [f"{text} {number * number} {number}." for number, text in enumerate(general_texts(900))]
    (tmp_path / "general.txt").write_text("\n".join(general))
    recipe = recipe_of(
        tmp_path / "domain.txt",
        replay=(str(tmp_path / "general.txt"),),
        replay_share=0.25,
        evaluate_steps=5,
        cleaning={"near_duplicates": 0.0},
    )
    texts, counts = read_texts(Run.open(tmp_path / "run", recipe), Settings(home=tmp_path))
    mixed = [text for text in texts.train if text in general]
    assert len(mixed) / len(texts.train) == pytest.approx(0.25, abs=0.01)
    assert set(texts.general) <= set(general)
    lists = (texts.train, texts.held_out, texts.watched, texts.general)
    assert all(lists)
    assert all(len(part) <= HELD_OUT for part in lists[1:])
    assert sum(map(len, lists)) == len({text for part in lists for text in part})
    assert counts[0]["texts_in"] == 90


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for line, said in (
        ("new_terms = 5", "new_terms have to be learnt: set freeze_embeddings = false"),
        ("average = 1.5", "average is 1.5, expected 0 to less than 1"),
        ("replay_share = -0.1", "replay_share is -0.1"),
    ):
        sample = (RECIPES / "sample.toml").read_text(encoding="utf-8")
        file = tmp_path / "a.toml"
        file.write_text(sample.replace("[pretrain]\n", f"[pretrain]\n{line}\n"), encoding="utf-8")
        with pytest.raises(ConfigError, match=said):
            load_recipe(str(file))
