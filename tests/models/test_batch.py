"""A batch says which tokens each mention covers and which rows of the table it may denote."""

import math
from pathlib import Path

import pytest
import torch

from kg.linking import Linker
from kg.snapshot import Snapshot, write_snapshot
from kg.types import Candidate, Link
from models.base import load_tokenizer
from models.batch import IGNORED, KnowledgeCollator, KnowledgeEncoder
from models.entity_table import FIRST, NULL, PADDING, EntityTable
from models.fusion import KNOWLEDGE_KEYS
from models.mentions import hide_mentions, keep_mentions
from tests.models.tiny import tiny_encoder

TEXT = "Shares of Borealis Insurance fell after Acme Bank sold them."


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("batch"))


def covered(encoder: KnowledgeEncoder, feature: dict, mention: int) -> str:
    tokens = [t for t, m in zip(feature["input_ids"], feature["token_mentions"], strict=True) if m == mention]
    return encoder.tokenizer.convert_tokens_to_string(encoder.tokenizer.convert_ids_to_tokens(tokens))


def candidate(entity_id: str, prior: float) -> Candidate:
    return Candidate(entity=0, id=entity_id, name=entity_id, prior=prior, score=prior)


def link(text: str, surface: str, *candidates: Candidate, entity_id: str | None = "ex:0") -> Link:
    start = text.index(surface)
    return Link(
        start=start,
        end=start + len(surface),
        text=surface,
        id=entity_id,
        name=entity_id,
        confidence=0.9,
        candidates=candidates,
    )


def test_a_mention_covers_all_subwords_of_its_words_and_no_others(encoder: KnowledgeEncoder) -> None:
    (feature,) = encoder.encode_texts([TEXT])
    pieces = encoder.tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert any(piece.startswith("##") for piece in pieces)  # or the test says nothing of subwords
    assert covered(encoder, feature, 1) == "borealis insurance"
    assert covered(encoder, feature, 2) == "acme bank"
    assert feature["token_mentions"][0] == feature["token_mentions"][-1] == 0
    assert feature["input_ids"] == encoder.tokenizer(TEXT)["input_ids"]
    assert feature["attention_mask"] == [1] * len(feature["input_ids"])


def test_a_mention_does_not_cover_the_punctuation_that_it_touches(encoder: KnowledgeEncoder) -> None:
    (feature,) = encoder.encode_texts(["Sold (Acme Bank), not bought."])
    assert covered(encoder, feature, 1) == "acme bank"


def test_a_mention_reads_the_rows_of_its_candidates_after_null(encoder: KnowledgeEncoder) -> None:
    (feature,) = encoder.encode_texts([TEXT])
    assert feature["mention_entities"] == [[NULL, FIRST + 1], [NULL, FIRST + 0]]
    assert feature["mention_priors"] == [[0.0, 0.0], [0.0, 0.0]]  # log 1


def test_the_prior_of_an_ambiguous_name_is_its_logarithm_and_bounded_below(tmp_path: Path) -> None:
    names = ("Acme Bank", "Acme Fund", "Acme Trust")
    priors = (0.75, 0.2499999, 0.0000001)
    write_snapshot(
        tmp_path / "s",
        entities=[{"id": f"ex:{i}", "name": n, "definition": n, "types": ["Individual"]} for i, n in enumerate(names)],
        aliases=[
            {"alias": "Acme", "entity": f"ex:{i}", "prior": p, "kind": "syn", "language": "en"}
            for i, p in enumerate(priors)
        ],
        triples=[("ex:0", "OWNS", "ex:1")],
    )
    snapshot = Snapshot.load(tmp_path / "s")
    table = EntityTable(tuple(snapshot.ids), torch.zeros(5, 4), snapshot.hash, "")
    encoder = KnowledgeEncoder(load_tokenizer("minilm"), Linker.load(snapshot), table)
    (feature,) = encoder.encode_texts(["They met Acme again."])
    assert feature["mention_entities"] == [[NULL, FIRST, FIRST + 1, FIRST + 2]]
    assert feature["mention_priors"][0] == pytest.approx([0, math.log(0.75), math.log(0.25), math.log(1e-4)], abs=1e-5)


def test_a_text_without_a_known_name_has_no_mentions(encoder: KnowledgeEncoder) -> None:
    for text in ("Nothing of note happened.", ""):
        (feature,) = encoder.encode_texts([text])
        assert feature["mention_entities"] == feature["mention_priors"] == []
        assert set(feature["token_mentions"]) == {0}


