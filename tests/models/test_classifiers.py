"""A matrix above an encoder's states: which states it reads, in which families, and after it is saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from models.base import load_base, load_tokenizer
from models.batch import KnowledgeCollator
from models.classifiers import RelationClassifier, SequenceClassifier
from models.kgbert import KGBertConfig, KGBertForSequenceClassification
from tests.models.families import domain_texts, tiny_language_model
from tests.models.tiny import FUSION, TABLE, answer, tiny_base

TOKENS = torch.tensor([[2, 9, 8, 7, 6, 3]])
ENCODERS = ("bert", "roberta", "albert")
OTHERS = ("gpt2", "t5")


def classifier(family: str, folder: Path) -> PreTrainedModel:
    base = tiny_language_model(family, folder / family)
    torch.manual_seed(0)
    return load_base(base, SequenceClassifier, num_labels=3).eval()


def loss(model: PreTrainedModel, labels: Any) -> Tensor:
    with torch.no_grad():
        value: Tensor = model(input_ids=TOKENS.repeat(2, 1), labels=torch.tensor(labels)).loss
    return value


@pytest.mark.parametrize("family", ENCODERS)
def test_a_text_is_read_by_the_mean_of_its_states_whatever_the_padding(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path)
    assert isinstance(model, SequenceClassifier)
    with torch.no_grad():
        states = getattr(model, model.encoder_name)(input_ids=TOKENS).last_hidden_state
        expected = model.classifier(states.mean(1))
    assert torch.allclose(answer(model, input_ids=TOKENS), expected, atol=1e-6)
    pad = torch.full((1, 3), int(model.config.pad_token_id))
    mask = torch.tensor([[1] * 6 + [0] * 3])
    padded = answer(model, input_ids=torch.cat([TOKENS, pad], 1), attention_mask=mask)
    assert torch.allclose(padded, expected, atol=1e-5)


@pytest.mark.parametrize("family", OTHERS)
def test_decoders_and_encoder_decoders_have_the_head_that_they_have_in_transformers(
    family: str, tmp_path: Path
) -> None:
    model = classifier(family, tmp_path)
    torch.manual_seed(0)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / family, num_labels=3).eval()
    theirs.config.pad_token_id = model.config.pad_token_id  # GPT-2 is published without one
    assert type(model) is type(theirs)
    ended = torch.cat([TOKENS, torch.tensor([[int(model.config.eos_token_id)]])], 1)
    assert torch.equal(answer(model, input_ids=ended), answer(theirs, input_ids=ended))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("family", OTHERS)
def test_texts_of_unlike_length_are_classified_together_as_alone(family: str, fused: bool, tmp_path: Path) -> None:
    model, name = classifier(family, tmp_path), str(tmp_path / family)
    if fused:
        torch.manual_seed(0)
        options = {"fusion": replace(FUSION, layers=(1,)), "num_labels": 3}
        KGBertForSequenceClassification.from_base(name, TABLE, **options).save_pretrained(tmp_path / "saved")
        model = KGBertForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    tokenizer = load_tokenizer(name)
    features = [dict(tokenizer(text)) for text in ("Acme Bank", *domain_texts(3))]
    collate = KnowledgeCollator(tokenizer=tokenizer, with_knowledge=False)
    together = answer(model, **collate(features))
    for feature, row in zip(features, together, strict=True):
        torch.testing.assert_close(answer(model, **collate([feature]))[0], row)


def test_the_loss_is_that_of_the_kind_of_labels(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    many = load_base(base, SequenceClassifier, num_labels=3, problem_type="multi_label_classification").eval()
    logits = answer(many, input_ids=TOKENS.repeat(2, 1))
    wanted = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(
        loss(many, wanted.tolist()), torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    )
    value = load_base(base, SequenceClassifier, num_labels=1, problem_type="regression").eval()
    assert torch.allclose(
        loss(value, [0.5, -1.0]),
        (answer(value, input_ids=TOKENS.repeat(2, 1))[:, 0] - torch.tensor([0.5, -1.0])).square().mean(),
    )
    one = load_base(base, SequenceClassifier, num_labels=3).eval()
    assert torch.allclose(
        loss(one, [2, 0]),
        torch.nn.functional.cross_entropy(answer(one, input_ids=TOKENS.repeat(2, 1)), torch.tensor([2, 0])),
    )


@pytest.mark.parametrize("kind", [SequenceClassifier, RelationClassifier])
def test_the_loss_is_worked_out_in_float32_where_the_model_works_in_bfloat16(kind: Any, tmp_path: Path) -> None:
    model = load_base(tiny_base(tmp_path), kind, num_labels=3).eval().to(torch.bfloat16)
    pair = {"pair_positions": torch.tensor([[1, 3]])} if kind is RelationClassifier else {}
    with torch.no_grad():
        output = model(input_ids=TOKENS, labels=torch.tensor([2]), **pair)
    assert output.logits.dtype == torch.bfloat16
    assert torch.equal(output.loss, torch.nn.functional.cross_entropy(output.logits.float(), torch.tensor([2])))


@pytest.mark.parametrize("auto_class", [SequenceClassifier, AutoModelForSequenceClassification])
def test_a_saved_model_has_the_head_again_that_it_was_saved_with(auto_class: Any, tmp_path: Path) -> None:
    base = load_base(tiny_base(tmp_path / "base"), auto_class, num_labels=3)
    model = KGBertForSequenceClassification(
        KGBertConfig(
            base_config=base.config.to_dict() | {"model_type": "bert"},
            fusion={key: getattr(FUSION, key) for key in FUSION.__dataclass_fields__},
            num_entities=len(TABLE.ids),
            entity_dim=TABLE.dim,
        )
    ).eval()
    assert type(model.model) is type(base)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert type(again.model) is type(base)
    assert torch.equal(answer(again, input_ids=TOKENS), answer(model, input_ids=TOKENS))
    attention = [part.config._attn_implementation for part in (model.model.bert, again.model.bert)]
    assert attention == ["sdpa", "sdpa"]


def test_the_relation_is_read_at_the_two_mentions_alone(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    model, again = (RelationClassifier.from_pretrained(base, num_labels=3).eval() for _ in range(2))
    assert torch.equal(model.get_input_embeddings().weight, again.get_input_embeddings().weight)
    one, other = (answer(model, input_ids=TOKENS, pair_positions=torch.tensor([pair])) for pair in ([1, 3], [3, 1]))
    assert one.shape == (1, 3)
    assert not torch.allclose(one, other)
