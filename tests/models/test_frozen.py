"""Frozen blocks are computed once; the model that begins above them is the model that runs them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from models.base import load_base
from models.batch import PAIR, KnowledgeCollator, KnowledgeEncoder
from models.classifiers import SequenceClassifier
from models.frozen import STATES, freeze_lower, lower_digest, lower_known, lower_states
from models.injection import find_blocks
from models.kgbert import KGBertForRelationClassification, KGBertModel
from tests.models.families import tiny_language_model
from tests.models.test_relations import OBJECTIVE, OWNED, OWNS
from tests.models.tiny import FUSION, TABLE, answer, open_gates, tiny_base, tiny_encoder

LAYERS = 1


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("frozen"))


@pytest.fixture
def model(tmp_path: Path) -> KGBertModel:
    made = KGBertForRelationClassification.from_base(tiny_base(tmp_path / "base"), TABLE, fusion=FUSION, num_labels=2)
    open_gates(made)
    return made.eval()


def features_of(encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
    return OBJECTIVE.encode([OWNS, OWNED], encoder)


def with_states(features: Sequence[dict[str, Any]], states: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
    return [{**feature, STATES: known} for feature, known in zip(features, states, strict=True)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_beginning_above_frozen_blocks_gives_what_running_them_gives(
    encoder: KnowledgeEncoder, model: KGBertModel, side: str
) -> None:
    features, collate = features_of(encoder), KnowledgeCollator(tokenizer=encoder.tokenizer)
    longer = {**features[1], "input_ids": [*features[1]["input_ids"], 5]}
    longer |= {"attention_mask": [*longer["attention_mask"], 1], "token_mentions": [*longer["token_mentions"], 0]}
    encoder.tokenizer.padding_side = side
    try:
        whole = answer(model, **collate([features[0], longer]))
        states = lower_states(model, [features[0], longer], collate, LAYERS)
        assert [len(rows) for rows in states] == [len(features[0]["input_ids"]), len(longer["input_ids"])]
        with lower_known(model, collate, LAYERS) as collate_known:
            batch = collate_known(with_states([features[0], longer], states))
            assert torch.allclose(answer(model, **batch), whole, atol=2e-2)  # states are kept in bfloat16
            # and they are what it reads: other states, other answers
            batch[STATES] = 3 * batch[STATES].flip(-1)
            assert not torch.allclose(answer(model, **batch), whole, atol=2e-2)
    finally:
        encoder.tokenizer.padding_side = "right"


def test_afterwards_the_model_is_whole_again(encoder: KnowledgeEncoder, model: KGBertModel) -> None:
    features, collate = features_of(encoder), KnowledgeCollator(tokenizer=encoder.tokenizer)
    before, names = answer(model, **collate(features)), list(model.state_dict())
    with pytest.raises(RuntimeError, match="stop"), lower_known(model, collate, LAYERS):
        raise RuntimeError("stop")
    assert torch.equal(answer(model, **collate(features)), before)
    assert list(model.state_dict()) == names


def test_frozen_blocks_get_no_gradient_and_the_others_do(encoder: KnowledgeEncoder, model: KGBertModel) -> None:
    freeze_lower(model, LAYERS)
    features, collate = features_of(encoder), KnowledgeCollator(tokenizer=encoder.tokenizer)
    states = lower_states(model, features, collate, LAYERS)
    with lower_known(model, collate, LAYERS) as collate_known:
        model(**collate_known(with_states(features, states))).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any("word_embeddings" in name or "layer.0." in name for name in trained)
    assert not any(p.requires_grad for name, p in model.named_parameters() if "embeddings." in name)
    assert any("layer.1." in name for name in trained)
    assert any("knowledge_attention" in name for name in trained)
    assert all(key in features[0] for key in ("input_ids", PAIR))


@pytest.mark.parametrize("family", ["roberta", "gpt2", "t5"])
def test_all_that_lies_below_the_blocks_is_frozen_in_every_family(family: str, tmp_path: Path) -> None:
    model = load_base(tiny_language_model(family, tmp_path), SequenceClassifier, num_labels=2)
    freeze_lower(model, LAYERS)
    blocks, _ = find_blocks(model)
    frozen = {id(parameter) for parameter in model.parameters() if not parameter.requires_grad}
    reached: list[torch.Tensor] = []
    handle = blocks[LAYERS].register_forward_pre_hook(lambda _, args: reached.append(args[0]))
    model(input_ids=torch.tensor([[5, 6, 7, model.config.eos_token_id]] * 2), labels=torch.tensor([0, 1]))
    handle.remove()
    assert frozen
    assert reached[0].grad_fn is None  # nothing that is trained was on the way


def test_models_share_what_is_computed_below_only_where_their_weights_are_the_same(
    model: KGBertModel, tmp_path: Path
) -> None:
    before = lower_digest(model, LAYERS)
    torch.nn.init.constant_(model.model.classifier.bias, 7.0)
    assert lower_digest(model, LAYERS) == before
    next(p for name, p in model.named_parameters() if "layer.0." in name).data += 1
    assert lower_digest(model, LAYERS) != before