def test_a_mention_beyond_the_cut_is_dropped_and_one_across_it_keeps_its_tokens(tmp_path: Path) -> None:
    whole = tiny_encoder(tmp_path)
    (full,) = whole.encode_texts([TEXT])
    last = max(position for position, mention in enumerate(full["token_mentions"]) if mention == 2)

    def cut(max_length: int) -> dict:
        shorter = KnowledgeEncoder(whole.tokenizer, whole.linker, table, max_length=max_length)
        return shorter.encode_texts([TEXT])[0]

    table = EntityTable(tuple(whole.rows), torch.zeros(len(whole.rows) + FIRST, 4), "", "")
    across = cut(last + 1)  # the last place goes to the special token at the end
    assert len(across["input_ids"]) == len(across["token_mentions"]) == last + 1
    assert across["mention_entities"] == full["mention_entities"]
    assert covered(whole, across, 2) == "acme"
    before = cut(last - 1)
    assert before["mention_entities"] == full["mention_entities"][:1]
    assert set(before["token_mentions"]) == {0, 1}


def test_mentions_and_candidates_are_cut_to_their_numbers(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path, max_candidates=3, max_mentions=1)
    text = "Acme and Borealis"
    candidates = [candidate(f"ex:{i}", 0.25) for i in range(4)]
    feature = encoder.encode_linked(text, [link(text, "Acme", *candidates), link(text, "Borealis", *candidates)])
    assert feature["mention_entities"] == [[NULL, FIRST, FIRST + 1]]
    assert len(feature["mention_priors"][0]) == 3
    assert max(feature["token_mentions"]) == 1


def test_links_to_nothing_or_to_entities_without_a_row_are_passed_over(encoder: KnowledgeEncoder) -> None:
    text = "Acme, Borealis and Corvus"
    links = [
        link(text, "Acme", candidate("ex:0", 0.9), entity_id=None),
        link(text, "Borealis", candidate("ex:77", 0.9), entity_id="ex:77"),
        link(text, "Corvus", candidate("ex:78", 0.6), candidate("ex:2", 0.4), entity_id="ex:78"),
    ]
    feature = encoder.encode_linked(text, links)
    assert feature["mention_entities"] == [[NULL, FIRST + 2]]
    assert covered(encoder, feature, 1).startswith("cor")


def test_known_links_give_what_linking_gives(encoder: KnowledgeEncoder) -> None:
    known, (found,) = encoder.encode_linked(TEXT, encoder.linker.link(TEXT)), encoder.encode_texts([TEXT])
    assert {key: known[key] for key in found} == found


@pytest.mark.parametrize(
    "text", [TEXT, "Acme Bank", "(Acme Bank), née Borealis Insurance!", "𝔄 🙂 Delta Exchange – ok", "no names"]
)
def test_words_are_covered_as_in_the_text_that_they_make(encoder: KnowledgeEncoder, text: str) -> None:
    words = text.split()
    ((by_words,),) = encoder.encode_words([words])
    word_ids = by_words.pop("word_ids")
    assert by_words == encoder.encode_texts([text])[0]
    assert word_ids[0] is word_ids[-1] is None
    assert sorted({word for word in word_ids if word is not None}) == list(range(len(words)))


def test_each_sentence_of_words_has_its_own_links(encoder: KnowledgeEncoder) -> None:
    features = encoder.encode_words([["Acme", "Bank"], ["it", "rained"], ["Corvus", "Fund"]])
    assert [f["mention_entities"] for (f,) in features] == [[[NULL, FIRST]], [], [[NULL, FIRST + 2]]]


