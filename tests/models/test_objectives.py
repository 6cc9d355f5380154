"""Each kind of task is learned, answered and explained; its figures are those computed by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from accelerate.utils import extract_model_from_parallel
from transformers import BertModel, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from kg.errors import ConfigError, UserError
from models.base import load_base, load_tokenizer, quiet
from models.batch import PARTS, KnowledgeCollator, KnowledgeEncoder
from models.examples import Example, Mention
from models.objectives import KINDS, METRICS, Objective, objective_for, objective_of
from models.objectives.answers import answer_f1
from models.predictor import Predictor
from models.proof import score
from models.recipe import Task, Training
from models.stages.arms import is_fresh
from models.trainer import fit
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
        id=t, text=t, second="It", choices=("rose", "slept", "fell")[-2 - w % 2 :], label="slept"
    ),
    "seq2seq_generation": lambda c, t, up, w: Example(id=t, text=t, target="up" if up else "down"),
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
    "seq2seq_generation": "up",
    "causal_generation": "up",
}
LIKE_T5 = "seq2seq_generation, T5"


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
    training = Training(max_steps=90, batch_size=8, learning_rate=1e-2, head_learning_rate=1e-2, warmup_ratio=0.05)
    loss = objective.loss(features, balanced=False)
    done = fit(model, features, collate, training, seed=0, folder=folder, is_fresh=is_fresh, loss=loss)
    return [value for _, value in done.losses]


@pytest.mark.parametrize("case", [*KINDS, LIKE_T5])
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
    extract_model_from_parallel(model, keep_fp32_wrapper=False)  # training's bfloat16 is not what is saved
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
    assert 0 < answer.reasons[0].gate
    if len(answer.reasons) == 1:  # one mention alone is all knowledge
        assert answer.influence == answer.reasons[0].influence
        assert answer.without_knowledge == answer.reasons[0].without
    assert json.loads(json.dumps(answer.as_json()))["said"] == answer.said
