"""A fused model is an ordinary Hugging Face model: what is saved is loaded by the Auto classes, to the bit."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForMaskedLM,
    BertModel,
    set_seed,
)

from kg.errors import ConfigError, InputError
from models.base import load_base
from models.batch import KnowledgeCollator, KnowledgeEncoder
from models.entity_table import FIRST, EntityTable
from models.fusion import FusionConfig
from models.kgbert import (
    KGBertConfig,
    KGBertForMaskedLM,
    KGBertForSequenceClassification,
    KGBertForTokenClassification,
    KGBertModel,
)
from tests.models.tiny import FUSION, answer, attentions, open_gates, plain_inputs, tiny_base, tiny_encoder

TEXTS = ("Acme Bank sold its shares of Borealis Insurance.", "It rained.", "Corvus Fund rose.")
TASKS: Mapping[str, tuple[Any, Any, dict[str, Any]]] = {
    "masked_lm": (KGBertForMaskedLM, AutoModelForMaskedLM, {}),
    "sequence": (
        KGBertForSequenceClassification,
        AutoModelForSequenceClassification,
        {"num_labels": 3, "id2label": {0: "down", 1: "same", 2: "up"}, "label2id": {"down": 0, "same": 1, "up": 2}},
    ),
    "token": (KGBertForTokenClassification, AutoModelForTokenClassification, {"num_labels": 5}),
}
EVERY_TASK = pytest.mark.parametrize("task", list(TASKS))
LOAD = """
import sys, json
from pathlib import Path
from safetensors.torch import load_file, save_file
import torch, transformers
import models.kgbert
inputs = load_file("inputs.safetensors")
plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
answers = {}
for task, auto in json.loads(sys.argv[1]).items():
    model = getattr(transformers, auto).from_pretrained(task).eval()
    with torch.inference_mode():
        answers[task + " fused"] = model(**inputs).logits
        answers[task + " plain"] = model(**plain).logits
save_file({name: value.contiguous() for name, value in answers.items()}, "answers.safetensors")
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("kgbert"))


@pytest.fixture(scope="module")
def inputs(encoder: KnowledgeEncoder) -> dict[str, Tensor]:
    return KnowledgeCollator(tokenizer=encoder.tokenizer)(encoder.encode_texts(TEXTS))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_base(tmp_path_factory.mktemp("base"), BertForMaskedLM)


def table(encoder: KnowledgeEncoder, *, dim: int = 8, seed: int = 0) -> EntityTable:
    vectors = EntityTable.random(num_entities=len(encoder.rows), dim=dim, seed=seed).vectors
    return EntityTable(tuple(encoder.rows), vectors, f"snapshot-{seed}", "random")


def fused(task: str, base: str, encoder: KnowledgeEncoder) -> KGBertModel:
    kgbert_class, _, options = TASKS[task]
    set_seed(0)
    model = kgbert_class.from_base(base, table(encoder), fusion=FUSION, **options)
    open_gates(model, 0.7)
    return model.eval()


@EVERY_TASK
def test_a_model_made_from_minilm_is_minilm_with_the_same_head_until_its_gates_open(
    task: str, encoder: KnowledgeEncoder, inputs: dict[str, Tensor]
) -> None:
    kgbert_class, _, options = TASKS[task]
    set_seed(5)
    plain = load_base("minilm", kgbert_class.auto_class, **options).eval()
    set_seed(5)
    made = kgbert_class.from_base("minilm", table(encoder, dim=128), **options).eval()
    expected = answer(plain, **plain_inputs(inputs))
    assert torch.equal(answer(made, **plain_inputs(inputs)), expected)
    assert torch.equal(answer(made, **inputs), expected)
    open_gates(made)
    assert torch.equal(answer(made, **plain_inputs(inputs)), expected)
    opened = answer(made, **inputs)
    assert torch.equal(opened[1], expected[1])
    assert not torch.equal(opened[0], expected[0])


def test_saved_models_loaded_in_another_process_answer_the_same_to_the_bit(
    base: str, encoder: KnowledgeEncoder, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    expected = {}
    for task in TASKS:
        model = fused(task, base, encoder)
        model.save_pretrained(tmp_path / task)
        expected |= {f"{task} fused": answer(model, **inputs), f"{task} plain": answer(model, **plain_inputs(inputs))}
        assert not torch.equal(expected[f"{task} fused"], expected[f"{task} plain"])
    save_file(inputs, tmp_path / "inputs.safetensors")
    classes = json.dumps({task: auto_class.__name__ for task, (_, auto_class, _) in TASKS.items()})
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, classes],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    found = load_file(tmp_path / "answers.safetensors")
    assert found.keys() == expected.keys()
    for name, logits in expected.items():
        assert torch.equal(found[name], logits), name


