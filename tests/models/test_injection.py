"""A fused model of any architecture is the plain one until it is given knowledge and its gates open."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kg.errors import ConfigError
from models.entity_table import EntityTable
from models.fusion import KNOWLEDGE_KEYS, FusionConfig
from models.injection import FusedBlock, inject_knowledge, knowledge_of, plain_inputs, set_table
from tests.models.tiny import (
    FUSION,
    MODELS,
    TABLE,
    answer,
    attentions,
    open_gates,
    tiny_inputs,
    tiny_knowledge,
    tiny_model,
)

ARCHITECTURES = pytest.mark.parametrize("kind", list(MODELS))


def fused_model(kind: str, *, opened: bool = False, seed: int = 0) -> PreTrainedModel:
    model = inject_knowledge(tiny_model(kind, seed=seed), TABLE, fusion=FUSION)
    if opened:
        open_gates(model)
    return model


@ARCHITECTURES
def test_without_knowledge_a_fused_model_computes_what_the_plain_one_does_to_the_bit(kind: str) -> None:
    plain = tiny_model(kind)
    fused = inject_knowledge(copy.deepcopy(plain), TABLE, fusion=FUSION)
    expected = answer(plain, **tiny_inputs(kind))
    assert torch.equal(answer(fused, **tiny_inputs(kind)), expected)
    open_gates(fused)
    assert torch.equal(answer(fused, **tiny_inputs(kind)), expected)


@ARCHITECTURES
def test_with_knowledge_and_closed_gates_too(kind: str) -> None:
    plain = tiny_model(kind)
    fused = inject_knowledge(copy.deepcopy(plain), TABLE, fusion=FUSION)
    inputs = tiny_inputs(kind)
    assert torch.equal(answer(fused, **inputs, **tiny_knowledge()), answer(plain, **inputs))


@ARCHITECTURES
def test_an_open_gate_changes_the_texts_with_mentions_and_only_those(kind: str) -> None:
    fused, inputs = fused_model(kind, opened=True), tiny_inputs(kind)
    before, after = answer(fused, **inputs), answer(fused, **inputs, **tiny_knowledge())
    assert torch.equal(after[1], before[1])
    assert not torch.allclose(after[0], before[0], atol=1e-6)
    assert not torch.allclose(after[2], before[2], atol=1e-6)
    assert torch.isfinite(after).all()


@ARCHITECTURES
def test_knowledge_reaches_the_block_after_the_first_chosen_one_and_none_before(kind: str) -> None:
    fused = fused_model(kind, opened=True)
    key = "encoder_hidden_states" if kind == "t5" else "hidden_states"
    with torch.no_grad():
        before = fused(**tiny_inputs(kind), output_hidden_states=True)
        after = fused(**tiny_inputs(kind), **tiny_knowledge(), output_hidden_states=True)
    changed = [not torch.equal(x, y) for x, y in zip(before[key], after[key], strict=True)]
    # the embeddings, then what each block itself computed: transformers records that before knowledge is added
    assert changed == [False, False, False, True, True]


@ARCHITECTURES
def test_the_output_tells_what_each_fused_layer_read_and_a_plain_pass_nothing(kind: str) -> None:
    fused = fused_model(kind, opened=True)
    output = fused(**tiny_inputs(kind), **tiny_knowledge())
    assert sorted(output.knowledge) == list(FUSION.layers)
    assert knowledge_of(output) is output.knowledge
    for read in output.knowledge.values():
        assert read.candidate_weights.shape == (3, 2, 3)
        assert read.reading.shape == (3, 7, 2)
        assert read.gate.shape == (3, 7)
    assert knowledge_of(fused(**tiny_inputs(kind))) == {}


def test_texts_of_which_none_has_a_mention_are_read_plainly() -> None:
    fused = fused_model("bert", opened=True)
    none = {key: value[:, :0] if key != "token_mentions" else value * 0 for key, value in tiny_knowledge().items()}
    output = fused(**tiny_inputs("bert"), **none)
    assert knowledge_of(output) == {}
    assert torch.equal(output.logits, answer(fused, **tiny_inputs("bert")))


def test_shared_weights_have_an_attention_of_their_own_for_each_use() -> None:
    fused = fused_model("albert", opened=True)
    assert len(attentions(fused)) == len(FUSION.layers)
    before = answer(fused, **tiny_inputs("albert"), **tiny_knowledge())
    nn.init.zeros_(attentions(fused)[1].opening)
    assert not torch.equal(answer(fused, **tiny_inputs("albert"), **tiny_knowledge()), before)


@pytest.mark.parametrize("layers", [(4,), (-1,), (1, 9), ()])
def test_layers_that_the_model_does_not_have_are_refused_and_it_stays_plain(layers: tuple[int, ...]) -> None:
    model = tiny_model("bert")
    with pytest.raises(ConfigError, match=r"BertForSequenceClassification has 0 to 3; set fusion.layers"):
        inject_knowledge(model, TABLE, layers=layers)
    assert attentions(model) == []


def test_a_model_is_fused_once() -> None:
    fused = fused_model("bert")
    with pytest.raises(ConfigError, match="has knowledge attention already"):
        inject_knowledge(fused, TABLE, fusion=FUSION)
    assert len(attentions(fused)) == len(FUSION.layers)


@pytest.mark.parametrize("missing", KNOWLEDGE_KEYS)
def test_incomplete_knowledge_is_an_error_that_names_what_is_missing_and_the_next_call_works(missing: str) -> None:
    fused, inputs, given = fused_model("bert", opened=True), tiny_inputs("bert"), tiny_knowledge()
    plain, full = answer(fused, **inputs), answer(fused, **inputs, **given)
    partial = {key: value for key, value in given.items() if key != missing}
    with pytest.raises(ValueError, match=f"knowledge is given without {missing}"):
        fused(**inputs, **partial)
    assert torch.equal(answer(fused, **inputs), plain)
    assert torch.equal(answer(fused, **inputs, **given), full)


def test_a_pass_that_fails_leaves_no_knowledge_behind() -> None:
    fused, inputs = fused_model("bert", opened=True), tiny_inputs("bert")
    plain = answer(fused, **inputs)
    with pytest.raises(IndexError):
        fused(input_ids=inputs["input_ids"] + 1000, **tiny_knowledge())
    assert torch.equal(answer(fused, **inputs), plain)


def gradients(model: PreTrainedModel, kind: str) -> dict[str, Tensor]:
    model.train()
    torch.manual_seed(0)  # of dropout
    output = model(**tiny_inputs(kind), **tiny_knowledge())
    (output.logits if "logits" in output else output.last_hidden_state).square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "albert"])  # which does not support it
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")  # its new name is too new
def test_gradient_checkpointing_gives_the_same_gradients(kind: str) -> None:
    stored, checkpointed = fused_model(kind, opened=True), fused_model(kind, opened=True)
    checkpointed.load_state_dict(stored.state_dict())
    checkpointed.config.use_cache = False
    checkpointed.gradient_checkpointing_enable()
    blocks = [module.block for module in checkpointed.modules() if isinstance(module, FusedBlock)]
    assert all(block.gradient_checkpointing for block in blocks)
    expected, found = gradients(stored, kind), gradients(checkpointed, kind)
    assert set(found) == set(expected)
    assert any("knowledge_attention" in name and grad.abs().max() > 0 for name, grad in found.items())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


class Pair(nn.Module):
    """Two fused models in one; the inner one is called while the outer one runs."""

    def __init__(self, outer: PreTrainedModel, inner: PreTrainedModel) -> None:
        super().__init__()
        self.outer, self.inner = outer, inner
        self.inner_logits: Tensor | None = None
        blocks = outer.bert.encoder.layer
        blocks[1].register_forward_hook(self.call_inner)

    def call_inner(self, *_: object) -> None:
        self.inner_logits = answer(self.inner, **tiny_inputs("bert"))


def test_a_fused_model_called_within_another_one_sees_none_of_its_knowledge() -> None:
    outer, inner = fused_model("bert", opened=True), fused_model("bert", opened=True, seed=1)
    expected = answer(outer, **tiny_inputs("bert"), **tiny_knowledge())
    alone = answer(inner, **tiny_inputs("bert"))
    pair = Pair(outer, inner)
    assert torch.equal(answer(pair.outer, **tiny_inputs("bert"), **tiny_knowledge()), expected)
    assert torch.equal(pair.inner_logits, alone)


@pytest.mark.parametrize("shared", [True, False], ids=["one model", "two models"])
def test_threads_that_run_fused_models_at_once_do_not_mix_their_knowledge(shared: bool) -> None:
    first = fused_model("bert", opened=True)
    second = first if shared else fused_model("bert", opened=True, seed=1)
    inputs, given = tiny_inputs("bert"), tiny_knowledge()
    calls = [(first, given), (second, {})]
    expected = [answer(model, **inputs, **knowledge) for model, knowledge in calls]
    barrier = threading.Barrier(2)

    def wait() -> None:
        barrier.wait(timeout=20)

    for model in {id(model): model for model, _ in calls}.values():  # both are in the middle of a pass at once
        model.bert.encoder.layer[0].register_forward_hook(lambda *_: wait())

    def passes(number: int) -> list[Tensor]:
        model, knowledge = calls[number]
        return [answer(model, **inputs, **knowledge) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        for number, found in enumerate(pool.map(passes, (0, 1))):
            assert all(torch.equal(logits, expected[number]) for logits in found)


def test_a_table_of_another_width_is_refused_and_one_of_the_same_width_is_read() -> None:
    fused, inputs = fused_model("bert", opened=True), {**tiny_inputs("bert"), **tiny_knowledge()}
    before = answer(fused, **inputs)
    with pytest.raises(ConfigError, match="reads vectors of 8, the table has 9"):
        set_table(fused, EntityTable.random(num_entities=10, dim=9))
    assert torch.equal(answer(fused, **inputs), before)
    set_table(fused, EntityTable.random(num_entities=10, dim=8, seed=4))
    assert not torch.equal(answer(fused, **inputs), before)
    set_table(fused, TABLE)
    assert torch.equal(answer(fused, **inputs), before)


def test_layers_can_be_named_without_a_fusion_config() -> None:
    fused = inject_knowledge(tiny_model("bert"), TABLE, layers=(0, 3))
    open_gates(fused)
    assert sorted(knowledge_of(fused(**tiny_inputs("bert"), **tiny_knowledge()))) == [0, 3]


def test_a_model_without_a_list_of_blocks_is_refused() -> None:
    model = tiny_model("bert")
    model.config.num_hidden_layers = 3
    with pytest.raises(ConfigError, match="has no list of 3 blocks"):
        inject_knowledge(model, TABLE, fusion=FusionConfig(layers=(1,), dim=16))


def test_a_copy_of_a_fused_model_is_a_fused_model() -> None:
    fused = fused_model("bert", opened=True)
    copied = copy.deepcopy(fused)
    inputs = {**tiny_inputs("bert"), **tiny_knowledge()}
    assert torch.equal(answer(copied, **inputs), answer(fused, **inputs))
    open_gates(copied, 0.0)
    assert not torch.equal(answer(copied, **inputs), answer(fused, **inputs))


def test_plain_inputs_are_the_inputs_without_knowledge() -> None:
    inputs = tiny_inputs("bert")
    assert plain_inputs({**inputs, **tiny_knowledge()}).keys() == inputs.keys()
