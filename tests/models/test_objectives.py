"""Each kind of task is learned, answered and explained; its figures are those computed by hand."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from transformers import BertModel, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from kg.errors import ConfigError, UserError
from models.base import load_base, load_tokenizer, quiet
from models.batch import PARTS, KnowledgeCollator, KnowledgeEncoder
from models.examples import Example, Mention
from models.objectives import KINDS, METRICS, Objective, objective_for, objective_of
from models.objectives.answers import best_span
from models.predictor import Predictor
from models.proof import score
from models.recipe import Task
from models.stages.arms import is_fresh
from models.trainer import fit
from models.training import Training
from tests.builders import COMPANIES
from tests.models.tiny import FUSION, TABLE, open_gates, tiny_base, tiny_encoder

ROSE, FELL = "{} rose in week {}.", "{} fell in week {}."


def texts(make: Callable[[str, str, bool, int], Example], weeks: int = 2) -> list[Example]:
    return [
        make(company, (ROSE if up else FELL).format(company, week), up, week)
        for week in range(weeks)
        for company in COMPANIES
        for up in (True, False)
    ]


def tagged(company: str, text: str, up: bool, week: int) -> Example:
    words = tuple(text.replace(".", " .").split())
    tags = tuple("B-ORG" if i == 0 else "I-ORG" if i == 1 else "O" for i in range(len(words)))
    return Example(id=text, text=text, words=words, tags=tags)


def related(company: str, text: str, up: bool, week: int) -> Example:
    head = Mention(start=0, end=len(company), entity=f"ex:{COMPANIES.index(company)}")
    return Example(
        id=text,
        text=text,
        label="up" if up else "down",
        pair=(head, Mention(start=len(text) - 2, end=len(text) - 1, entity=None)),
    )


MAKERS: dict[str, Callable[[str, str, bool, int], Example]] = {
    "sequence_classification": lambda c, t, up, w: Example(id=t, text=t, label="up" if up else "down"),
    "multi_label_classification": lambda c, t, up, w: Example(
        id=t, text=t, labels=(*(["up"] if up else []), *(["bank"] if "Bank" in c else []))
    ),
    "regression": lambda c, t, up, w: Example(id=t, text=t, value=50.0 if up else 10.0),
    "pair_classification": lambda c, t, up, w: Example(id=t, text=t, second=f"{c} rose.", label="yes" if up else "no"),
    "token_classification": tagged,
    "relation_classification": related,
    "question_answering": lambda c, t, up, w: Example(
        id=t, text=t, second="Who rose?", answers=((0, c),) if up else ()
    ),
    "multiple_choice": lambda c, t, up, w: Example(
        id=t, text=t, second="It", choices=("rose", "slept", "fell", "sang")[w % 2 : 2 + w % 2 * 2], label="slept"
    ),
    "extractive_summarization": lambda c, t, up, w: Example(
        id=t, text=f"{t} It rained." if w % 2 else f"It rained. {t}", target=t
    ),
    "seq2seq_generation": lambda c, t, up, w: Example(id=t, text=t, target="rose" if up else "fell"),
    "causal_generation": lambda c, t, up, w: Example(id=t, text=t, target="up" if up else "down"),
}
ASKED: dict[str, dict[str, Any]] = {
    "pair_classification": {"second": "Acme Bank rose."},
    "question_answering": {"second": "Who rose?"},
    "multiple_choice": {"second": "It", "choices": ("rose", "slept", "fell", "sang")},
}
ANSWERS = {
    "sequence_classification": "up",
    "multi_label_classification": "bank, up",
    "regression": 50.0,
    "pair_classification": "yes",
    "token_classification": "Acme Bank:ORG",
    "relation_classification": "up",
    "question_answering": "Acme Bank",
    "multiple_choice": "slept",
    "extractive_summarization": "Acme Bank rose in week 1.",
    "seq2seq_generation": "rose",
    "causal_generation": "up",
}
LIKE_T5 = "seq2seq_generation, T5"
FAST = ("multiple_choice", "question_answering")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("objectives"), max_length=32)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny base of each family, with MiniLM's vocabulary."""
    folder = tmp_path_factory.mktemp("bases")
    tokenizer = load_tokenizer("minilm")
    found = {"bert": tiny_base(folder / "bert", BertModel)}
    torch.manual_seed(0)
    size = len(tokenizer)
    gpt2 = GPT2Config(
        vocab_size=size, n_embd=32, n_layer=4, n_head=2, n_positions=64, bos_token_id=101, eos_token_id=102
    )
    t5 = T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=4,
        num_heads=2,
        decoder_start_token_id=0,
        eos_token_id=102,
    )
    for name, model in (("gpt2", GPT2LMHeadModel(gpt2)), ("t5", T5ForConditionalGeneration(t5))):
        with quiet():
            model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        found[name] = str(folder / name)
    return found


