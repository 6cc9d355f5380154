"""Marked pairs: read from published files, put between marks, linked as the data says, told apart by a model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg.errors import InputError, UserError
from kg.settings import Settings
from models.bans import Bans
from models.batch import PAIR, KnowledgeCollator, KnowledgeEncoder
from models.data import read_task
from models.entity_table import FIRST, NULL
from models.examples import Example, Mention
from models.facts import Facts
from models.kgbert import KGBertForRelationClassification
from models.objectives import RelationClassification, marked, with_entities
from models.predictor import Predictor
from models.recipe import Task
from models.stages.gnn import linked_entities, read_linked
from tests.models.tiny import FUSION, TABLE, answer, open_gates, tiny_base, tiny_encoder

TEXT = "Acme Bank owns Borealis Insurance."
HEAD, TAIL = Mention(start=0, end=9, entity="ex:0"), Mention(start=15, end=33, entity="ex:1")
OWNS = Example(id="1", text=TEXT, label="OWNS", pair=(HEAD, TAIL))
OWNED = Example(id="2", text=TEXT, label="OWNED", pair=(TAIL, Mention(start=0, end=9, entity=None)))
OBJECTIVE = RelationClassification(("OWNED", "OWNS"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("relations"))


def fewrel(folder: Path, instances: int = 10) -> Path:
    file = folder / "fewrel.json"
    content = {
        relation: [
            {
                "tokens": ["Town", str(number), "lies", "on", "the", "Long", "River"],
                "h": ["town", f"Q{number}", [[0, 1]]],
                "t": ["long river", identifier, [[5, 6], [0]]],
            }
            for number in range(start, start + instances)
        ]
        for relation, start, identifier in (("P206", 0, "Q7"), ("P17", instances, "not an id"))
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_fewrel_gives_pairs_with_their_places_and_ids(tmp_path: Path) -> None:
    splits = read_task("fewrel", fewrel(tmp_path))
    everything = (*splits.train, *splits.validation, *splits.test)
    assert len({example.id for example in everything}) == len(everything) == 20
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 2, 8)
    example = next(example for example in everything if example.id == "P206:3")
    assert example.pair is not None
    assert [example.text[mention.start : mention.end] for mention in example.pair] == ["Town 3", "Long River"]
    assert [mention.entity for mention in example.pair] == ["wd:Q3", "wd:Q7"]
    other = next(example for example in everything if example.label == "P17")
    assert other.pair is not None
    assert other.pair[1].entity is None
    assert read_task("fewrel", fewrel(tmp_path)) == splits


def test_what_is_not_fewrel_is_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for content in ("[1]", "{", '{"P17": [{"tokens": ["a"]}]}', '{"P17": [{"tokens": [], "h": [], "t": []}]}'):
        file.write_text(content)
        with pytest.raises(InputError, match="expected FewRel"):
            read_task("fewrel", file)


def knowledgenet(folder: Path, *rows: dict[str, object]) -> Path:
    file = folder / "facts.jsonl"
    end = {"subject": {"span": [0, 9], "id": "Q1"}, "object": {"span": [15, 33], "id": None}}
    file.write_text(
        "".join(json.dumps({"text": TEXT, "property": "OWNS", **end, **row}) + "\n" for row in rows), encoding="utf-8"
    )
    return file


def test_knowledgenet_keeps_its_folds_and_leaves_out_what_has_two_answers(tmp_path: Path) -> None:
    splits = read_task(
        "knowledgenet",
        knowledgenet(
            tmp_path,
            {"fold": 1},
            {"fold": 1},  # the same fact again
            {"fold": 3, "property": "CEO"},
            {"fold": 4},
            {"fold": 4, "text": TEXT + " So it is."},
            {"fold": 4, "text": TEXT + " So it is.", "property": "CEO"},
            {"fold": 2, "object": {"span": [4, 12], "id": None}},  # overlaps its subject
        ),
    )
    assert [(example.label, example.text) for example in splits.train] == [("OWNS", TEXT)]
    assert [example.label for example in splits.validation] == ["CEO"]
    assert [example.text for example in splits.test] == [TEXT]
    assert splits.train[0].pair == (Mention(start=0, end=9, entity="wd:Q1"), Mention(start=15, end=33, entity=None))
    with pytest.raises(InputError, match="jsonl:1: expected a fact with spans and a fold"):
        read_task("knowledgenet", knowledgenet(tmp_path, {"fold": "first"}))


def test_head_and_tail_stand_between_their_marks_in_either_order() -> None:
    text, spans = marked(OWNS)
    assert text == "@ Acme Bank @ owns # Borealis Insurance #."
    assert [text[span.start : span.end] for span in spans] == ["@ Acme Bank @", "# Borealis Insurance #"]
    assert [span.entity for span in spans] == ["ex:0", "ex:1"]
    text, spans = marked(OWNED)
    assert text == "# Acme Bank # owns @ Borealis Insurance @."
    assert [text[span.start : span.end] for span in spans] == ["@ Borealis Insurance @", "# Acme Bank #"]


def test_a_pair_is_read_where_it_begins_with_the_entities_that_the_data_names(encoder: KnowledgeEncoder) -> None:
    first, second = OBJECTIVE.encode([OWNS, OWNED], encoder)
    pieces = encoder.tokenizer.convert_ids_to_tokens(first["input_ids"])
    assert [pieces[place] for place in first[PAIR]] == ["@", "#"]
    assert first["mention_entities"] == [[NULL, FIRST], [NULL, FIRST + 1]]
    covered = [piece for piece, mention in zip(pieces, first["token_mentions"], strict=True) if mention == 1]
    assert (covered[0], covered[-1]) == ("@", "@")  # the marks read the entity, too
    assert (first["labels"], second["labels"]) == (1, 0)
    pieces = encoder.tokenizer.convert_ids_to_tokens(second["input_ids"])
    assert [pieces[place] for place in second[PAIR]] == ["@", "#"]
    assert second["mention_entities"] == [[NULL, FIRST + 1]]


def test_pairs_are_linked_where_the_data_names_no_entity_at_all(encoder: KnowledgeEncoder) -> None:
    nameless = tuple(replace(mention, entity=None) for mention in (HEAD, TAIL))
    bare, alone = replace(OWNS, pair=nameless), Example(id="3", text="Nothing.", label="OWNS")
    found, other = with_entities([bare, alone], encoder.linker)
    names = [link.id for link in encoder.linker.link(TEXT)]
    assert found.pair is not None
    assert [mention.entity for mention in found.pair] == names
    assert None not in names
    assert replace(found, pair=nameless) == bare
    assert other == alone
    assert with_entities([OWNS, OWNED, bare], encoder.linker) == [OWNS, OWNED, bare]
    (feature,) = OBJECTIVE.encode([found], encoder)
    assert len(feature["mention_entities"]) == len(OBJECTIVE.encode([bare], encoder)[0]["mention_entities"]) + 2


def test_all_parts_of_a_task_are_linked_before_anything_is_counted_or_banned(
    encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    for day, part in enumerate(("train", "dev", "test")):
        row = {"text": f"On day {day} << Acme Bank >> owns [[ Borealis Insurance ]].", "label": "OWNS"}
        (tmp_path / f"{part}.txt").write_text(json.dumps(row) + "\n")
    task = Task(name="t", kind="relation_classification", reader="chemprot", path=str(tmp_path))
    splits = read_linked(task, Settings(home=tmp_path, data=tmp_path), encoder.linker)
    snapshot = encoder.linker.snapshot
    for part in (splits.train, splits.validation, splits.test):
        ((head, tail),) = linked_entities(encoder.linker, part, snapshot)
        assert (snapshot.names[head], snapshot.names[tail]) == ("Acme Bank", "Borealis Insurance")


def test_places_move_with_padding_on_the_left(encoder: KnowledgeEncoder) -> None:
    short, long = OBJECTIVE.encode(
        [
            OWNS,
            Example(
                id="3",
                text="So " + TEXT,
                label="OWNS",
                pair=(Mention(start=3, end=12, entity=None), Mention(start=18, end=36, entity=None)),
            ),
        ],
        encoder,
    )
    encoder.tokenizer.padding_side = "left"
    try:
        batch = KnowledgeCollator(tokenizer=encoder.tokenizer)([short, long])
    finally:
        encoder.tokenizer.padding_side = "right"
    shift = len(long["input_ids"]) - len(short["input_ids"])
    assert batch[PAIR].tolist() == [[place + shift for place in short[PAIR]], long[PAIR]]
    mark = encoder.tokenizer.convert_tokens_to_ids("@")
    assert batch["input_ids"][torch.arange(2), batch[PAIR][:, 0]].tolist() == [mark, mark]


def test_a_fused_relation_classifier_reads_knowledge_and_is_the_same_after_it_is_saved(
    encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    base = tiny_base(tmp_path / "base")
    model = KGBertForRelationClassification.from_base(base, TABLE, fusion=FUSION, num_labels=2).eval()
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(OBJECTIVE.encode([OWNS, OWNED], encoder))
    plain = {key: batch[key] for key in ("input_ids", "attention_mask", PAIR)}
    assert torch.equal(answer(model, **batch), answer(model, **plain))
    open_gates(model)
    told = answer(model, **batch)
    assert not torch.allclose(told, answer(model, **plain))
    model.save_pretrained(tmp_path / "saved")
    again = KGBertForRelationClassification.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(answer(again, **batch), told)


def test_a_relation_is_asked_of_a_text_with_marks_and_answered_with_reasons(
    encoder: KnowledgeEncoder, tmp_path: Path
) -> None:
    model = KGBertForRelationClassification.from_base(
        tiny_base(tmp_path / "base"), TABLE, fusion=FUSION, num_labels=2, id2label={0: "OWNED", 1: "OWNS"}
    )
    open_gates(model)
    task = Task(name="who", kind="relation_classification", reader="fewrel", path="x")
    predictor = Predictor(model, encoder, task)
    found = predictor.predict("@ Acme Bank @ owns # Borealis Insurance #.", words=True)
    assert [(link.text, link.id) for link in found.links] == [("Acme Bank", "ex:0"), ("Borealis Insurance", "ex:1")]
    assert found.label in {"OWNED", "OWNS"}
    assert {found.links[reason.link].id for reason in found.reasons} == {"ex:0", "ex:1"}
    assert any("OWNS" in fact for fact in found.reasons[0].facts)
    assert found.words is not None
    assert [word.text for word in found.words.words][:3] == ["@", "Acme", "Bank"]
    batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(OBJECTIVE.encode([OWNS], encoder))
    assert found.probabilities["OWNS"] == pytest.approx(float(answer(model, **batch).softmax(-1)[0, 1]), abs=1e-3)
    asked = Bans(relations=(), pairs=frozenset({("ex:0", "ex:1")}), audit=())
    told = Predictor(model, encoder, task, bans=asked).predict("@ Acme Bank @ owns # Borealis Insurance #.")
    assert not any("OWNS" in fact for reason in told.reasons for fact in reason.facts)  # the answer was kept from it
    for text in ("Acme owns Borealis.", "@ Acme @ owns Borealis.", "@ a @ and @ b @ own # c #", "@ @ owns # x #"):
        with pytest.raises(UserError, match="its head between @ and @"):
            predictor.predict(text)


def test_facts_of_linked_entities_are_written_behind_the_text_less_what_is_banned(encoder: KnowledgeEncoder) -> None:
    free = Facts(encoder.linker, Bans(relations=(), pairs=frozenset(), audit=()))
    told = free.behind(OWNS)
    assert told.text == (
        TEXT + " Acme Bank: listed on Delta Exchange, owns Borealis Insurance."
        " Borealis Insurance: owns Acme Bank, insures Corvus Fund."
    )
    assert told.pair == OWNS.pair
    banned = Facts(encoder.linker, Bans(relations=("OWNS",), pairs=frozenset({("ex:1", "ex:2")}), audit=()))
    assert banned.behind(OWNS).text == TEXT + " Acme Bank: listed on Delta Exchange."
    linked = free.behind(Example(id="4", text="News of Corvus Fund.", label="x"))
    assert linked.text.startswith("News of Corvus Fund. Corvus Fund: ")
