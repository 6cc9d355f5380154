"""A training that was cut off ends where an uninterrupted one ends, and a damaged checkpoint is never taken."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainingArguments

from kg.errors import KGError
from models.base import load_base
from models.batch import KnowledgeCollator, KnowledgeEncoder
from models.entity_table import EntityTable
from models.kgbert import KGBertForSequenceClassification
from models.mentions import hide_mentions
from models.trainer import (
    COMPLETE,
    CheckpointedTrainer,
    Passes,
    Trained,
    checkpoints,
    fit,
    last_complete_checkpoint,
    seal,
)
from models.training import Training
from tests.builders import COMPANIES
from tests.models.tiny import FUSION, answer, open_gates, tiny_base, tiny_encoder

TRAINING = Training(
    max_steps=20, batch_size=4, save_steps=5, learning_rate=1e-3, head_learning_rate=5e-3, max_length=32
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("trainer"))


@pytest.fixture(scope="module")
def features(encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
    texts = [f"{name} {'rose' if i % 2 else 'fell sharply'} in week {i}." for i in range(6) for name in COMPANIES]
    return [{**feature, "labels": i % 2} for i, feature in enumerate(encoder.encode_texts(texts))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_base(tmp_path_factory.mktemp("base"))


def plain_model(base: str, encoder: KnowledgeEncoder) -> PreTrainedModel:
    return load_base(base, AutoModelForSequenceClassification)


def fused_model(base: str, encoder: KnowledgeEncoder) -> PreTrainedModel:
    vectors = EntityTable.random(num_entities=len(encoder.rows), dim=8).vectors
    table = EntityTable(tuple(encoder.rows), vectors, "snapshot", "random")
    model = KGBertForSequenceClassification.from_base(base, table, fusion=FUSION)
    open_gates(model, 0.5)
    return model


def is_fresh(name: str) -> bool:
    return "classifier" in name or "knowledge_attention" in name


class Stopped(Exception):
    """The training was cut off."""


def stop_after(share: float) -> Callable[[float], None]:
    def report(done: float) -> None:
        if done > share:
            raise Stopped

    return report


def train(
    model: nn.Module,
    features: list[dict[str, Any]],
    encoder: KnowledgeEncoder,
    folder: Path,
    *,
    config: Training = TRAINING,
    report: Callable[[float], None] = lambda share: None,
) -> Trained:
    return fit(
        model,
        features,
        KnowledgeCollator(tokenizer=encoder.tokenizer, with_knowledge=hasattr(model, "entity_table")),
        config,
        seed=3,
        folder=folder,
        is_fresh=is_fresh,
        report=report,
        prepare=lambda feature, draw: hide_mentions(feature, 0.3, draw),
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("build", [plain_model, fused_model])
def test_a_training_that_was_cut_off_ends_with_the_weights_of_an_uninterrupted_one(
    build: Callable[..., PreTrainedModel],
    base: str,
    features: list[dict[str, Any]],
    encoder: KnowledgeEncoder,
    tmp_path: Path,
) -> None:
    start = build(base, encoder)
    whole, cut, resumed = (copy.deepcopy(start) for _ in range(3))
    expected = train(whole, features, encoder, tmp_path / "whole")
    assert differing(weights(start), weights(whole))

    with pytest.raises(Stopped):
        train(cut, features, encoder, tmp_path / "cut", report=stop_after(0.6))
    assert differing(weights(cut), weights(whole))
    newest = last_complete_checkpoint(tmp_path / "cut")
    assert newest is not None
    assert newest.name == "checkpoint-10"

    shares: list[float] = []
    torch.manual_seed(12345)  # whatever happened in between
    found = train(resumed, features, encoder, tmp_path / "cut", report=shares.append)
    assert shares == [step / 20 for step in range(11, 21)]  # steps before the checkpoint are not done again
    assert differing(weights(resumed), weights(whole)) == set()
    assert found.losses == expected.losses
    assert [step for step, _ in found.losses] == list(range(1, 21))


def test_a_training_that_is_asked_again_when_it_is_finished_changes_nothing(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    start = fused_model(base, encoder)
    first, again = copy.deepcopy(start), copy.deepcopy(start)
    train(first, features, encoder, tmp_path)
    shares: list[float] = []
    train(again, features, encoder, tmp_path, report=shares.append)
    assert shares == []
    assert differing(weights(again), weights(first)) == set()


def test_two_trainings_are_the_same_to_the_bit_and_the_loss_falls(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    start = fused_model(base, encoder)
    config = Training(max_steps=40, batch_size=8, learning_rate=1e-3, head_learning_rate=5e-3)
    ends = []
    for number in (0, 1):
        torch.manual_seed(number)
        model = copy.deepcopy(start)
        losses = [loss for _, loss in train(model, features, encoder, tmp_path / str(number), config=config).losses]
        assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
        ends.append(weights(model))
    assert differing(*ends) == set()


def test_only_the_newest_checkpoint_is_kept_and_nothing_half_written(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    train(plain_model(base, encoder), features, encoder, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-20", "tensorboard"]
    assert (tmp_path / "checkpoint-20" / "model.safetensors").is_file()


def test_parts_that_start_untrained_have_their_own_learning_rate(base: str, encoder: KnowledgeEncoder) -> None:
    model = fused_model(base, encoder)
    model.get_input_embeddings().requires_grad_(False)
    arguments = TrainingArguments(learning_rate=1e-4, weight_decay=0.01, use_cpu=True, report_to="none")
    trainer = CheckpointedTrainer(model=model, args=arguments, head_learning_rate=5e-4, is_fresh=is_fresh)
    group_of = {
        id(parameter): group for group in trainer.create_optimizer().param_groups for parameter in group["params"]
    }
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(group_of) == len(names)
    rates = {name: group_of[id(parameter)]["lr"] for name, parameter in names.items()}
    assert {rate for name, rate in rates.items() if is_fresh(name)} == {5e-4}
    assert {rate for name, rate in rates.items() if not is_fresh(name)} == {1e-4}
    decays = {name: group_of[id(parameter)]["weight_decay"] for name, parameter in names.items()}
    assert {decay for name, decay in decays.items() if name.endswith("bias") or "LayerNorm" in name} == {0.0}
    assert {decay for name, decay in decays.items() if name.endswith("query.weight")} == {0.01}


def test_a_rate_of_zero_leaves_its_part_alone(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    model = fused_model(base, encoder)
    before = weights(model)
    config = Training(max_steps=3, batch_size=4, learning_rate=0.0, head_learning_rate=1e-2, weight_decay=0.0)
    train(model, features, encoder, tmp_path, config=config)
    moved = differing(before, weights(model))
    assert {name for name in moved if not is_fresh(name)} == set()
    assert any("classifier" in name for name in moved)
    assert any("knowledge_attention" in name for name in moved)


def test_a_loss_that_is_no_number_ends_the_training_with_one_clear_error(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    model = plain_model(base, encoder)
    nn.init.constant_(model.classifier.weight, float("nan"))
    shares: list[float] = []
    with pytest.raises(KGError, match="training loss is nan at step 1; lower learning_rate") as caught:
        train(model, features, encoder, tmp_path, report=shares.append)
    assert "\n" not in str(caught.value)
    assert len(shares) == 1
    assert checkpoints(tmp_path) == []


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    (made / "sub").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(bytes(range(200)))
    (made / "sub" / "state.json").write_text(f'{{"step": {step}}}')
    seal(made)
    return made


def remove_file(folder: Path) -> None:
    (folder / "sub" / "state.json").unlink()


def alter_byte(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)


def cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def remove_seal(folder: Path) -> None:
    (folder / COMPLETE).unlink()


def cut_seal(folder: Path) -> None:
    (folder / COMPLETE).write_text((folder / COMPLETE).read_text()[:-10])


@pytest.mark.parametrize("damage", [remove_file, alter_byte, cut_short, remove_seal, cut_seal])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage: Callable[[Path], None], tmp_path: Path) -> None:
    older, newer = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert last_complete_checkpoint(tmp_path) == newer
    damage(newer)
    assert last_complete_checkpoint(tmp_path) == older
    damage(older)
    assert last_complete_checkpoint(tmp_path) is None


def test_checkpoints_are_in_order_of_their_steps_and_a_folder_without_any_has_none(tmp_path: Path) -> None:
    for step in (100, 9, 20):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert last_complete_checkpoint(tmp_path / "nowhere") is None


def test_a_training_goes_on_from_the_one_before_a_damaged_checkpoint(
    base: str, features: list[dict[str, Any]], encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    start = plain_model(base, encoder)
    whole, cut, resumed = (copy.deepcopy(start) for _ in range(3))
    train(whole, features, encoder, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(cut, features, encoder, tmp_path / "cut", report=stop_after(0.35))
    (tmp_path / "cut" / "checkpoint-5").rename(tmp_path / "kept")
    with pytest.raises(Stopped):
        train(copy.deepcopy(start), features, encoder, tmp_path / "cut", report=stop_after(0.6))
    (tmp_path / "kept").rename(tmp_path / "cut" / "checkpoint-5")
    alter_byte(tmp_path / "cut" / "checkpoint-10")
    shares: list[float] = []
    train(resumed, features, encoder, tmp_path / "cut", report=shares.append)
    assert shares[0] == 6 / 20
    assert differing(weights(resumed), weights(whole)) == set()


def passes(features: list[dict[str, Any]], *, seed: int = 0, **options: Any) -> Passes:
    config = Training(**{"batch_size": 4, **options})
    return Passes(features, config, seed=seed, prepare=lambda feature, draw: {**feature, "draw": draw})


def test_every_example_is_seen_once_a_pass_and_in_another_order_each_time(features: list[dict[str, Any]]) -> None:
    seen = passes(features, epochs=3)
    assert len(seen) == 3 * len(features)
    orders = seen.order.reshape(3, -1).tolist()
    assert all(sorted(order) == list(range(len(features))) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_what_was_trained_answers_as_what_is_loaded_from_it(
    base: str, encoder: KnowledgeEncoder, features: list[dict[str, Any]], tmp_path: Path
) -> None:
    model, loaded = fused_model(base, encoder), fused_model(base, encoder)
    train(model, features, encoder, tmp_path)
    loaded.load_state_dict(model.state_dict())
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(features)
    torch.testing.assert_close(answer(model.eval(), **batch), answer(loaded.eval(), **batch))


def test_a_share_of_an_epoch_is_one_example_at_least(features: list[dict[str, Any]]) -> None:
    assert len(passes(features, epochs=1e-4)) == 1


def test_what_comes_at_a_position_depends_on_seed_and_position_alone(features: list[dict[str, Any]]) -> None:
    long, short = passes(features, epochs=3), passes(features, max_steps=2)
    assert [short[i] for i in range(8)] == [long[i] for i in range(8)]
    assert long.order.tolist() != passes(features, epochs=3, seed=1).order.tolist()
    assert len({long[i]["draw"] for i in range(len(long))}) == len(long)


def test_steps_and_parts_of_an_epoch_give_the_number_of_examples(features: list[dict[str, Any]]) -> None:
    assert len(passes(features, max_steps=50)) == 200
    assert len(passes(features, epochs=0.5)) == len(features) // 2
    assert len(passes(features, epochs=2.25)) == round(2.25 * len(features))


def test_a_batch_holds_examples_of_like_length() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 401))
    order = passes([{"input_ids": [0] * int(length)} for length in lengths], epochs=1).order
    sorted_ones, as_given = (np.ptp(values.reshape(-1, 4), axis=1).mean() for values in (lengths[order], lengths))
    assert sorted_ones < 0.3 * as_given