def base_of(case: str, bases: dict[str, str]) -> str:
    return bases["gpt2" if case == "causal_generation" else "t5" if case == LIKE_T5 else "bert"]


def train(objective: Objective, model: Any, features: list[dict[str, Any]], collate: Any, folder: Path) -> list[float]:
    steps, rate = (150, 5e-3) if objective.writes or not objective.needs else (90, 1e-2)
    training = Training(max_steps=steps, batch_size=8, learning_rate=rate, head_learning_rate=rate, warmup_ratio=0.05)
    loss = objective.loss(features, balanced=False)
    done = fit(model, features, collate, training, seed=0, folder=folder, is_fresh=is_fresh, loss=loss)
    return [value for _, value in done.losses]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case in FAST else pytest.mark.slow)  # all of them take a minute of one core
        for case in (*KINDS, LIKE_T5)
    ],
)
def test_a_kind_is_learned_saved_answered_and_explained(
    case: str, encoder: KnowledgeEncoder, bases: dict[str, str], tmp_path: Path
) -> None:
    kind = case.partition(",")[0]
    examples = texts(MAKERS[kind])
    objective = objective_for(kind, examples)
    features = objective.encode(examples, encoder)
    collate = KnowledgeCollator(tokenizer=encoder.tokenizer)
    torch.manual_seed(0)
    with quiet():
        model = objective.kgbert_class.from_base(base_of(case, bases), TABLE, fusion=FUSION, **objective.options())
    open_gates(model)
    losses = train(objective, model, features, collate, tmp_path / "train")
    assert losses[-1] < 0.3 * losses[0]
    outputs = objective.predict(model, features, collate)
    chosen = objective.calibrated(outputs, features, examples)
    scored = chosen.score(chosen.answers(outputs, features, examples), examples)
    assert scored.metrics[objective.main_metric] > 0.9
    assert set(scored.metrics) <= set(METRICS)
    assert float(score(scored.counts[None])[0]) == pytest.approx(scored.metrics[objective.main_metric], abs=1e-6)

    model.config.objective = chosen.state()
    with quiet():
        model.save_pretrained(tmp_path / "model")
        again = objective.kgbert_class.from_pretrained(tmp_path / "model")
    same = objective_of(kind, again.config)
    assert same.state() == chosen.state()
    for first, second in zip(outputs, same.predict(again, features, collate), strict=True):
        if objective.writes:
            assert first == second
        else:  # memory is aligned anew, and sums round by that
            np.testing.assert_allclose(first, second, atol=1e-5)

    predictor = Predictor(again, encoder, Task(name="t", kind=kind, reader="table", path="p"))  # type: ignore[arg-type]
    text = "@ Acme Bank @ rose in week # 1 #." if kind == "relation_classification" else "Acme Bank rose in week 1."
    answer = predictor.predict(text, **ASKED.get(kind, {}), words=objective.explains_words)
    assert (
        (answer.value == pytest.approx(ANSWERS[kind], abs=8)) if kind == "regression" else answer.said == ANSWERS[kind]
    )
    assert [answer.links[reason.link].text for reason in answer.reasons] == ["Acme Bank"] * (
        1 + (kind == "pair_classification")
    )
    assert answer.reasons[0].facts
    assert answer.reasons[0].gate > 0
    if len(answer.reasons) == 1:  # one mention alone is all knowledge
        assert answer.influence == answer.reasons[0].influence
        assert answer.without_knowledge == answer.reasons[0].without
    assert json.loads(json.dumps(answer.as_json()))["said"] == answer.said