def test_a_batch_is_padded_with_what_means_nothing(encoder: KnowledgeEncoder) -> None:
    features = encoder.encode_texts([TEXT, "Acme Bank rose.", "It rained."])
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(features)
    lengths = [len(feature["input_ids"]) for feature in features]
    assert batch["input_ids"].shape == batch["token_mentions"].shape == (3, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["mention_entities"].tolist() == [
        [[NULL, FIRST + 1], [NULL, FIRST]],
        [[NULL, FIRST], [PADDING, PADDING]],
        [[PADDING, PADDING], [PADDING, PADDING]],
    ]
    assert batch["mention_priors"].shape == batch["mention_entities"].shape
    for row, feature in enumerate(features):
        assert batch["input_ids"][row, : lengths[row]].tolist() == feature["input_ids"]
        assert batch["token_mentions"][row, : lengths[row]].tolist() == feature["token_mentions"]
        assert (batch["input_ids"][row, lengths[row] :] == encoder.tokenizer.pad_token_id).all()
        assert (batch["token_mentions"][row, lengths[row] :] == 0).all()


def test_padding_on_the_left_moves_tokens_mentions_and_labels_alike(encoder: KnowledgeEncoder) -> None:
    left = load_tokenizer("minilm")
    left.padding_side = "left"
    features = [
        {**feature, "labels": list(range(len(feature["input_ids"])))}
        for feature in encoder.encode_texts([TEXT, "Acme Bank rose."])
    ]
    batch = KnowledgeCollator(tokenizer=left)(features)
    gap = len(features[0]["input_ids"]) - len(features[1]["input_ids"])
    for key, filler in {
        "input_ids": left.pad_token_id,
        "attention_mask": 0,
        "token_mentions": 0,
        "labels": -100,
    }.items():
        assert batch[key][1].tolist() == [filler] * gap + features[1][key]
        assert batch[key][0].tolist() == features[0][key]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0], [1, 0]),
        ([0.5, -1.0], [0.5, -1.0]),
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]]),
    ],
    ids=["classes", "values", "several at once"],
)
def test_labels_of_whole_texts_are_not_padded(encoder: KnowledgeEncoder, labels: list, expected: list) -> None:
    features = encoder.encode_texts([TEXT, "It rained."])
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(
        [{**feature, "labels": label} for feature, label in zip(features, labels, strict=True)]
    )
    assert batch["labels"].tolist() == expected


def test_labels_of_tokens_are_padded_with_ignored(encoder: KnowledgeEncoder) -> None:
    features = [{**f, "labels": [1] * len(f["input_ids"])} for f in encoder.encode_texts(["It rained.", TEXT])]
    labels = KnowledgeCollator(tokenizer=encoder.tokenizer)(features)["labels"]
    assert labels[0].tolist() == features[0]["labels"] + [IGNORED] * (labels.shape[1] - len(features[0]["labels"]))


def test_without_knowledge_the_batch_is_the_same_but_for_the_knowledge(encoder: KnowledgeEncoder) -> None:
    features = encoder.encode_texts([TEXT, "It rained."])
    full = KnowledgeCollator(tokenizer=encoder.tokenizer)(features)
    plain = KnowledgeCollator(tokenizer=encoder.tokenizer, with_knowledge=False)(features)
    assert set(full) - set(plain) == set(KNOWLEDGE_KEYS)
    assert all(torch.equal(plain[key], full[key]) for key in plain)


def test_texts_without_any_mention_still_make_a_batch(encoder: KnowledgeEncoder) -> None:
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(encoder.encode_texts(["It rained.", "So it did."]))
    assert batch["mention_entities"].shape[:2] == (2, 0)
    assert batch["token_mentions"].abs().sum() == 0


def test_kept_mentions_are_counted_anew_and_the_rest_is_uncovered(encoder: KnowledgeEncoder) -> None:
    (feature,) = encoder.encode_texts([TEXT])
    kept = keep_mentions(feature, [1])
    assert kept["mention_entities"] == feature["mention_entities"][1:]
    assert kept["mention_priors"] == feature["mention_priors"][1:]
    assert covered(encoder, kept, 1) == "acme bank"
    assert set(kept["token_mentions"]) == {0, 1}
    assert kept["input_ids"] == feature["input_ids"]
    assert keep_mentions(feature, [0, 1]) == feature
    swapped = keep_mentions(feature, [1, 0])
    assert (covered(encoder, swapped, 1), covered(encoder, swapped, 2)) == ("acme bank", "borealis insurance")


def test_mentions_are_hidden_at_the_given_share_and_the_same_draw_hides_the_same(encoder: KnowledgeEncoder) -> None:
    (feature,) = encoder.encode_texts([TEXT])
    before = {key: list(value) for key, value in feature.items()}
    assert hide_mentions(feature, 0.0, 1) == feature
    assert hide_mentions(feature, 1.0, 1) == keep_mentions(feature, [])
    counts = [len(hide_mentions(feature, 0.3, draw)["mention_entities"]) for draw in range(2000)]
    assert sum(counts) / (2 * 2000) == pytest.approx(0.7, abs=0.03)
    assert counts == [len(hide_mentions(feature, 0.3, draw)["mention_entities"]) for draw in range(2000)]
    assert feature == before
