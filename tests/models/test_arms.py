"""Arms of one comparison start alike and see the same, but for what they are told."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kg.errors import ConfigError
from models.arms import ARMS
from models.base import load_base
from models.classifiers import SequenceClassifier
from models.kgbert import KGBertForSeq2SeqLM, KGBertForSequenceClassification, KGBertForTokenClassification
from models.recipe import Recipe, load_recipe
from models.stages.arms import arm_table, build_model, take_over, taught
from models.stages.finetune import train_task
from models.trainer import Passes
from tests.models.families import tiny_language_model
from tests.models.tiny import FUSION, TABLE, tiny_base

pytestmark = pytest.mark.neo4j


def started(
    run: Path,
    arm: Any,
    *,
    seed: int = 0,
    warm_start: Path | None = None,
    base: str | None = None,
    num_labels: int = 2,
) -> tuple[torch.nn.Module, Recipe]:
    read = load_recipe(str(run / "config.toml"))
    model = build_model(
        dataclasses.replace(read, base=base or read.base),
        arm_table(run, arm),
        auto_class=SequenceClassifier,
        kgbert_class=KGBertForSequenceClassification,
        seed=seed,
        warm_start=warm_start,
        training=read.tasks[0].training,
        num_labels=num_labels,
    )
    return model, read


def test_an_arm_begins_with_what_another_run_taught_it_but_for_the_head(finetuned: Path, tmp_path: Path) -> None:
    learnt = taught(tmp_path, "fused", begin_with=str(finetuned))
    assert learnt is not None
    own = started(finetuned, "fused", warm_start=learnt)[0].state_dict()
    saved = load_file(learnt / "model.safetensors")
    for name, value in saved.items():
        assert torch.equal(own[name], value) is ("classifier" not in name), name
    with pytest.raises(ConfigError, match=r"no model of the arm shuffled; run it with --keep-models"):
        taught(tmp_path, "shuffled", begin_with=str(finetuned))


def test_fusion_blocks_of_another_width_are_refused(finetuned: Path, tmp_path: Path) -> None:
    learnt = taught(tmp_path, "fused", begin_with=str(finetuned))
    assert learnt is not None
    saved = load_file(learnt / "model.safetensors")
    name = next(name for name in saved if name.endswith("candidate_key.weight"))
    save_file({**saved, name: saved[name][:, :-1].contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="of another size"):
        started(finetuned, "fused", warm_start=tmp_path)


@pytest.mark.parametrize("kind", [KGBertForSequenceClassification, KGBertForTokenClassification])
@pytest.mark.parametrize("fused", [False, True])
def test_what_a_t5_learnt_by_writing_goes_to_its_classifiers(kind: Any, fused: bool, tmp_path: Path) -> None:
    base, fusion = tiny_language_model("t5", tmp_path / "base"), dataclasses.replace(FUSION, layers=(1,))

    def build(kgbert_class: Any) -> Any:
        if fused:
            return kgbert_class.from_base(base, TABLE, fusion=fusion)
        return load_base(base, kgbert_class.auto_class)

    pretrained = build(KGBertForSeq2SeqLM)
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(0.01)
    pretrained.save_pretrained(tmp_path / "pretrained")
    model = build(kind)
    take_over(model, tmp_path / "pretrained")
    saved = load_file(tmp_path / "pretrained" / "model.safetensors")
    learnt = {name: value for name, value in model.state_dict().items() if "classif" not in name}
    for name, value in learnt.items():
        bare = name.replace("transformer.", "").replace("encoder.embed_tokens", "shared")
        assert torch.equal(value, saved[bare.replace("decoder.embed_tokens", "shared")]), name


def test_the_arms_start_with_the_same_weights(finetuned: Path) -> None:
    def shared(model: torch.nn.Module) -> dict[str, Tensor]:
        """Weights that every arm has, by the name that the plain model gives them."""
        named = {
            name.removeprefix("model.").replace(".block.", "."): value for name, value in model.state_dict().items()
        }
        return {name: value for name, value in named.items() if "knowledge_attention" not in name}

    plain, fused, shuffled = (started(finetuned, arm)[0] for arm in ARMS)
    expected = shared(plain)
    assert "classifier.weight" in expected
    for model in (fused, shuffled):
        assert expected.keys() == shared(model).keys()
        assert all(torch.equal(value, shared(model)[name]) for name, value in expected.items())
    one, other = fused.state_dict(), shuffled.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    tables = [next(value for name, value in m.named_buffers() if name.endswith(".table")) for m in (fused, shuffled)]
    assert not torch.equal(*tables)
    assert torch.equal(tables[0].sort(0).values, tables[1].sort(0).values)  # the same vectors, at other entities
    again = shared(started(finetuned, "plain", seed=1)[0])
    assert not torch.equal(again["classifier.weight"], expected["classifier.weight"])


@pytest.mark.parametrize("arm", ["plain", "fused"])
def test_a_base_that_brings_the_head_of_another_task_gets_a_fresh_one(
    arm: Any, finetuned: Path, tmp_path: Path
) -> None:
    base = tiny_base(tmp_path, num_labels=3)
    heads = []
    for seed in (0, 0, 1):
        model, _ = started(finetuned, arm, seed=seed, base=base, num_labels=5)
        heads.append(next(value for name, value in model.state_dict().items() if name.endswith("classifier.weight")))
    assert heads[0].shape[0] == 5
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_arms_see_the_same_examples_in_the_same_order(
    finetuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Any]] = {arm: [] for arm in ARMS}
    current = ""
    take = Passes.__getitem__

    def watched(passes: Passes, position: int) -> dict[str, Any]:
        feature = take(passes, position)
        seen[current].append((position, feature["input_ids"], feature["labels"], feature["token_mentions"]))
        return feature

    monkeypatch.setattr(Passes, "__getitem__", watched)
    read = load_recipe(str(finetuned / "config.toml"))
    manifest = json.loads((finetuned / "manifest.json").read_text(encoding="utf-8"))
    task = read.tasks[0].__class__(
        **{
            **vars(read.tasks[0]),
            "training": read.tasks[0].training.__class__(max_steps=6, batch_size=8, max_length=48),
        }
    )
    results = {}
    for current in ARMS:
        results[current] = train_task(
            finetuned,
            tmp_path / current,
            lambda share: None,
            recipe=read,
            snapshot=manifest["snapshot"]["path"],
            task=task,
            path=Path(task.path),
            arm=current,
            seed=0,
        )
    assert len(seen["plain"]) == 48
    assert seen["plain"] == seen["fused"] == seen["shuffled"]
    first, last = ([results[arm]["losses"][step] for arm in ("fused", "shuffled")] for step in (0, -1))
    assert first[0] == first[1]  # before the gates open, no knowledge is let in
    assert last[0] != last[1]