def test_every_kind_of_a_recipe_has_an_objective_and_every_figure_a_definition() -> None:
    assert set(get_args(get_type_hints(Task)["kind"])) == set(KINDS)
    assert {kind.main_metric for kind in KINDS.values()} <= set(METRICS)


def test_a_long_text_is_read_in_windows_and_each_knows_its_answer(encoder: KnowledgeEncoder) -> None:
    text = " ".join(f"In week {week} Borealis Insurance rose." for week in range(12)) + " Acme Bank fell."
    example = Example(id="1", text=text, second="Who fell?", answers=((text.index("Acme"), "Acme Bank"),))
    other = Example(id="2", text="Nobody fell.", second="Who rose?")
    objective = objective_for("question_answering", [example, other])
    features = objective.encode([example, other], encoder)
    assert [feature["example"] for feature in features] == [0] * (len(features) - 1) + [1]
    assert len(features) > 3
    said = []
    for feature in features:
        first, last = feature["answer_positions"]
        start, end = feature["offsets"][first][0], feature["offsets"][last][1]
        said.append(text[start:end] if last else "")
    assert said == [""] * (len(features) - 2) + ["Acme Bank", ""]
    # the best answer of all windows, and the least that any gives to silence
    outputs = [np.zeros((len(feature["input_ids"]), 2), dtype=np.float32) for feature in features]
    first, last = features[-2]["answer_positions"]
    outputs[-2][first, 0] = outputs[-2][last, 1] = 2.0
    outputs[0][0] = 5.0
    outputs[-1][0] = 1.0
    assert objective.answers(outputs, features, [example, other]) == ["Acme Bank", ""]
    outputs[-1][0] = -1.0
    chosen = objective.calibrated(outputs, features, [example, other])
    assert objective.answers(outputs, features, [example, other])[1] != ""
    assert chosen.answers(outputs, features, [example, other]) == ["Acme Bank", ""]


def test_a_long_text_is_answered_as_it_was_measured(encoder: KnowledgeEncoder, bases: dict[str, str]) -> None:
    verbs = ("rose", "was sold", "fell in May", "paid")
    examples = [
        Example(id=str(n), text=" ".join(f"{name} {verbs[n * week % 4]}." for week in range(15)), second="Who rose?")
        for n, name in enumerate(COMPANIES)
    ]
    objective = KINDS["question_answering"]()
    torch.manual_seed(0)
    model = objective.kgbert_class.from_base(bases["bert"], TABLE, fusion=FUSION)
    model.model.qa_outputs.weight.data *= 30  # windows are to differ in what they give to silence
    features = objective.encode(examples, encoder)
    outputs = objective.predict(model, features, KnowledgeCollator(tokenizer=encoder.tokenizer))
    said = []
    for number, example in enumerate(examples):
        own = [(row, feature) for row, feature in zip(outputs, features, strict=True) if feature["example"] == number]
        assert len(own) > 2
        scores = [best_span(row, feature["offsets"], len(example.text))[0] for row, feature in own]
        margin = max(scores) - min(float(row[0].sum()) for row, _ in own)
        for threshold in (margin - 0.01, margin + 0.01):
            chosen = dataclasses.replace(objective, threshold=threshold)
            model.config.objective = chosen.state()
            predictor = Predictor(model, encoder, Task(name="t", kind="question_answering", reader="table", path="p"))
            said.append(predictor.predict(example.text, second=example.second).said)
            assert said[-1] == chosen.answers(outputs, features, examples)[number]
    assert [bool(one) for one in said] == [True, False] * len(examples)


def test_a_question_longer_than_a_window_is_cut(encoder: KnowledgeEncoder) -> None:
    (feature,) = encoder.encode_pair("Acme Bank.", "who " * 100, [], windows=True)
    assert len(feature["input_ids"]) <= encoder.max_length
    assert "acme" in encoder.tokenizer.decode(feature["input_ids"])


