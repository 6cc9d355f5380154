"""PyTorch Lightning trains the fused model to the weights that our own trainer gives it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from transformers import BertModel

from kg.errors import ConfigError
from models.base import fast_bf16
from models.batch import KnowledgeEncoder
from models.entity_table import EntityTable
from models.examples import Example, Splits
from models.kgbert import KGBertForSequenceClassification, KGBertModel
from models.lightning import KGFuseData, KGFuseModule
from models.mentions import hide_mentions
from models.objectives import KINDS, objective_for
from models.stages.arms import is_fresh
from models.trainer import fit
from models.training import Training
from tests.builders import COMPANIES
from tests.models.tiny import FUSION, open_gates, tiny_base, tiny_encoder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(num_workers|GPU|TPU|Checkpoint directory|logger|litlogger).*"),
    pytest.mark.filterwarnings("ignore:.*(LeafSpec|isinstance).*"),  # Lightning and this torch
]
TRAINING = Training(
    max_steps=12, batch_size=4, learning_rate=1e-3, head_learning_rate=5e-3, max_length=32, entity_dropout=0.3
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("linked"))


@pytest.fixture(scope="module")
def splits() -> Splits:
    def examples(part: str, weeks: int) -> tuple[Example, ...]:
        said = ("fell sharply", "rose")
        return tuple(
            Example(id=f"{part}{week}{name}", text=f"{name} {said[week % 2]} in week {week}.", label=said[week % 2])
            for week in range(weeks)
            for name in COMPANIES
        )

    return Splits(train=examples("train", 6), validation=examples("validation", 2), test=examples("test", 2))


@pytest.fixture(scope="module")
def start(encoder: KnowledgeEncoder, tmp_path_factory: pytest.TempPathFactory) -> KGBertModel:
    """Without dropout, whose draws are each trainer's own."""
    vectors = EntityTable.random(num_entities=len(encoder.rows), dim=8).vectors
    table = EntityTable(tuple(encoder.rows), vectors, "snapshot", "random")
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    base = tiny_base(tmp_path_factory.mktemp("base"), **off)
    model = KGBertForSequenceClassification.from_base(base, table, fusion=FUSION)
    open_gates(model, 0.5)
    return model


