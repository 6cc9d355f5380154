import pytest
import torch
from transformers import AutoModelForMaskedLM

from models.base import load_base, load_tokenizer
from models.entity_table import EntityTable
from models.kgbert import KGBertForMaskedLM
from models.masking import IGNORED, Masker, predict_masked_only

TEXT = "Halvorsen refinanced its unsecuritised receivables"


@pytest.fixture(scope="module")
def feature() -> dict:
    tokens = load_tokenizer("minilm")(TEXT)
    mentions = [0] * len(tokens["input_ids"])
    mentions[1:4] = [1, 1, 1]  # h ##al ##vor …
    return {"input_ids": tokens["input_ids"], "token_mentions": mentions}


def masker(**options: float) -> Masker:
    values = {"mask_probability": 0.15, "mention_probability": 0.3, **options}
    return Masker(tokenizer=load_tokenizer("minilm"), **values)


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


def test_special_tokens_are_never_asked_and_labels_are_the_original_tokens(feature: dict) -> None:
    for draw in range(20):
        masked = masker(mask_probability=0.9)(feature, draw)
        assert masked["labels"][0] == masked["labels"][-1] == IGNORED
        assert all(
            label in (IGNORED, token) for label, token in zip(masked["labels"], feature["input_ids"], strict=True)
        )


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
