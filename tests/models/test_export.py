"""An exported model answers what the model did, whatever the sizes of a batch, and reads a table from outside."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import BertModel

from kg.errors import InputError
from models.bans import Bans
from models.base import quiet
from models.batch import PARTS, KnowledgeEncoder
from models.entity_table import EntityTable
from models.examples import Example, Mention
from models.export import ABOUT, EXPORTED, FULL, INT8, OnnxPredictor, export_model, main
from models.kgbert import KGBertModel
from models.mentions import keep_links
from models.objectives import KINDS, Objective, objective_for
from models.recipe import Task
from models.run import Run
from tests.builders import COMPANIES
from tests.models.test_run import recipe
from tests.models.tiny import FUSION, open_gates, tiny_base, tiny_encoder

TEXTS = (
    "{0} rose and {1} fell.",
    "{0} fell.",
    "Nobody was there to see it, they said.",
    "No.",
    " ".join(["{1} rose again, and nobody knows why."] * 5),
)
"""With two, one and no mentions; the last is longer than the model reads."""
UNTYPED = "pair_classification, no token_type_ids"
FAST = ("sequence_classification", "question_answering")


class Case(NamedTuple):
    """A model, the folder that it was exported to, and what both are asked."""

    model: KGBertModel
    folder: Path
    objective: Objective
    examples: Sequence[Example]
    features: list[dict[str, Any]]


def examples_of(kind: str) -> list[Example]:
    """Each with what any kind predicts, and a second text where this one reads it."""
    examples = []
    for number, text in enumerate(TEXTS):
        said, named = text.format(*COMPANIES), "{" in text
        second = f"Did {COMPANIES[1]} fall?" if named else "Why?"
        head = Mention(start=0, end=1, entity="ex:0" if named else None)
        example = Example(
            id=text,
            text=said,
            second=second if KINDS[kind].reads_second() else "",
            label=COMPANIES[number % 3],
            labels=COMPANIES[: number % 3],
            value=float(number),
            words=tuple(said.split()),
            tags=("B-ORG", *["O"] * said.count(" ")),
            pair=(head, Mention(start=1, end=2, entity=None)),
            choices=COMPANIES[: 3 + number % 2],
            target=said,
        )
        examples.append(example)
    return examples


def fused(objective: Objective, encoder: KnowledgeEncoder, folder: Path) -> KGBertModel:
    vectors = torch.randn(len(encoder.rows) + 2, 8, generator=torch.Generator().manual_seed(1))
    table = EntityTable(tuple(encoder.rows), vectors, encoder.linker.snapshot.hash, "random")
    with quiet():
        model: KGBertModel = objective.kgbert_class.from_base(
            tiny_base(folder, BertModel), table, fusion=FUSION, **objective.options()
        )
    open_gates(model, 0.5)
    model.config.objective = objective.state()
    return model


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in (*EXPORTED, UNTYPED)],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("exported")
    kind = request.param.partition(",")[0]
    encoder = tiny_encoder(folder, max_length=32)
    if request.param == UNTYPED:
        encoder.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    examples = examples_of(kind)
    objective = objective_for(kind, examples)
    features = objective.encode(examples, encoder)
    model = fused(objective, encoder, folder / "base")
    with torch.no_grad():
        *_, head = model.model.children()
        head.weight.mul_(100)  # type: ignore[union-attr, operator]  # logits as a trained model has them
    export_model(
        model.train(), encoder.tokenizer, folder / "onnx", kind=kind, int8=True
    )  # without dropout all the same
    return Case(model, folder / "onnx", objective, examples, features)


def furthest(one: list[Any], other: list[Any]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("size", [1, 3, 9])
def test_the_graph_gives_the_logits_and_answers_of_the_model(case: Case, size: int) -> None:
    onnx = OnnxPredictor(case.folder, threads=1)
    told: list[Any] = []
    for features in (case.features, [keep_links(feature, ()) for feature in case.features]):
        batches = [features[start : start + size] for start in range(0, len(features), size)]
        given = [row for batch in batches for row in onnx.logits(batch)]
        true = [row for batch in batches for row in case.objective.predict(case.model, batch, onnx.collate)]
        assert [row.shape for row in given] == [row.shape for row in true]
        assert furthest(given, true) < 1e-4
        answers = onnx.objective.answers(given, features, case.examples)
        for said, meant in zip(answers, case.objective.answers(true, features, case.examples), strict=True):
            assert said == pytest.approx(meant, abs=1e-4)  # a number, or else a label, tags, words
        assert not told or furthest(told, true) > 1e-3  # knowledge is let in
        told = true


def test_the_graph_takes_a_batch_as_the_model_does(case: Case) -> None:
    onnx = OnnxPredictor(case.folder, threads=1)
    batch = onnx.collate(case.features)
    batch.pop("labels", None)
    with torch.no_grad():
        given, true = onnx(**batch), case.model.eval()(**batch)
    for name in given:
        assert torch.allclose(given[name], true[name], atol=1e-4)
    assert torch.equal(case.objective.raw(given), onnx.objective.raw(given))
    assert set(batch) <= set(onnx.inputs)
    assert ("token_type_ids" in onnx.inputs) == ("token_type_ids" in case.features[0].get(PARTS, case.features)[0])


def test_the_integer_graph_is_smaller_and_gives_nearly_the_same_logits(case: Case) -> None:
    exact, rounded = (OnnxPredictor(case.folder, int8=int8, threads=1).logits(case.features) for int8 in (False, True))
    assert 0 < furthest(exact, rounded) < 0.1 * max(float(np.abs(row).max()) for row in exact)
    assert (case.folder / INT8).stat().st_size < (case.folder / FULL).stat().st_size


def test_another_table_changes_what_the_graph_answers_as_it_changes_the_model(case: Case) -> None:
    onnx, own = OnnxPredictor(case.folder, threads=1), case.model.entity_table
    before = onnx.logits(case.features)
    other = dataclasses.replace(own, vectors=own.vectors.flip(0))
    try:
        case.model.set_table(other)
        onnx.set_table(other)
        given = onnx.logits(case.features)
        assert furthest(given, before) > 1e-3
        assert furthest(given, case.objective.predict(case.model, case.features, onnx.collate)) < 1e-4
    finally:
        case.model.set_table(own)


def test_a_folder_without_an_export_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"holds no model.int8.onnx; run: python -m models.export .* --int8"):
        OnnxPredictor(tmp_path, int8=True)
    for name in (FULL, ABOUT):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=r"export.json: is of an older version and does not say how to read answers"):
        OnnxPredictor(tmp_path)
    for name in (FULL, ABOUT):
        (tmp_path / name).unlink()
    (tmp_path / "mine.txt").write_text("mine")
    assert main([str(tmp_path / "run"), "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no export" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "mine.txt")]) == 2
    assert "mine.txt is a file; name a folder with --out" in capsys.readouterr().err
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) != 0
    assert "not a run folder" in capsys.readouterr().err


def test_a_model_that_writes_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = "seq2seq_generation"
    task = Task(name="plain", kind="seq2seq_generation", reader="table", path="texts.csv")
    run = Run.open(tmp_path / "run", recipe(tasks=(task,)))
    encoder = tiny_encoder(run.path)
    run.update_manifest(snapshot={"path": "snapshot"})
    model = fused(KINDS[kind](), encoder, tmp_path / "base")
    with quiet():
        model.save_pretrained(run.path / "model")
    encoder.tokenizer.save_pretrained(run.path / "model")
    (run.path / "table").mkdir()
    model.entity_table.save(run.path / "table")
    Bans(relations=(), pairs=frozenset(), audit=()).save(run.path / "table")
    assert main([str(run.path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert f"The kind {kind} (plain) writes text, which is not exported; {', '.join(EXPORTED)} are: " in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.neo4j
def test_the_command_exports_the_model_of_a_run(finetuned: Path, tmp_path: Path) -> None:
    assert main([str(finetuned), "--task", "names", "--out", str(tmp_path / "out"), "--int8"]) == 0
    about = json.loads((tmp_path / "out" / ABOUT).read_text(encoding="utf-8"))
    assert (about["task"], about["kind"]) == ("names", "token_classification")
    assert {"O", "B-ORG"} <= set(about["objective"]["labels"])
    assert (tmp_path / "out" / INT8).stat().st_size > 10_000
    assert OnnxPredictor(tmp_path / "out").objective.labels == tuple(about["objective"]["labels"])
