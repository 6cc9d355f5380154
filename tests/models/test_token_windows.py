"""Tags of texts that are longer than the model reads at once."""

import random
from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from transformers import BertModel

from kg.api import create_app
from kg.errors import UserError
from models import serve
from models.base import load_tokenizer
from models.batch import IGNORED, PARTS, KnowledgeCollator, KnowledgeEncoder
from models.examples import Example
from models.explain import as_html, as_lines
from models.kgbert import KGBertForSequenceClassification, KGBertForTokenClassification
from models.mentions import Weights, weigh
from models.objectives import TokenClassification, objective_for
from models.predictor import MAX_REASONS, Predictor
from models.recipe import Task
from tests.models.families import tiny_language_model
from tests.models.tiny import FUSION, TABLE, open_gates, tiny_base, tiny_encoder

TAGS = ("B-ORG", "I-ORG", "O")
TASK = Task(name="names", kind="token_classification", reader="table", path="p")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    encoder = tiny_encoder(tmp_path_factory.mktemp("windows"))
    encoder.max_length = 24
    return encoder


@pytest.fixture(scope="module")
def predictor(encoder: KnowledgeEncoder, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    objective = TokenClassification(TAGS)
    torch.manual_seed(0)
    model = KGBertForTokenClassification.from_base(
        tiny_base(tmp_path_factory.mktemp("base"), BertModel), TABLE, fusion=FUSION, **objective.options()
    )
    open_gates(model)
    model.config.objective = objective.state()
    return Predictor(model, encoder, TASK)


def tagged(weeks: int, number: int = 0) -> Example:
    words = [word for week in range(weeks) for word in ("In", "week", str(week), "Borealis", "Insurance", "rose", ".")]
    tags = ["O", "O", "O", "B-ORG", "I-ORG", "O", "O"] * weeks
    return Example(id=str(number), text=" ".join(words), words=tuple(words), tags=tuple(tags))


def told(objective: TokenClassification, features: list, examples: list[Example]) -> list[list[str]]:
    """The answers of a model that is always right."""
    right = np.eye(len(objective.labels), dtype=np.float32)
    outputs = [right[np.maximum(feature["labels"], 0)] for feature in features]
    return objective.answers(outputs, features, examples)


def test_every_word_of_a_long_text_is_asked_once_and_where_it_has_neighbours(encoder: KnowledgeEncoder) -> None:
    examples = [tagged(12), tagged(1, 1)]
    objective = objective_for("token_classification", examples)
    features = objective.encode(examples, encoder)
    assert [feature["example"] for feature in features] == [0] * (len(features) - 1) + [1]
    assert len(features) > 5
    assert sum(label != IGNORED for feature in features for label in feature["labels"]) == 7 * 13
    assert told(objective, features, examples) == [list(example.tags) for example in examples]
    for left, right in pairwise(features[:-1]):  # no word beside the cut
        assert left["labels"][-2] == right["labels"][1] == IGNORED
    mentions = [bool(feature["mention_entities"]) for feature in features]
    assert all(mentions)


def test_words_of_any_length_are_asked_once(encoder: KnowledgeEncoder) -> None:
    draw = random.Random(0)
    for number in range(30):
        words = tuple(
            "".join(draw.choices("abcdefgh", k=draw.choice((1, 3, 9, 60)))) for _ in range(draw.randint(1, 40))
        )
        tags = tuple(draw.choice(TAGS) for _ in words)
        examples = [Example(id=str(number), text=" ".join(words), words=words, tags=tags)]
        objective = TokenClassification(TAGS)
        features = objective.encode(examples, encoder)
        assert told(objective, features, examples) == [list(tags)]
        assert all(any(label != IGNORED for label in feature["labels"]) for feature in features)


def test_a_word_that_no_token_is_left_of_is_outside(encoder: KnowledgeEncoder) -> None:
    example = Example(id="0", text="", words=("rose", "\u200b", "Acme"), tags=("O", "O", "B-ORG"))
    objective = TokenClassification(TAGS)
    features = objective.encode([example], encoder)
    assert told(objective, features, [example]) == [["O", "O", "B-ORG"]]


def test_a_long_text_is_answered_in_windows_as_a_short_one_is_in_one(
    encoder: KnowledgeEncoder, predictor: Predictor
) -> None:
    text = tagged(12).text
    answer = predictor.predict(text)
    assert len(answer.links) == 12
    assert len(answer.reasons) == 12
    assert all(text[span.start : span.end] == span.text for span in answer.spans)
    # the same words and tokens as a run over the words that the text is made of
    (example,) = examples = [tagged(12)]
    objective = predictor.objective
    features = objective.encode(examples, encoder)
    outputs = objective.predict(predictor.model, features, KnowledgeCollator(tokenizer=encoder.tokenizer))
    (tags,) = objective.answers(outputs, features, examples)
    assert {span.label for span in answer.spans} == {tag[2:] for tag in tags if tag != "O"}
    starts, at = set(), 0
    for word, tag in zip(example.words, tags, strict=True):
        if tag.startswith("B-"):
            starts.add(at)
        at += len(word) + 1
    assert starts <= {span.start for span in answer.spans}
    with pytest.raises(UserError, match=r"read in \d+ windows: ask without words"):
        predictor.predict(text, words=True)
    short = predictor.predict("Acme Bank rose.", words=True)
    assert short.words is not None
    assert PARTS not in answer.as_json()


def test_a_base_that_cannot_tell_what_words_did_says_so_and_answers(encoder: KnowledgeEncoder, tmp_path: Path) -> None:
    base = tiny_language_model("t5", tmp_path)
    objective = objective_for("sequence_classification", [Example(id="", text="", label=label) for label in "ab"])
    fusion = replace(FUSION, layers=(1,))
    model = KGBertForSequenceClassification.from_base(base, TABLE, fusion=fusion, **objective.options())
    model.config.objective = objective.state()
    own = copy(encoder)
    own.tokenizer = load_tokenizer(base)
    answers = Predictor(model, own, replace(TASK, kind="sequence_classification"))
    assert answers.predict("Borealis Insurance rose.").label in ("a", "b")
    with pytest.raises(UserError, match="What each word did is not told with this base"):
        answers.predict("Borealis Insurance rose.", words=True)


def test_of_many_links_those_that_are_let_in_most_get_reasons_and_the_rest_is_counted(predictor: Predictor) -> None:
    text = tagged(MAX_REASONS + 12).text
    answer = predictor.predict(text)
    assert len(answer.links) == MAX_REASONS + 12
    assert answer.unmeasured == 12
    weights: Weights = {}
    for window in predictor.encoder.encode_windows(text, answer.links):
        with torch.inference_mode():
            weigh(weights, predictor.model(**predictor.collate([window])), [window])
    most = sorted(weights, key=lambda link: -weights[link].let_in)[:MAX_REASONS]
    assert sorted(reason.link for reason in answer.reasons) == sorted(most)
    for page in (as_lines(answer), as_html(text, answer)):
        assert "12 more entities are linked" in page


def test_a_text_that_takes_too_long_leaves_the_server_free_and_a_longer_one_is_refused(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "DEADLINE_S", 1)
    router = serve.predict_router({"names": predictor})
    client = TestClient(create_app(router), base_url="http://localhost")
    text = tagged(1500).text[: serve.MAX_IN_WINDOWS]
    assert client.post("/predict", json={"text": text}).status_code == 503
    given_up = monotonic()
    while router.gates[0].busy:
        assert monotonic() < given_up + 20, "it works on for nobody"
        sleep(0.05)
    assert client.post("/predict", json={"text": "Borealis Insurance rose."}).status_code == 200
    refused = client.post("/explain", json={"text": text + "a"})
    assert refused.status_code == 422
    assert f"have {serve.MAX_IN_WINDOWS + 1} characters" in refused.json()["detail"]