def lightning_trainer(folder: Path, *, precision: str = "", **options: object) -> L.Trainer:
    return L.Trainer(
        max_epochs=1,
        precision=precision or ("bf16-mixed" if fast_bf16() else "32-true"),
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_lightning_ends_with_the_weights_of_our_trainer(
    start: KGBertModel, splits: Splits, encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    objective = objective_for("sequence_classification", splits.train)
    data = KGFuseData(splits, objective, encoder, TRAINING, seed=3)
    module = KGFuseModule(copy.deepcopy(start), objective, TRAINING)
    lightning_trainer(tmp_path, num_sanity_val_steps=0).fit(module, data)
    ours = copy.deepcopy(start)
    fit(
        ours,
        data.features["train"],
        data.collate,
        TRAINING,
        seed=3,
        folder=tmp_path / "ours",
        is_fresh=is_fresh,
        prepare=lambda feature, draw: hide_mentions(feature, 0.3, draw),
    )
    expected, found = ours.state_dict(), module.model.state_dict()
    moved = {name for name, value in start.state_dict().items() if not torch.equal(value, expected[name])}
    assert any("knowledge_attention" in name for name in moved)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_lightning_scores_as_the_objective_does_and_its_model_has_dropout(
    start: KGBertModel, splits: Splits, encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    objective = objective_for("sequence_classification", splits.train)
    training = Training(max_steps=80, batch_size=8, learning_rate=1e-3, head_learning_rate=5e-3)
    data = KGFuseData(splits, objective, encoder, training)
    module = KGFuseModule(copy.deepcopy(start).eval(), objective, training)
    assert all(part.training for part in module.modules() if isinstance(part, nn.Dropout))
    trainer = lightning_trainer(tmp_path, num_sanity_val_steps=1, val_check_interval=20)
    trainer.fit(module, data)
    assert trainer.callback_metrics["validation_accuracy"] == 1.0
    (scores,) = trainer.test(module, data, verbose=False)
    assert scores["test_accuracy"] == 1.0
    assert scores.keys() == {"test_accuracy", "test_macro_f1"}


KIND_EXAMPLES: dict[str, Callable[[str, int], Example]] = {
    "sequence_classification": lambda name, week: Example(
        id="", text=f"{name} rose in week {week}.", label="third" if week % 3 == 0 else "other"
    ),
    "question_answering": lambda name, week: Example(
        id="",
        text=f"It rained in week {week}. " * (1 + week % 2 * 8) + f"{name} rose.",
        second="Who rose?",
        answers=((26 * (1 + week % 2 * 8), name),) if week % 3 else (),
    ),
    "multiple_choice": lambda name, week: Example(
        id="", text=f"{name} fell.", choices=("rose", "fell", "slept")[: 2 + week % 2], label="fell"
    ),
}


@pytest.mark.parametrize("kind", KIND_EXAMPLES)
def test_lightning_minimises_and_scores_what_our_trainer_does(
    kind: str, encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    examples = tuple(KIND_EXAMPLES[kind](name, week) for week in range(6) for name in COMPANIES)
    splits = Splits(train=examples, validation=examples[:10], test=examples)
    objective = objective_for(kind, examples)
    training = replace(TRAINING, class_weights="balanced" if kind == "sequence_classification" else None)
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    table = EntityTable.random(num_entities=len(encoder.rows), dim=8)
    ours = objective.kgbert_class.from_base(
        tiny_base(tmp_path / "base", BertModel, **off), table, fusion=FUSION, **objective.options()
    )
    data = KGFuseData(splits, objective, encoder, training, seed=3)
    module = KGFuseModule(copy.deepcopy(ours), objective, training)
    lightning_trainer(tmp_path, num_sanity_val_steps=1).fit(module, data)
    fit(
        ours,
        data.features["train"],
        data.collate,
        training,
        seed=3,
        folder=tmp_path / "ours",
        is_fresh=is_fresh,
        prepare=lambda feature, draw: hide_mentions(feature, 0.3, draw),
        loss=objective.loss(data.features["train"], balanced=training.class_weights is not None),
    )
    torch.testing.assert_close(module.model.state_dict(), ours.state_dict(), rtol=0, atol=1e-6)
    features = data.features["validation"]
    outputs = objective.predict(ours, features, data.collate)
    chosen = objective.calibrated(outputs, features, splits.validation)
    expected = chosen.score(chosen.answers(outputs, features, splits.validation), splits.validation).metrics
    (scores,) = lightning_trainer(tmp_path, precision="32-true").validate(module, data, verbose=False)
    assert scores == pytest.approx({f"validation_{name}": value for name, value in expected.items()})


def test_what_lightning_does_not_do_is_refused(start: KGBertModel) -> None:
    objective = KINDS["sequence_classification"](("a", "b"))
    for name in ("frozen_layers", "lora_rank", "patience"):
        with pytest.raises(ConfigError, match=f"^{name} is 2, which Lightning does not do here; leave it 0"):
            KGFuseModule(start, objective, replace(TRAINING, **{name: 2}))
    for kind in ("seq2seq_generation", "causal_generation"):
        with pytest.raises(ConfigError, match="writes text, which Lightning does not train here"):
            KGFuseModule(start, KINDS[kind](), TRAINING)


def test_texts_in_several_windows_are_scored_where_lightning_looks_at_a_few(
    encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    words = ("Acme", "Bank", "rose", "in", "week", "2", ".") * 60
    tags = ("B-ORG", "I-ORG", "O", "O", "O", "O", "O") * 60
    examples = tuple(Example(id=str(number), text="", words=words, tags=tags) for number in range(20))
    objective = objective_for("token_classification", examples)
    data = KGFuseData(Splits(train=examples, validation=examples, test=examples), objective, encoder, TRAINING)
    base = tiny_base(tmp_path / "base")
    model = objective.kgbert_class.from_base(
        base, EntityTable.random(num_entities=len(encoder.rows), dim=8), fusion=FUSION, **objective.options()
    )
    trainer = lightning_trainer(tmp_path, limit_val_batches=1)
    (scores,) = trainer.validate(KGFuseModule(model, objective, TRAINING), data, verbose=False)
    assert len(data.features["validation"]) > 3 * len(examples)
    assert 0.0 <= scores["validation_f1"] < 1.0


def test_the_lightning_that_is_installed_is_none_of_the_releases_with_malware() -> None:
    assert version("lightning") not in ("2.6.2", "2.6.3")
    assert version("pytorch-lightning") not in ("2.6.2", "2.6.3")
