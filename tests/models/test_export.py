"""An exported model answers what the model did, whatever the sizes of a batch, and reads a table from outside."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kg.errors import InputError
from models.batch import PAIR, KnowledgeEncoder, keep_mentions
from models.entity_table import EntityTable
from models.export import INT8, OnnxPredictor, export_model, main
from models.kgbert import (
    KGBertForRelationClassification,
    KGBertForSequenceClassification,
    KGBertForTokenClassification,
    KGBertModel,
)
from models.objectives.objective import predict_raw
from tests.builders import COMPANIES
from tests.models.tiny import FUSION, open_gates, tiny_base, tiny_encoder

KINDS = {
    "sequence": KGBertForSequenceClassification,
    "token": KGBertForTokenClassification,
    "relation": KGBertForRelationClassification,
}
Exported = tuple[KGBertModel, Path]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("linked"))


@pytest.fixture(scope="module")
def features(encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
    """Texts of several lengths with two, one and no mentions."""
    first, second = list(COMPANIES)[:2]
    texts = [f"{first} rose and {second} fell.", f"{first} fell.", "Nobody was there to see it, they said.", "No."]
    features = encoder.encode_texts(texts)
    assert [len(feature["mention_entities"]) for feature in features] == [2, 1, 0, 0]
    return [{**feature, PAIR: [1, 2]} for feature in features]


@pytest.fixture(
    scope="module", params=["sequence", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("token", "relation"))]
)
def exported(
    request: pytest.FixtureRequest, encoder: KnowledgeEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    folder = tmp_path_factory.mktemp(request.param)
    vectors = torch.randn(len(encoder.rows) + 2, 8, generator=torch.Generator().manual_seed(1))
    table = EntityTable(tuple(encoder.rows), vectors, "snapshot", "random")
    model = KINDS[request.param].from_base(tiny_base(folder / "base"), table, fusion=FUSION, num_labels=3)
    open_gates(model, 0.5)
    with torch.no_grad():
        model.model.classifier.weight.mul_(100)  # logits as a trained model has them
    export_model(model.train(), encoder.tokenizer, folder / "onnx", int8=True)  # without dropout all the same
    return model, folder / "onnx"


def asked(model: KGBertModel, features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    related = isinstance(model, KGBertForRelationClassification)
    return features if related else [{k: v for k, v in feature.items() if k != PAIR} for feature in features]


def furthest(one: list[Any], other: list[Any]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_the_graph_gives_the_logits_of_the_model(
    exported: Exported, features: list[dict[str, Any]], batch_size: int
) -> None:
    model, folder = exported
    given = asked(model, features)
    onnx = OnnxPredictor(folder, threads=1)
    without = [keep_mentions(feature, []) for feature in given]
    told = predict_raw(model, given, onnx.collate, batch_size=batch_size)
    untold = predict_raw(model, without, onnx.collate, batch_size=batch_size)
    assert furthest(told, untold) > 1e-3  # knowledge is let in
    assert furthest(onnx.logits(given, batch_size=batch_size), told) < 1e-4
    assert furthest(onnx.logits(without, batch_size=batch_size), untold) < 1e-4


def test_the_integer_graph_is_smaller_and_gives_nearly_the_same_logits(
    exported: Exported, features: list[dict[str, Any]]
) -> None:
    model, folder = exported
    given = asked(model, features)
    exact, rounded = (OnnxPredictor(folder, int8=int8, threads=1).logits(given) for int8 in (False, True))
    spread = max(float(np.ptp(row, axis=-1).max()) for row in exact)
    assert 0 < furthest(exact, rounded) < 0.1 * spread
    sure = [np.sort(row, axis=-1)[..., -1] - np.sort(row, axis=-1)[..., -2] > 0.1 * spread for row in exact]
    for one, other, clear in zip(exact, rounded, sure, strict=True):
        assert ((one.argmax(-1) == other.argmax(-1)) | ~clear).all()


def test_another_table_changes_what_the_graph_answers_as_it_changes_the_model(
    exported: Exported, features: list[dict[str, Any]]
) -> None:
    model, folder = exported
    given, onnx, own = asked(model, features), OnnxPredictor(folder, threads=1), model.entity_table
    before = onnx.logits(given)
    other = dataclasses.replace(own, vectors=own.vectors.flip(0))
    try:
        model.set_table(other)
        onnx.set_table(other)
        assert furthest(onnx.logits(given), before) > 1e-3
        assert furthest(onnx.logits(given), predict_raw(model, given, onnx.collate)) < 1e-4
    finally:
        model.set_table(own)


def test_a_folder_without_an_export_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"holds no model.int8.onnx; run: python -m models.export .* --int8"):
        OnnxPredictor(tmp_path, int8=True)
    (tmp_path / "mine.txt").write_text("mine")
    assert main([str(tmp_path / "run"), "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no export" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) != 0
    assert "not a run folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.neo4j
def test_the_command_exports_the_model_of_a_run(finetuned: Path, tmp_path: Path) -> None:
    assert main([str(finetuned), "--task", "names", "--out", str(tmp_path / "out"), "--int8"]) == 0
    about = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert about["task"] == "names"
    assert {"O", "B-ORG"} <= set(about["labels"])
    assert (tmp_path / "out" / INT8).stat().st_size > 10_000
    assert OnnxPredictor(tmp_path / "out").labels == tuple(about["labels"])
