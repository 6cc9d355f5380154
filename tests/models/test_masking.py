import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase, ViTConfig

from kg.errors import ConfigError
from models.base import load_base, load_tokenizer
from models.entity_table import EntityTable
from models.kgbert import KGBertForMaskedLM
from models.masking import (
    CAUSAL,
    IGNORED,
    MASKED,
    SENTINEL,
    SPANS,
    Masker,
    SpanCorruptor,
    family_of,
    predict_masked_only,
)
from models.mentions import hide_mentions
from tests.models.families import FAMILIES, tiny_language_model

MINILM = load_tokenizer("minilm")
TEXT = "Halvorsen refinanced its unsecuritised receivables"


@pytest.fixture(scope="module")
def feature() -> dict:
    tokens = load_tokenizer("minilm")(TEXT)
    mentions = [0] * len(tokens["input_ids"])
    mentions[1:4] = [1, 1, 1]  # h ##al ##vor …
    return {"input_ids": tokens["input_ids"], "token_mentions": mentions}


def masker(**options: float) -> Masker:
    values = {"mask_probability": 0.15, "mention_probability": 0.3, **options}
    return Masker(tokenizer=MINILM, **values)


def test_the_same_draw_gives_the_same_masks_and_another_draw_others(feature: dict) -> None:
    draws = [masker()(feature, draw)["labels"] for draw in range(8)]
    assert draws == [masker()(feature, draw)["labels"] for draw in range(8)]
    assert len({tuple(labels) for labels in draws}) > 1


def test_a_mention_is_masked_whole_or_not_at_all(feature: dict) -> None:
    for draw in range(50):
        labels = masker(mask_probability=0.0, mention_probability=0.5)(feature, draw)["labels"]
        assert len({labels[position] == IGNORED for position in (1, 2, 3)}) == 1


def test_a_word_is_masked_whole(feature: dict) -> None:
    tokenizer = load_tokenizer("minilm")
    pieces = tokenizer.convert_ids_to_tokens(feature["input_ids"])
    for draw in range(50):
        labels = masker(mention_probability=0.0)({"input_ids": feature["input_ids"]}, draw)["labels"]
        for position, piece in enumerate(pieces):
            if piece.startswith("##"):
                assert (labels[position] == IGNORED) == (labels[position - 1] == IGNORED)


def test_entities_are_hidden_as_often_of_masked_mentions_as_of_others(feature: dict) -> None:
    linked = {**feature, "mention_entities": [[2]], "mention_priors": [[1.0]], "mention_links": [0]}
    hidden: dict[bool, list[bool]] = {True: [], False: []}
    for draw in range(600):
        masked = masker(mention_probability=0.5)(linked, draw)
        kept = hide_mentions(masked, 0.5, draw)["mention_entities"]
        hidden[masked["labels"][1] != IGNORED].append(not kept)
    shares = {asked: sum(times) / len(times) for asked, times in hidden.items()}
    assert shares[True] == pytest.approx(shares[False], abs=0.15)


def test_special_tokens_are_never_asked_and_labels_are_the_original_tokens(feature: dict) -> None:
    for draw in range(20):
        masked = masker(mask_probability=0.9)(feature, draw)
        assert masked["labels"][0] == masked["labels"][-1] == IGNORED
        assert all(
            label in (IGNORED, token) for label, token in zip(masked["labels"], feature["input_ids"], strict=True)
        )


@pytest.fixture(scope="module", params=["bert", "roberta", "albert"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_language_model(request.param, tmp_path_factory.mktemp(request.param)))


def encoded(tokenizer: PreTrainedTokenizerBase, text: str, mention: str) -> tuple[dict, list[set[int]], set[int]]:
    """A feature with one mention, and the positions of each word and of the mention, by their place in the text."""
    tokens = tokenizer(text, return_offsets_mapping=True)
    start = text.index(mention)

    def within(first: int, last: int) -> set[int]:
        pairs = enumerate(tokens["offset_mapping"])
        return {
            position for position, (begin, end) in pairs if begin < last and end > first and text[begin:end].strip()
        }

    words = [within(*match.span()) for match in re.finditer(r"\w+", text)]
    mentioned = within(start, start + len(mention))
    feature = {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "token_mentions": [int(position in mentioned) for position in range(len(tokens["input_ids"]))],
    }
    return feature, words, mentioned


def test_in_no_vocabulary_a_word_or_a_mention_is_split(tokenizer: PreTrainedTokenizerBase) -> None:
    text = 'The borrower, Acme Corporation, refinanced (in 2019) "unsecuritised" receivables; Zürich agents won\'t.'
    feature, words, mentioned = encoded(tokenizer, text, "Acme Corp")  # a mention that ends within a word
    assert any(len(word) > 1 for word in words)
    mask = Masker(tokenizer=tokenizer, mask_probability=0.3, mention_probability=0.5)
    asked_mentions = 0
    for draw in range(60):
        labels = mask(feature, draw)["labels"]
        asked = {position for position, label in enumerate(labels) if label != IGNORED}
        for unit in [*words, mentioned]:
            assert not asked & unit or unit <= asked
        asked_mentions += mentioned <= asked
    assert 15 < asked_mentions < 45


def test_as_many_words_are_asked_as_the_recipe_says(tokenizer: PreTrainedTokenizerBase) -> None:
    feature, words, _ = encoded(tokenizer, " ".join(f"word{'abcdefghij'[n % 10]}" for n in range(40)), "worda")
    labels = Masker(tokenizer=tokenizer, mask_probability=0.15, mention_probability=0.0)(feature, 3)["labels"]
    assert sum(any(labels[position] != IGNORED for position in word) for word in words) == 6


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_language_model("t5", tmp_path_factory.mktemp("t5")))


