"""Readers of published task data: what they make of it, that nothing is on both sides of a split, what they refuse."""

from collections import Counter
from pathlib import Path

import pytest

from kg.errors import InputError
from models.data import read_task
from models.examples import Example, read_csv, split_groups, tag_words
from models.readers import education, finance, law, medicine, patents
from models.recipe import RECIPES, load_recipe
from tests.models.files import everything, put, rows


def test_groups_stay_together_and_a_text_is_on_one_side_only() -> None:
    grouped = [(f"g{i // 3}", Example(id=str(i), text=f"Text {i}")) for i in range(60)]
    grouped.append(("elsewhere", Example(id="copy", text="TEXT  0")))
    splits = split_groups(grouped)
    group = {example.id: name for name, example in grouped}
    sides = [{group[example.id] for example in part} for part in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*sides)) == sum(map(len, sides))
    texts = [" ".join(example.text.casefold().split()) for example in everything(splits)]
    assert max(Counter(texts).values()) == 1 or {"0", "copy"} <= {example.id for example in splits.test}
    assert [len(splits.validation), len(splits.test)] == [6, 12]
    assert split_groups(grouped) == splits


def test_words_get_the_first_of_overlapping_spans() -> None:
    words, tags = tag_words("thin film head", [(0, 9, "Part"), (5, 14, "Device")])
    assert (words, tags) == (("thin", "film", "head"), ("B-Part", "I-Part", "B-Device"))


@pytest.mark.parametrize(("content", "line"), [("a,c\n1,2\n", 1), ("a,b\n1,2\n3\n", 3), ('a,b\n1,"2"x\n', 2)])
def test_a_malformed_table_is_named_with_its_line(content: str, line: int, tmp_path: Path) -> None:
    file = put(tmp_path / "t.csv", content)
    with pytest.raises(InputError) as caught:
        list(read_csv(file, ("a", "b")))
    assert str(caught.value).startswith(f"{file}:{line}: ")


