"""Readers of published task data: what they make of it, that nothing is on both sides of a split, what they refuse."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from kg.errors import InputError
from models.data import read_task
from models.examples import Example, Splits, read_csv, split_groups, tag_words
from models.readers import education, finance, law, medicine, patents
from models.recipe import RECIPES, load_recipe


def put(file: Path, content: object) -> Path:
    """Write text as it is, and anything else as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def rows(*objects: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in objects)


def everything(splits: Splits) -> list[Example]:
    return [*splits.train, *splits.validation, *splits.test]


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


CUAD = ("Document Name", "Parties", "Agreement Date", "Effective Date", "Expiration Date", "Governing Law", "Insurance")


def cuad(folder: Path, count: int = 10, insurance: str = "['{n} insures.', 'Laws of Utah govern {n}.']") -> Path:
    header = ",".join(["Filename", *(f"{name},{name}-Answer" for name in CUAD)])
    table, contracts = [header], []
    for n in range(count):
        cells = {
            "Document Name": ("['AGREEMENT']", "AGREEMENT"),
            "Parties": (f"['Acme{n} Inc.', 'Lender']", f"Acme{n} Inc. (Lender)"),
            "Agreement Date": ("['May 1, 2001']", "5/1/2001"),
            "Governing Law": (f"['Laws of Utah govern {n}.']", "Utah"),
            "Insurance": (insurance.format(n=n), "Yes"),
        }
        values = [value for name in CUAD for value in cells.get(name, ("[]", ""))]
        table.append(",".join([f"A&{n}.pdf", *(f'"{value}"' for value in values)]))
        padding = " ".join(f"Filler {n} {i}." for i in range(200))
        text = f"AGREEMENT of May 1, 2001 by Acme{n} Inc. as Lender. {padding} Laws of Utah govern {n}."
        contracts.append({"name": f"A_{n}.txt", "text": text})
    put(folder / "master_clauses.csv", "\n".join(table) + "\n")
    (folder / "contracts.jsonl.gz").write_bytes(gzip.compress(rows(*contracts).encode()))
    return folder


def test_cuad_clauses_are_split_by_contract_and_know_all_their_types(tmp_path: Path) -> None:
    splits = read_task("cuad_clauses", cuad(tmp_path))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [21, 3, 6]
    first = [(e.text.rstrip(".0123456789"), e.label, e.labels) for e in splits.test[:3]]
    both = ("Governing Law", "Insurance")
    assert first == [("Laws of Utah govern ", label, both) for label in both] + [(first[2][0], "Insurance", both[1:])]
    contracts = [{e.id.split(":")[0] for e in part} for part in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*contracts)) == sum(map(len, contracts))


def test_cuad_questions_are_about_windows_with_and_without_an_answer(tmp_path: Path) -> None:
    splits = read_task("cuad_questions", cuad(tmp_path))
    asked = [e for e in everything(splits) if e.id.startswith("3:")]
    found = {e.second: [words for _, words in e.answers] for e in asked if e.answers}
    assert found == {
        "Who are the parties?": ["Acme1 Inc.", "Lender"],
        "What is the date of the agreement?": ["May 1, 2001"],
        "Which law governs the agreement?": ["Utah"],
    }
    assert Counter(bool(e.answers) for e in asked) == {True: 3, False: 3}
    assert all(e.text.startswith(words, start) for e in asked for start, words in e.answers)
    assert all(len(e.text) <= 1200 for e in asked)


