"""Readers of textbooks and of stories."""

from pathlib import Path

import pytest

from kg.errors import InputError
from models.data import read_task
from tests.models.files import everything, put, rows


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