@EVERY_TASK
def test_weights_are_saved_as_safetensors_without_the_table(
    task: str, base: str, encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    fused(task, base, encoder).save_pretrained(tmp_path)
    files = {file.name for file in tmp_path.iterdir()}
    assert files - {"generation_config.json"} == {
        "config.json",
        "model.safetensors",
        "entity_table.json",
        "entity_table.safetensors",
    }
    names = load_file(tmp_path / "model.safetensors").keys()
    assert any("knowledge_attention" in name for name in names)
    assert not any(name.endswith(".table") for name in names)


@EVERY_TASK
def test_a_loaded_model_has_its_table_config_and_labels(
    task: str, base: str, encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    kgbert_class, auto_class, _ = TASKS[task]
    model = fused(task, base, encoder)
    model.save_pretrained(tmp_path)
    for loader in (kgbert_class, auto_class):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is kgbert_class
        assert isinstance(loaded.config, KGBertConfig)
        assert loaded.config.fusion_options() == FUSION
        assert loaded.config.id2label == model.config.id2label
        assert loaded.config.snapshot_hash == loaded.entity_table.snapshot_hash == "snapshot-0"
        assert loaded.entity_table.ids == tuple(encoder.rows)
        assert all(torch.equal(block.table, table(encoder).vectors) for block in attentions(loaded))
    if task == "sequence":
        assert loaded.config.id2label == {0: "down", 1: "same", 2: "up"}
        assert loaded.config.num_labels == 3


def test_saving_and_loading_twice_changes_nothing(base: str, encoder: KnowledgeEncoder, tmp_path: Path) -> None:
    fused("sequence", base, encoder).save_pretrained(tmp_path / "one")
    KGBertForSequenceClassification.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["tiny", "minilm"])
def test_the_output_of_masked_lm_stays_tied_to_the_word_embeddings(
    name: str, base: str, encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    model = KGBertForMaskedLM.from_base(base if name == "tiny" else name, table(encoder), fusion=FUSION)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    torch.nn.init.normal_(model.get_input_embeddings().weight)  # as training moves it
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert torch.equal(loaded.get_output_embeddings().bias, model.get_output_embeddings().bias)


def test_another_table_of_the_same_width_changes_what_is_read_and_is_saved(
    base: str, encoder: KnowledgeEncoder, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    model = fused("sequence", base, encoder)
    before = answer(model, **inputs)
    model.set_table(table(encoder, seed=9))
    after = answer(model, **inputs)
    assert not torch.equal(after, before)
    assert torch.equal(answer(model, **plain_inputs(inputs))[1], before[1])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(answer(loaded, **inputs), after)
    assert loaded.config.snapshot_hash == "snapshot-9"


def test_a_table_with_more_entities_may_take_its_place(
    base: str, encoder: KnowledgeEncoder, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    model = fused("sequence", base, encoder)
    before = answer(model, **inputs)
    more = torch.cat([table(encoder).vectors, torch.randn(3, 8)])
    model.set_table(EntityTable((*encoder.rows, "ex:a", "ex:b", "ex:c"), more, "newer", "random"))
    assert torch.equal(answer(model, **inputs), before)
    assert model.config.num_entities == len(encoder.rows) + 3
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert attentions(loaded)[0].table.shape[0] == len(encoder.rows) + 3 + FIRST


def test_a_table_of_another_width_is_refused_and_the_old_one_stays(
    base: str, encoder: KnowledgeEncoder, inputs: dict[str, Tensor]
) -> None:
    model = fused("sequence", base, encoder)
    before, kept = answer(model, **inputs), model.entity_table
    with pytest.raises(ConfigError, match="The model reads vectors of 8, the table has 12"):
        model.set_table(table(encoder, dim=12))
    assert model.entity_table is kept
    assert torch.equal(answer(model, **inputs), before)


def test_a_saved_model_without_its_table_is_refused(base: str, encoder: KnowledgeEncoder, tmp_path: Path) -> None:
    fused("sequence", base, encoder).save_pretrained(tmp_path)
    (tmp_path / "entity_table.safetensors").unlink()
    with pytest.raises(InputError, match=f"{tmp_path}: holds an entity table that cannot be read"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    (tmp_path / "entity_table.json").unlink()
    with pytest.raises(InputError, match=f"{tmp_path}: holds no entity table"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_a_base_model_without_such_layers_is_refused(base: str, encoder: KnowledgeEncoder) -> None:
    with pytest.raises(ConfigError, match="has 0 to 3; set fusion.layers"):
        KGBertForSequenceClassification.from_base(base, table(encoder), fusion=FusionConfig(layers=(4, 5)))


def test_a_base_model_that_is_not_there_is_refused_in_one_line(encoder: KnowledgeEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        KGBertForSequenceClassification.from_base(str(tmp_path / "none"), table(encoder))
    assert "\n" not in str(caught.value)


def test_only_a_base_with_safetensors_is_loaded(encoder: KnowledgeEncoder, tmp_path: Path) -> None:
    tiny_base(tmp_path, BertModel)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        KGBertForSequenceClassification.from_base(str(tmp_path), table(encoder), fusion=FUSION)


def test_knowledge_and_loss_come_with_the_output(
    base: str, encoder: KnowledgeEncoder, inputs: dict[str, Tensor]
) -> None:
    output = fused("sequence", base, encoder)(**inputs, labels=torch.tensor([0, 1, 2]))
    assert sorted(output.knowledge) == list(FUSION.layers)
    assert output.loss.isfinite()
    output.loss.backward()