def test_mentions_of_a_pair_are_found_on_both_sides(encoder: KnowledgeEncoder) -> None:
    ((feature,),) = encoder.encode_pairs([("Acme Bank rose.", "Did Corvus Fund?")])
    pieces = encoder.tokenizer.convert_ids_to_tokens(feature["input_ids"])
    covered = [
        [piece for piece, mention in zip(pieces, feature["token_mentions"], strict=True) if mention == number]
        for number in (1, 2)
    ]
    assert ["".join(words).replace("##", "") for words in covered] == ["acmebank", "corvusfund"]
    of_text, of_second = (pieces.index(words[0]) for words in covered)
    assert of_second < of_text
    assert [feature["token_type_ids"][place] for place in (of_second, of_text)] == [0, 1]


def test_a_decoder_learns_from_the_target_alone(encoder: KnowledgeEncoder) -> None:
    examples = [Example(id="1", text="Acme Bank rose " * 30, second="Why?", target="up")]
    objective = objective_for("causal_generation", examples)
    (feature,) = objective.encode(examples, encoder)
    asked = [token for token in feature["labels"] if token != -100]
    assert encoder.tokenizer.decode(asked) == "up [SEP]"
    assert feature["input_ids"][-2:] == asked
    assert "why" in encoder.tokenizer.decode(feature["input_ids"])  # the text is cut, not what is put to it
    prompt = objective.prompts([feature], KnowledgeCollator(tokenizer=encoder.tokenizer))  # type: ignore[attr-defined]
    assert prompt["input_ids"][0].tolist() == feature["input_ids"][:-2]


def test_choices_of_unlike_number_are_weighed_within_each_example(encoder: KnowledgeEncoder) -> None:
    examples = [
        Example(id="1", text="Acme Bank", second="is", choices=("up", "down"), label="down"),
        Example(id="2", text="Acme Bank", second="is", choices=("up", "down", "Corvus Fund"), label="up"),
    ]
    objective = objective_for("multiple_choice", examples)
    features = objective.encode(examples, encoder)
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(features)
    assert batch["labels"].tolist() == [[0, 1, -100], [1, 0, 0]]
    assert len(batch["input_ids"]) == 5
    logits = torch.tensor([[1.0], [3.0], [0.5], [0.0], [2.0]])
    loss = objective.loss(features, balanced=False)
    assert loss is not None
    expected = -(torch.log_softmax(logits[:2, 0], 0)[1] + torch.log_softmax(logits[2:, 0], 0)[0]) / 2
    assert loss(SimpleNamespace(logits=logits), batch["labels"]) == pytest.approx(float(expected))
    assert objective.answers([logits[:2], logits[2:]], features, examples) == ["down", "Corvus Fund"]
    links = [part["mention_links"] for part in features[1][PARTS]]
    assert links == [[0], [0], [0, 1]]


def test_what_a_kind_needs_is_asked_of_the_data_and_of_who_asks(
    encoder: KnowledgeEncoder, bases: dict[str, str]
) -> None:
    example = Example(id="7", text="a", label="x")
    with pytest.raises(ConfigError, match="kind regression needs value of each example; '7' has no value"):
        objective_for("regression", [example])
    with pytest.raises(ConfigError, match="none of its choices"):
        objective_for("multiple_choice", [dataclasses.replace(example, choices=("y", "z"))])
    with pytest.raises(ConfigError, match="sequence_classification reads one text, but example '7' has a second"):
        objective_for("sequence_classification", [dataclasses.replace(example, second="b")])
    objective = objective_for("pair_classification", [dataclasses.replace(example, second="b")])
    model = objective.kgbert_class.from_base(bases["bert"], TABLE, fusion=FUSION, **objective.options())
    predictor = Predictor(model, encoder, Task(name="t", kind="pair_classification", reader="table", path="p"))
    with pytest.raises(UserError, match="asked of a text and a second"):
        predictor.predict("Acme Bank rose.")
    with pytest.raises(UserError, match="cannot use: leave them out"):
        predictor.predict("Acme Bank rose.", second="It did.", choices=["a"])


def test_an_encoder_is_no_decoder(bases: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="bert is no decoder"):
        load_base(bases["bert"], KINDS["causal_generation"].auto_class)
