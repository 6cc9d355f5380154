"""Summaries made of sentences: which ones are taught, how long texts are read, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest

from models.batch import PARTS, KnowledgeEncoder
from models.cleaning import sentence_spans, sentences
from models.examples import Example
from models.kgbert import KGBertForTokenClassification
from models.objectives import ExtractiveSummary, objective_for
from models.objectives.extraction import SENTENCES, best_sentences
from models.predictor import Predictor
from models.recipe import Task
from tests.models.tiny import FUSION, TABLE, tiny_base, tiny_encoder

TEXT = "Prices rose.\nAcme Bank, e.g. Mr. Smith, sold shares. Borealis Insurance fell by 3.5 points! It rained."


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("extraction"), max_length=22)


@pytest.fixture(scope="module")
def objective() -> ExtractiveSummary:
    made = objective_for("extractive_summarization", [Example(id="a", text="x", target="one two three four")])
    assert isinstance(made, ExtractiveSummary)
    return made


def test_sentences_have_places() -> None:
    said = [TEXT[start:end] for start, end in sentence_spans(TEXT)]
    assert said == [
        "Prices rose.",
        "Acme Bank, e.g. Mr. Smith, sold shares.",
        "Borealis Insurance fell by 3.5 points!",
        "It rained.",
    ]
    assert list(sentences(f" \n{TEXT}\r\n  end ")) == [*said, "end"]
    assert list(sentence_spans(" \n ")) == []


def test_sentences_are_taught_as_long_as_they_add_something() -> None:
    said = ["Money is scarce.", "Prices rise when money is not scarce.", "Weather.", "Scarce money is money."]
    assert sorted(best_sentences(said, "Money is scarce. The weather.")) == [0, 2]
    assert best_sentences(said, "nothing of it") == []


def test_a_long_text_is_read_in_passages_of_sentences(encoder: KnowledgeEncoder, objective: ExtractiveSummary) -> None:
    links = encoder.linker.link_batch([TEXT])[0]
    parts = objective.passages(TEXT, links, encoder)
    assert [sorted(set(part[SENTENCES]) - {-1}) for part in parts] == [[0, 1], [2, 3]]
    for part in parts:
        assert len(part["input_ids"]) == len(part["attention_mask"]) == len(part["token_mentions"])
        assert len(part["input_ids"]) == len(part[SENTENCES]) <= encoder.max_length
        for (start, end), sentence in zip(part["offsets"], part[SENTENCES], strict=True):
            if sentence >= 0:
                first, last = list(sentence_spans(TEXT))[sentence]
                assert first <= start < end <= last
    assert [links[part["mention_links"][0]].text for part in parts] == ["Acme Bank", "Borealis Insurance"]
    pieces = [encoder.tokenizer.convert_ids_to_tokens(part["input_ids"]) for part in parts]
    begun = [
        [TEXT[part["offsets"][i + 1][0] :].split()[0] for i, piece in enumerate(said[:-1]) if piece == "[SEP]"]
        for part, said in zip(parts, pieces, strict=True)
    ]
    assert begun == [["Prices", "Acme"], []]  # the lines that begin there
    one = "word " * 50
    (long,) = objective.passages(one, [], encoder)  # a sentence that is longer than what is read is cut
    assert len(long["input_ids"]) == encoder.max_length
    assert objective.passages("", [], encoder)[0][SENTENCES] == [-1, -1]


def test_the_best_sentences_are_said_in_their_order(encoder: KnowledgeEncoder, objective: ExtractiveSummary) -> None:
    text = "Prices rose today. It rained. Prices rose today again. Acme Bank fell."
    features = [{**part, "example": 7} for part in objective.passages(text, [], encoder)]
    liked = {0: 2.0, 1: -1.0, 2: 1.0, 3: 1.5}
    outputs = [
        np.array([[0.0, liked.get(sentence, 0.0)] for sentence in part[SENTENCES]], dtype=np.float32)
        for part in features
    ]
    (said,) = objective.answers(outputs, features, [Example(id="a", text=text, target="x")])
    assert said == "Prices rose today. Acme Bank fell."  # of four words or more; the third repeats the first


def test_summaries_are_as_long_as_those_of_texts_as_long(encoder: KnowledgeEncoder) -> None:
    train = [Example(id=str(n), text="word " * 10 * n, target="said " * (2 + n)) for n in (1, 2, 3, 5)]
    made = objective_for("extractive_summarization", train)
    assert isinstance(made, ExtractiveSummary)
    text = "One fell. Two fell. Three rose. Four rose. Five fell. Six rose. Seven fell."
    features = [{**part, "example": 0} for part in made.passages(text, [], encoder)]
    outputs = [np.zeros((len(part["input_ids"]), 2), dtype=np.float32) for part in features]
    (said,) = made.answers(outputs, features, [Example(id="a", text=text, target="x")])
    assert len(said.split()) == 4  # 2 + 14 / 10, and a sentence is said whole
    (most,) = made.answers(outputs, features, [Example(id="a", text=text + "\n" + "- " * 900, target="x")])
    assert len(most.split()) <= 8  # none has more than 7


def test_an_answer_names_its_sentences(encoder: KnowledgeEncoder, tmp_path: Path) -> None:
    objective = objective_for("extractive_summarization", [Example(id="a", text="x", target="one two three four")])
    model = KGBertForTokenClassification.from_base(tiny_base(tmp_path), TABLE, fusion=FUSION, **objective.options())
    model.config.objective = objective.state()
    task = Task(name="t", kind="extractive_summarization", reader="table", path="p")
    answer = Predictor(model, encoder, task).predict(TEXT)
    assert answer.said == " ".join(span.text for span in answer.spans)
    assert all(TEXT[span.start : span.end] == span.text for span in answer.spans)
    assert len(answer.said.split()) >= 4
    assert {link.text for link in answer.links} == {"Acme Bank", "Borealis Insurance"}
    assert len(answer.reasons) == 2
    assert PARTS not in answer.as_json()
