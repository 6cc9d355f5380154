"""What is looked up in the training texts, and how models come to read it."""

from pathlib import Path
from typing import Any

import pytest
from transformers import BertModel

from kg.errors import ConfigError, InputError
from models.examples import Example
from models.explain import as_lines
from models.kgbert import KGBertForSeq2SeqLM
from models.objectives import objective_for
from models.predictor import Predictor
from models.recipe import Task, parse_recipe
from models.retrieval import FILE, Memory, with_found
from tests.models.tiny import FUSION, TABLE, tiny_base, tiny_encoder


def written(text: str, target: str, *, second: str = "") -> Example:
    return Example(id=text, text=text, second=second, target=target)


EXAMPLES = [
    written("a lease of land", "Lease."),
    written("leasing the land", "Leasing."),
    written("a loan of money", "Loan."),
    written("lending some money", "Lending."),
]


def test_the_nearest_text_is_found_in_its_other_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.retrieval.AT_ONCE", 1)
    memory = Memory.of(EXAMPLES)
    assert memory.nearest(["leased lands", "moneylending"]) == ["Lease.", "Lending."]
    assert memory.nearest(["a loan of money", "a lease of land"], but=[None, 0]) == ["Loan.", "Leasing."]
    memory.save(tmp_path)
    again = Memory.load(tmp_path)
    assert again.nearest(["leased lands", "moneylending"]) == ["Lease.", "Lending."]
    (tmp_path / FILE).write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="holds no text that could be looked up"):
        Memory.load(tmp_path)


def test_of_the_nearest_what_the_others_agree_with_is_chosen() -> None:
    memory = Memory(
        ["fever and a cough", "a fever and a cough", "fever and the cough", "a broken ankle"],
        ["She came by bus.", "Fever and cough for days.", "Cough and fever for a week.", "Ankle broken for a week."],
    )
    asked = "fever and a cough"
    assert memory.nearest([asked]) == ["She came by bus."]
    assert memory.agreed([asked]) == ["Fever and cough for days."]  # of the two that agree the nearer one
    assert memory.agreed([asked], but=[2]) == ["She came by bus."]
    assert Memory(["fever"], ["Fever."]).agreed([asked, asked], but=[None, 0]) == ["Fever.", ""]


def test_no_training_text_is_told_its_own_answer() -> None:
    told = with_found(EXAMPLES, [0, 2, 3], Memory.of([EXAMPLES[index] for index in (0, 2, 3)]))
    assert [example.second for example in told] == ["Loan.", "Lease.", "Lending.", "Loan."]
    assert [example.target for example in told] == [example.target for example in EXAMPLES]
    asked = [written("a loan of money", "Loan.", second="What is lent?")]
    assert with_found(asked, [], Memory.of(EXAMPLES))[0].second == "What is lent?\nLoan."


@pytest.mark.parametrize("changes", [{"kind": "regression"}, {"shots": [5]}, {"folds": 3}])
def test_looking_up_is_for_writing_from_all_training_texts(changes: dict[str, Any]) -> None:
    task = {"name": "t", "kind": "seq2seq_generation", "reader": "table", "path": "p", "retrieve": True}
    graph = {"source": "rdf", "paths": ["x"], "source_id": "x"}
    whole = {"name": "n", "summary": "s", "graph": graph, "tasks": [task]}
    assert parse_recipe(whole, place="here").tasks[0].retrieve
    with pytest.raises(ConfigError, match="task t: retrieve is of generation"):
        parse_recipe({**whole, "tasks": [{**task, **changes}]}, place="here")


def test_an_answer_says_what_was_read_beside_the_text(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    model = KGBertForSeq2SeqLM.from_base(
        tiny_base(tmp_path / "base", BertModel),
        TABLE,
        fusion=FUSION,
        **objective_for("seq2seq_generation", EXAMPLES).options(),
    )
    task = Task(name="t", kind="seq2seq_generation", reader="table", path="p", retrieve=True)
    memory = Memory(["Acme Bank rose.", "rain fell"], ["Borealis Insurance rose.", "It was wet."])
    answer = Predictor(model, encoder, task, memory=memory).predict("Acme Bank is rising.")
    assert answer.retrieved == "Borealis Insurance rose."
    assert [link.text for link in answer.links] == ["Acme Bank", "Borealis Insurance"]
    assert answer.links[1].start == len("Acme Bank is rising.\n")
    assert "near to it: Borealis Insurance rose." in as_lines(answer)
    told = Predictor(model, encoder, task, memory=memory).predict("Acme Bank is rising.", second="When?")
    assert told.links[1].start == len("Acme Bank is rising.\nWhen?\n")
    assert Predictor(model, encoder, task).predict("Acme Bank is rising.").retrieved is None