def test_a_cell_of_cuad_that_is_no_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clauses.csv:2: expected a list of texts in each column \(SyntaxError"):
        read_task("cuad_clauses", cuad(tmp_path, insurance="['"))


def contracts(first: int, count: int, hypotheses: Sequence[str] = ("It ends.", "It begins.")) -> dict:
    """Of ContractNLI: the first hypothesis is entailed by the last sentence of each contract."""
    long = "Contract {} is secret. " + "It is a contract of contracts. " * 30
    texts = [long.format(i) + f"Termination: after {i} days." for i in range(first, first + count)]
    choices = [{"choice": "Entailment", "spans": [31]}, {"choice": "NotMentioned", "spans": []}]
    annotations = {f"nda-{number}": choice for number, choice in enumerate(choices)}
    return {
        "documents": [
            {
                "id": i,
                "text": text,
                "spans": [[m.start(), m.end()] for m in re.finditer(r"[^.]+\.", text)],
                "annotation_sets": [{"annotations": annotations}],
            }
            for i, text in enumerate(texts)
        ],
        "labels": {f"nda-{number}": {"hypothesis": words} for number, words in enumerate(hypotheses)},
    }


def test_contract_nli_trains_on_test_and_tests_on_dev(tmp_path: Path) -> None:
    put(tmp_path / "test.json", contracts(0, 10))
    put(tmp_path / "dev.json", contracts(50, 2))
    splits = read_task("contract_nli", tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [18, 2, 4]
    example = splits.test[0]
    assert (example.second, example.label) == ("It ends.", "Entailment")


def test_contract_nli_reads_what_was_marked_in_other_contracts(tmp_path: Path) -> None:
    put(tmp_path / "test.json", contracts(0, 10))
    put(tmp_path / "dev.json", contracts(50, 2))
    splits = read_task("contract_nli", tmp_path)
    entailed = [example.text for example in (*splits.train, *splits.test) if example.label == "Entailment"]
    assert all(len(text) <= 800 and "Termination" in text for text in entailed)


def test_contract_nli_names_hypotheses_that_were_not_learnt(tmp_path: Path) -> None:
    put(tmp_path / "test.json", contracts(0, 10))
    put(tmp_path / "dev.json", contracts(50, 2, hypotheses=("It ends.", "It lasts.")))
    with pytest.raises(
        InputError, match=r"expected 5 or more contracts .* the hypotheses of those \(KeyError: 'It las"
    ):
        read_task("contract_nli", tmp_path)


def test_policyqa_refuses_an_answer_that_is_not_where_it_says(tmp_path: Path) -> None:
    def site(name: str, start: int = 3) -> dict:
        asked = {"id": f"q{name}", "question": "What?", "answers": [{"answer_start": start, "text": name}]}
        return {"title": name, "paragraphs": [{"context": f"At {name} we care.", "qas": [asked]}]}

    put(tmp_path / "dev.json", {"data": [site(f"site{i}") for i in range(10)]})
    put(tmp_path / "test.json", {"data": [site("other")]})
    splits = read_task("policyqa", tmp_path)
    assert [len(splits.train), len(splits.validation), splits.test[0].answers] == [9, 1, ((3, "other"),)]
    put(tmp_path / "test.json", {"data": [site("other", start=4)]})
    with pytest.raises(InputError, match=r"test.json: expected the form of SQuAD.*'other' is not where it should be"):
        read_task("policyqa", tmp_path)


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


def openstax(folder: Path) -> Path:
    modules, toc = [], []
    for number in range(20):
        chapter, name = f"Chapter {number // 2}", f"m{number}"
        module = {
            "id": name,
            "title": f"Unit {number}",
            "objectives": ["Explain scarcity", "Compute cost"],
            "paragraphs": [
                "By the end.",
                f"Scarcity {number} means that wants exceed supply.",
                "Unrelated words.",
                f"Scarcity {number} matters.",
            ],
            "glossary": [[f"term {number} {i}", f"what {number} {i} is"] for i in range(2)],
            "summary": f"Key Concepts and Summary Scarcity {number} matters. More of it.",
            "exercises": [
                {"question": "What does scarcity mean?", "options": [], "answer": "Wants exceed supply.", "kind": ""},
                {"question": "Unanswered?", "options": ["a"], "answer": "", "kind": ""},
            ],
        }
        modules.append(module)
        toc += [{"book": book, "path": [chapter], "module": name} for book in ("One", "Two")]
    put(folder / "modules.jsonl", rows(*modules))
    put(folder / "toc.json", toc)
    return folder


def test_a_textbook_gives_summaries_units_exercises_and_vocabulary(tmp_path: Path) -> None:
    folder = openstax(tmp_path)
    for reader, expected in (
        ("openstax_summaries", "Scarcity {} matters. More of it."),
        ("openstax_syllabus", "Topics: term {0} 0; term {0} 1. Overview: Scarcity {0} matters."),
        ("openstax_exercises", "What does scarcity mean? Answer: Wants exceed supply."),
    ):
        splits = read_task(reader, folder)
        assert [len(splits.train), len(splits.validation), len(splits.test)] == [14, 2, 4]
        example = splits.test[0]
        number = int(example.id.partition(":")[0][1:])
        assert example.target == expected.format(number)
        if reader == "openstax_exercises":
            assert example.text == f"Unit {number}\nScarcity {number} means that wants exceed supply."
        chapters = [{int(e.id.partition(":")[0][1:]) // 2 for e in part} for part in (splits.train, splits.test)]
        assert not chapters[0] & chapters[1]
    summary = next(e for e in everything(read_task("openstax_summaries", folder)) if e.id == "m0")
    assert summary.text.splitlines() == [  # not the paragraph that is of the summary, with which a module ends
        "Unit 0",
        "By the end.",
        "Scarcity 0 means that wants exceed supply.",
        "Unrelated words.",
        "term 0 0: what 0 0 is.",
        "term 0 1: what 0 1 is.",
    ]
    unit = next(e for e in everything(read_task("openstax_syllabus", folder)) if e.id == "m0")
    assert unit.text == "Chapter 0: Unit 0; Unit 1\nUnit: Unit 0\nObjectives: Explain scarcity; Compute cost"
    words = everything(read_task("openstax_vocabulary", folder))
    assert len(words) == 40
    assert all(len(set(e.choices)) == 4 and e.label in e.choices for e in words)
    assert next(e for e in words if e.id == "m0:1").label == "term 0 1"


def test_a_module_that_is_not_in_the_book_is_named(tmp_path: Path) -> None:
    folder = openstax(tmp_path)
    put(folder / "toc.json", [{"book": "One", "path": ["A"], "module": "m99"}])
    with pytest.raises(InputError, match=r"toc.json: expected a path and a module of modules.jsonl in entry 1"):
        read_task("openstax_summaries", folder)


def test_fairytaleqa_asks_about_sections_of_a_story(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        put(tmp_path / f"section-stories/{part}/{part}-story.csv", f"section,text\n1,{part} one.\n2,Two.\n3,Three.\n")
        asked = 'question_id,cor_section,question,answer1\n1,"1, 3",Who was it?,the fox\n'
        put(tmp_path / f"questions/{part}/{part}-questions.csv", asked)
    example = read_task("fairytaleqa", tmp_path).test[0]
    assert (example.text, example.second, example.target) == ("test one.\nThree.", "the fox", "Who was it?")
    put(tmp_path / "questions/test/test-questions.csv", asked.replace("1, 3", "4"))
    with pytest.raises(InputError, match=r"test-questions.csv:2: expected sections of test-story.csv in cor_section"):
        read_task("fairytaleqa", tmp_path)


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
