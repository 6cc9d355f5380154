"""What is written may be copied: the mixture is a distribution, its loss is of it, unseen words are copied."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM, BertModel

from models.base import load_base, load_tokenizer, quiet
from models.batch import IGNORED, KnowledgeCollator
from models.kgbert import KGBertForMaskedLM, KGBertForSeq2SeqLM, KGBertModel
from models.pointer_generator import PointerGenerator
from models.stages.arms import is_fresh, take_over
from models.trainer import fit
from models.training import Training
from tests.models.tiny import FUSION, TABLE, tiny_base

BATCH = {
    "input_ids": torch.tensor([[101, 2003, 2010, 2003, 102, 0], [101, 3000, 3001, 3002, 3003, 102]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0], [1] * 6]),
}
WRITTEN = torch.tensor([[2003, 2010, 102, IGNORED], [3003, 5000, 2003, 102]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_base(tmp_path_factory.mktemp("base") / "bert", BertModel)


@pytest.fixture
def model(base: str) -> Any:
    torch.manual_seed(0)
    made = load_base(base, AutoModelForSeq2SeqLM)
    assert isinstance(made, PointerGenerator)
    return made.eval()


def test_the_mixture_is_a_distribution_that_gives_weight_to_what_stands_in_the_source(model: Any) -> None:
    with torch.no_grad():
        chances = model(**BATCH, labels=WRITTEN).logits.exp()
    torch.testing.assert_close(chances.sum(-1), torch.ones(2, 4), atol=1e-3, rtol=0)
    for row, ids in enumerate(BATCH["input_ids"]):
        copied = chances[row, :, ids[BATCH["attention_mask"][row].bool()].unique()].sum(-1)
        assert (copied > 0.2).all(), "the share of copying begins near a half"
    assert (chances[0, :, 0] < 0.01).all(), "padding is not copied"


def test_a_copy_goes_on_where_it_is(model: Any) -> None:
    source = torch.tensor([[101, 3000, 3001, 3002, 3003, 102]])
    with torch.no_grad():
        chances = model(input_ids=source, decoder_input_ids=source[:, :-1]).logits.exp()[0]
        model.copy_on.zero_()
        without = model(input_ids=source, decoder_input_ids=source[:, :-1]).logits.exp()[0]
    following = source[0, 1:]
    went_on, before = (given.gather(1, following[:, None])[:, 0] for given in (chances, without))
    assert (went_on[1:] > 2 * before[1:]).all()
    torch.testing.assert_close(chances[0], without[0])  # a start stands before every text


def test_the_loss_in_training_is_that_of_the_mixture(model: Any) -> None:
    output = model(**BATCH, labels=WRITTEN)
    kept = WRITTEN != IGNORED
    expected = -output.logits[kept].gather(1, WRITTEN[kept][:, None]).mean()
    torch.testing.assert_close(output.loss, expected)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.testing.assert_close(model(**BATCH, labels=WRITTEN).loss, expected)


def test_generate_writes_what_the_mixture_says_token_by_token_with_beams_and_after_reloading(
    model: Any, tmp_path: Path
) -> None:
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    written = model.generate(**BATCH, **options)
    with torch.no_grad():
        forced = model(**BATCH, decoder_input_ids=written[:, :-1]).logits.argmax(-1)
    assert torch.equal(forced, written[:, 1:])
    assert model.generate(**BATCH, num_beams=3, **options).shape == written.shape
    with quiet():
        model.save_pretrained(tmp_path)
        loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.generate(**BATCH, **options), written)


def test_words_that_training_never_showed_are_copied(model: Any, tmp_path: Path) -> None:
    def of(word: int) -> dict[str, Any]:
        ids = [101, 2171, word, 2003, 102]  # "name <word> is"
        return {"input_ids": ids, "attention_mask": [1] * 5, "labels": [word, 102]}

    words = torch.randperm(20_000, generator=torch.Generator().manual_seed(0))[:440].add(4000).tolist()
    collate = KnowledgeCollator(tokenizer=load_tokenizer("minilm"), with_knowledge=False)
    training = Training(max_steps=160, batch_size=16, learning_rate=3e-3, head_learning_rate=1e-2)
    fit(model, [of(word) for word in words[:400]], collate, training, seed=0, folder=tmp_path, is_fresh=is_fresh)
    with torch.no_grad():
        said = model.eval().generate(
            **collate([{k: v for k, v in of(word).items() if k != "labels"} for word in words[400:]]),
            max_new_tokens=1,
            do_sample=False,
        )
    right = sum(row[1] == word for row, word in zip(said.tolist(), words[400:], strict=True))
    assert right > 30, f"{right} of 40 new words"


@pytest.mark.parametrize("fused", [False, True])
def test_pretraining_of_the_base_goes_to_both_sides(base: str, fused: bool, tmp_path: Path) -> None:
    def build(auto_class: Any, kgbert_class: type[KGBertModel]) -> Any:
        return kgbert_class.from_base(base, TABLE, fusion=FUSION) if fused else load_base(base, auto_class)

    pretrained = build(AutoModelForMaskedLM, KGBertForMaskedLM)
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(0.01)
    with quiet():
        pretrained.save_pretrained(tmp_path)
    writes = build(AutoModelForSeq2SeqLM, KGBertForSeq2SeqLM)
    take_over(writes, tmp_path)
    inner = (pretrained.model if fused else pretrained).bert.state_dict()
    for side in ("encoder", "decoder.bert"):
        own = (writes.model if fused else writes).get_submodule(side).state_dict()
        for name, value in inner.items():
            if "knowledge_attention" not in name or side == "encoder":
                there = name if name in own else name.replace(".block.", ".")
                torch.testing.assert_close(own[there], value, msg=f"{side}.{name}")