def spans_back(made: dict, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The text that sentinels and spans stand for."""
    sentinels = {tokenizer.convert_tokens_to_ids(SENTINEL.format(number)) for number in range(20)}
    spans: dict[int, list[int]] = {}
    for token in made["labels"]:
        if token in sentinels:
            spans[token] = spans["last"] = []  # type: ignore[index]
        else:
            spans["last"].append(token)  # type: ignore[index]
    return [token for one in made["input_ids"] for token in spans.get(one, [one])]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 60), draw=st.integers(0, 1000), density=st.floats(0.05, 0.5))
def test_corrupted_spans_and_their_text_are_the_original(length: int, draw: int, density: float, t5: Any) -> None:
    rng = random.Random(draw)
    ids = [*(rng.randrange(30, 60) for _ in range(length)), t5.eos_token_id]
    mentions = [rng.randrange(3) for _ in ids]
    feature = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_mentions": mentions, "more": 1}
    made = SpanCorruptor(tokenizer=t5, density=density, mean_length=3.0)(feature, draw)
    assert made == SpanCorruptor(tokenizer=t5, density=density, mean_length=3.0)(feature, draw)
    assert made["input_ids"][-1] == made["labels"][-1] == t5.eos_token_id
    assert spans_back(made, t5) == ids
    assert len(made["attention_mask"]) == len(made["token_mentions"]) == len(made["input_ids"])
    assert made["more"] == 1


def test_spans_are_as_dense_and_as_long_as_in_the_paper(t5: PreTrainedTokenizerBase) -> None:
    corrupt = SpanCorruptor(tokenizer=t5)
    ids = [*range(30, 90), t5.eos_token_id]
    feature = {"input_ids": ids, "attention_mask": [1] * 61}
    for draw in range(20):
        made = corrupt(feature, draw)
        sentinels = [token for token in made["input_ids"] if token not in ids]
        taken = [token for token in made["labels"] if token in ids[:-1]]
        assert (len(sentinels), len(taken)) == (3, 9)  # 0.15 × 60 tokens, three to a span
    assert len({tuple(corrupt(feature, draw)["labels"]) for draw in range(20)}) > 15


def test_a_model_without_sentinels_is_refused_in_one_line() -> None:
    feature = {"input_ids": [5, 6, 7, 8], "attention_mask": [1] * 4}
    with pytest.raises(ConfigError, match="has no <extra_id_0>.*max_steps = 0"):
        SpanCorruptor(tokenizer=load_tokenizer("minilm"))(feature, 0)


def test_a_family_is_known_by_its_configuration(tmp_path: Path) -> None:
    found = {family: family_of(tiny_language_model(family, tmp_path / family)) for family in FAMILIES}
    assert found == {"bert": MASKED, "roberta": MASKED, "albert": MASKED, "gpt2": CAUSAL, "t5": SPANS}
    ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ConfigError, match="kind 'vit', which has no language model"):
        family_of(str(tmp_path / "vit"))


@pytest.mark.parametrize("fused", [False, True])
def test_working_out_masked_positions_only_changes_neither_loss_nor_gradients(fused: bool, feature: dict) -> None:
    if fused:
        model = KGBertForMaskedLM.from_base("minilm", EntityTable.random(num_entities=3, dim=8))
    else:
        model = load_base("minilm", AutoModelForMaskedLM)
    model.eval()
    masked = [masker(mask_probability=0.5)(feature, draw) for draw in range(2)]
    batch = {name: torch.tensor([one[name] for one in masked]) for name in ("input_ids", "labels")}
    results = []
    for only in (False, True):
        if only:
            predict_masked_only(model)
        model.zero_grad()
        output = model(**batch)
        output.loss.backward()
        results.append((output, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (whole, gradients), (short, same) = results
    torch.testing.assert_close(short.loss, whole.loss)
    for one, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)
    assert len(short.logits) == int((batch["labels"] != IGNORED).sum()) < batch["labels"].numel()
