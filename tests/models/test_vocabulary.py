"""New words of a domain become tokens without changing what a model makes of other texts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from models.base import load_base, load_config, load_tokenizer
from models.classifiers import SequenceClassifier
from models.entity_table import EntityTable
from models.fusion import FusionConfig
from models.masking import family_of, words_of
from models.vocabulary import Extension, choose_terms, pieces_of, tokens_per_word
from tests.models.families import FAMILIES, domain_texts, general_texts, tiny_language_model

NUMBER = 6


@pytest.fixture(scope="module", params=FAMILIES)
def bases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A base model, and the same with more words."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_language_model(request.param, folder / "base")
    terms = choose_terms(domain_texts(100), load_tokenizer(base), NUMBER)
    Extension(base, terms).save(folder / "vocabulary")
    return base, str(folder / "vocabulary")


def logits(model: nn.Module, tokenizer: Any, text: str) -> torch.Tensor:
    inputs = tokenizer(text, return_tensors="pt")
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :4]
    with torch.no_grad():
        return model.eval()(**inputs).logits


def test_the_words_that_save_most_tokens_are_chosen(bases: tuple[str, str]) -> None:
    extension = Extension.load(bases[1])
    assert extension is not None
    tokenizer = load_tokenizer(bases[0])
    texts = ["securitised receivables", "securitised", "the the the the", "once-only: amortisations"]
    assert choose_terms(texts, tokenizer, 1) == ("securitised",)
    assert "amortisations" not in choose_terms(texts, tokenizer, 9)  # seen once
    assert set(extension.terms) <= set(" ".join(domain_texts(100)).replace(",", "").replace(".", "").split())


def test_a_new_word_is_one_token_where_it_is_a_word_and_begins_as_the_mean_of_its_pieces(
    bases: tuple[str, str],
) -> None:
    base, extended = bases
    before, after = load_tokenizer(base), load_tokenizer(extended)
    family = family_of(base)
    model = load_base(extended, family.auto_class)
    rows = model.get_input_embeddings().weight
    words = model.get_output_embeddings()
    assert len(after) == len(before) + NUMBER
    for term in Extension.load(extended).terms:  # type: ignore[union-attr]
        (token,) = pieces_of(term, after)[-1:]
        assert after.convert_ids_to_tokens(token) == term
        pieces = pieces_of(term, before)
        assert len(pieces) > 1
        torch.testing.assert_close(rows[token], rows[pieces].mean(0))
        torch.testing.assert_close(words.weight[token], words.weight[pieces].mean(0))
        if getattr(words, "bias", None) is not None:
            torch.testing.assert_close(words.bias[token], words.bias[pieces].mean(0))
        ids = after(f"the {term} of, {term}.")["input_ids"]
        assert ids.count(token) == 2
        assert sum(ids[place] == token for word in words_of(ids, after) for place in word if len(word) == 1) == 2
        longer = f"the {term}x of"
        assert before(longer)["input_ids"] == after(longer)["input_ids"]


def test_texts_without_new_words_are_answered_as_before(bases: tuple[str, str]) -> None:
    base, extended = bases
    family = family_of(base)
    plain, more = load_base(base, family.auto_class), load_base(extended, family.auto_class)
    before, after = load_tokenizer(base), load_tokenizer(extended)
    for text in general_texts(5, seed=7):
        assert before(text)["input_ids"] == after(text)["input_ids"]
        known = logits(plain, before, text)
        torch.testing.assert_close(logits(more, after, text)[..., : len(before)], known[..., : len(before)])


def test_what_is_written_has_its_blanks(bases: tuple[str, str]) -> None:
    base, extended = bases
    before, after = load_tokenizer(base), load_tokenizer(extended)
    for text in domain_texts(20, seed=5):
        if after.mask_token_id is None:
            assert after.decode(after(text)["input_ids"], skip_special_tokens=True) == text
        assert len(after(text)["input_ids"]) < len(before(text)["input_ids"])
    assert tokens_per_word(domain_texts(20), after) < tokens_per_word(domain_texts(20), before)


def test_a_saved_tokenizer_keeps_the_new_words(bases: tuple[str, str], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bases[1])
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in domain_texts(5):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_the_model_of_a_task_and_a_fused_one_take_the_new_words_too(bases: tuple[str, str]) -> None:
    base, extended = bases
    family = family_of(base)
    size = load_config(extended).get_text_config().vocab_size
    options = {"num_labels": 3, "pad_token_id": load_tokenizer(base).pad_token_id}
    classifier = load_base(extended, SequenceClassifier, **options)
    fused = family.kgbert_class.from_base(
        extended, EntityTable.random(num_entities=3, dim=8), fusion=FusionConfig(layers=(1,), dim=16)
    )
    plain = load_base(extended, family.auto_class)
    for model in (classifier, fused):
        assert torch.equal(model.get_input_embeddings().weight, plain.get_input_embeddings().weight)
        assert model.get_input_embeddings().num_embeddings == size
