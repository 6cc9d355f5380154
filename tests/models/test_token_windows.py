"""Tags of texts that are longer than the model reads at once."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from kg.errors import UserError
from models.batch import IGNORED, PARTS, KnowledgeCollator, KnowledgeEncoder
from models.examples import Example
from models.kgbert import KGBertForTokenClassification
from models.objectives import TokenClassification, objective_for
from models.predictor import Predictor
from models.recipe import Task
from tests.models.tiny import FUSION, TABLE, tiny_base, tiny_encoder

TAGS = ("B-ORG", "I-ORG", "O")
TASK = Task(name="names", kind="token_classification", reader="table", path="p")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    encoder = tiny_encoder(tmp_path_factory.mktemp("windows"))
    encoder.max_length = 24
    return encoder


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


def test_a_long_text_is_answered_in_windows_as_a_short_one_is_in_one(encoder: KnowledgeEncoder, tmp_path: Path) -> None:
    objective = TokenClassification(TAGS)
    torch.manual_seed(0)
    model = KGBertForTokenClassification.from_base(
        tiny_base(tmp_path / "base", BertModel), TABLE, fusion=FUSION, **objective.options()
    ).eval()
    model.config.objective = objective.state()
    predictor = Predictor(model, encoder, TASK)
    text = tagged(12).text
    answer = predictor.predict(text)
    assert len(answer.links) == 12
    assert len(answer.reasons) == 12
    assert all(text[span.start : span.end] == span.text for span in answer.spans)
    # the same words and tokens as a run over the words that the text is made of
    (example,) = examples = [tagged(12)]
    features = objective.encode(examples, encoder)
    outputs = objective.predict(model, features, KnowledgeCollator(tokenizer=encoder.tokenizer))
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