def test_fiqa_has_a_score_for_each_company_of_a_sentence(tmp_path: Path) -> None:
    for kind in ("headline", "post"):
        for part in ("train", "test"):
            said = [{"target": "Acme", "sentiment_score": "-0.4"}, {"target": "Borealis", "sentiment_score": "0.3"}]
            sentences = {str(i): {"sentence": f"{kind} {part} {i}", "info": said} for i in range(10)}
            put(tmp_path / f"task1_{kind}_ABSA_{part}.json", sentences)
    splits = read_task("fiqa", tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [36, 4, 40]
    assert [(e.text, e.value) for e in splits.test[:2]] == [
        ("Acme: headline test 0", -0.4),
        ("Borealis: headline test 0", 0.3),
    ]
    put(tmp_path / "task1_post_ABSA_test.json", {"7": {"sentence": "x", "info": [{"target": "Acme"}]}})
    with pytest.raises(InputError, match=r"test.json: expected a sentence with targets and scores at '7' .*KeyError"):
        read_task("fiqa", tmp_path)


def test_tatqa_keeps_questions_that_a_span_of_a_paragraph_answers(tmp_path: Path) -> None:
    def context(number: int) -> dict:
        questions = [
            {"uid": f"{number}a", "question": "How often?", "answer": ["Annual basis"], "answer_type": "span"},
            {"uid": f"{number}b", "question": "How much?", "answer": 3, "answer_type": "arithmetic"},
            {"uid": f"{number}c", "question": "Why?", "answer": ["nowhere"], "answer_type": "span"},
        ]
        return {
            "table": {"uid": f"t{number}"},
            "paragraphs": [
                {"order": 1, "text": "Unused."},
                {"order": 2, "text": f"Note {number}: an annual basis."},
            ],
            "questions": [q | {"answer_from": "text", "rel_paragraphs": ["2"]} for q in questions],
        }

    put(tmp_path / "tatqa_dataset_dev.json", [context(i) for i in range(5)])
    put(tmp_path / "tatqa_dataset_test_gold.json", [context(9)])
    splits = read_task("tatqa", tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [4, 1, 1]
    example = splits.test[0]
    assert (example.second, example.answers) == ("How often?", ((11, "annual basis"),))


def test_credit_risk_names_its_codes_and_refuses_others(tmp_path: Path) -> None:
    sentences = "".join(f"句子{i},{i % 3}\n" for i in range(30))
    splits = read_task("credit_risk", put(tmp_path / "s.csv", f"﻿sentences,sign\n{sentences}句子0,1\n"))
    assert Counter(e.label for e in everything(splits)) == {"neutral": 10, "positive": 10, "risk": 10}
    with pytest.raises(InputError, match=r"s.csv:2: sign '-1'; expected 0, 1, 2"):
        read_task("credit_risk", put(tmp_path / "s.csv", "sentences,sign\n句子,-1\n"))


def test_chemprot_loses_its_markers_and_keeps_the_pair(tmp_path: Path) -> None:
    text = "The [[ c-Fos ]] gene is inhibited by << X (1) >>."
    for part in ("train", "dev", "test"):
        put(tmp_path / f"{part}.txt", rows({"text": f"{part}: {text}", "label": "INHIBITOR", "metadata": []}))
    example = read_task("chemprot", tmp_path).test[0]
    assert example.text == "test: The c-Fos gene is inhibited by X (1)."
    assert example.pair is not None
    assert [example.text[end.start : end.end] for end in example.pair] == ["X (1)", "c-Fos"]
    put(tmp_path / "test.txt", rows({"text": "<< one >> alone", "label": "x"}))
    with pytest.raises(InputError, match=r"test.txt:1: expected << one >> and \[\[ another \]\] entity"):
        read_task("chemprot", tmp_path)


def test_pubmedqa_does_not_show_the_conclusion(tmp_path: Path) -> None:
    questions = {
        str(i): {
            "QUESTION": "Does it?",
            "CONTEXTS": [f"A{i}.", "B."],
            "LONG_ANSWER": "It does.",
            "final_decision": "yes",
        }
        for i in range(12)
    }
    put(tmp_path / "ori_pqal.json", questions)
    put(tmp_path / "test_ground_truth.json", {"3": "yes", "5": "yes"})
    splits = read_task("pubmedqa", tmp_path)
    assert [(e.id, e.text, e.second, e.label) for e in splits.test[:1]] == [("3", "A3. B.", "Does it?", "yes")]
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [9, 1, 2]


def test_mts_dialog_is_rewritten_into_a_section(tmp_path: Path) -> None:
    for part in ("TrainingSet", "ValidationSet", "TestSet-1-MEDIQA-Chat-2023"):
        text = f'ID,section_header,section_text,dialogue\n0,CC,"Cough,\n  cold.","Doctor: {part}?\nPatient: Yes."\n'
        put(tmp_path / f"MTS-Dialog-{part}.csv", text)
    example = read_task("mts_dialog", tmp_path).test[0]
    assert (example.label, example.target) == ("CC", "Cough, cold.")
    assert example.text == "Doctor: TestSet-1-MEDIQA-Chat-2023?\nPatient: Yes."


def test_cpc_hides_codes_and_keeps_groups_together(tmp_path: Path) -> None:
    entries = [
        {
            "code": f"{'AB'[i % 2]}0{i % 9}C{i // 2}/{j:02}",
            "title": f"Hand tools {i} {j} {{for A01G3/06 , E02}}",
            "definition": "Definition statement This place covers: Tools.",
        }
        for i in range(20)
        for j in range(3)
    ]
    file = put(tmp_path / "cpc.jsonl", rows(*entries))
    splits = read_task("cpc_section", file)
    assert splits.test[0].text.startswith("Hand tools ")
    assert splits.test[0].text.endswith("for , . Tools.")
    assert {(e.id[0], e.label) for e in everything(splits)} == {("A", "A"), ("B", "B")}
    sides = [{e.id.split("/")[0] for e in part} for part in (splits.train, splits.validation, splits.test)]
    assert [len(side) for side in sides] == [14, 2, 4]
    assert all(e.label == e.id[:3] for e in everything(read_task("cpc_class", file)))


def brat(folder: Path, number: int, *relations: str) -> None:
    put(folder / f"{number}.txt", f"A head {number} has a gap. The gap of glass is thin.")
    entities = ["T1\tComponent 2 8\thead", "T2\tComponent 15 18\tgap", "T3\tMaterial 31 36\tglass"]
    put(folder / f"{number}.ann", "\n".join([*entities, *relations]) + "\n")


def test_patent_abstracts_give_tags_and_relations_by_sentence(tmp_path: Path) -> None:
    for number in range(10):
        brat(
            tmp_path, number, "R1\tPartOf Arg1:T1 Arg2:T2", "R2\tMadeOf Arg1:T2 Arg2:T3", "#1\tAnnotatorNotes R1\tgood"
        )
    tags = next(e for e in everything(read_task("tfh_tags", tmp_path)) if e.id == "0:0")
    assert (tags.text, tags.tags) == (
        "A head 0 has a gap.",
        ("O", "B-Component", "I-Component", "O", "O", "B-Component", "O"),
    )
    relations = everything(read_task("tfh_relations", tmp_path))
    assert {e.label for e in relations} == {"PartOf"}  # the other one goes from sentence to sentence
    assert [e.pair and (e.pair[0].start, e.pair[1].end) for e in relations[:1]] == [(2, 18)]


def test_a_malformed_annotation_is_named(tmp_path: Path) -> None:
    brat(tmp_path, 1, "R1\tPartOf Arg1:T1")
    with pytest.raises(InputError, match=r"1.ann:4: expected an entity or a relation in brat's format"):
        read_task("tfh_relations", tmp_path)


def test_continuations_of_a_patent_stay_on_one_side(tmp_path: Path) -> None:
    header = "patent_abstract,patent_date,patent_number,patent_title\n"
    lines = [f'" Abstract {i}. ",2000,{i},Title {i // 4}\n' for i in range(40)]
    splits = read_task("patent_titles", put(tmp_path / "p.csv", header + "".join(lines)))
    assert splits.test[0].text.startswith("Abstract ")
    sides = [{e.target for e in part} for part in (splits.train, splits.validation, splits.test)]
    assert [len(side) for side in sides] == [7, 1, 2]
    assert sum(map(len, sides)) == len(set.union(*sides))


FIELDS = {
    "regression": "value",
    "question_answering": "second",
    "multiple_choice": "choices",
    "extractive_summarization": "target",
    "seq2seq_generation": "target",
    "token_classification": "tags",
    "relation_classification": "pair",
    "pair_classification": "second",
    "sequence_classification": "label",
}
"""What examples of a kind have to have."""


PUBLISHED = {name for domain in (education, finance, law, medicine, patents) for name in domain.READERS}


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECIPES.glob("*.toml")))
def test_each_task_of_a_recipe_reads_its_real_data_without_a_leak(recipe: str, data: Path) -> None:
    for task in load_recipe(recipe).tasks:
        if task.reader not in PUBLISHED:
            continue
        splits = read_task(task.reader, data / task.path)
        assert all(getattr(e, FIELDS[task.kind]) not in (None, "", ()) for e in everything(splits))
        assert all(e.text.startswith(words, start) for e in everything(splits) for start, words in e.answers)
        parts = (splits.train, splits.validation, splits.test)
        sides = [{" ".join(e.text.casefold().split()) for e in part} for part in parts]
        assert len(set.union(*sides)) == sum(map(len, sides))
