"""Textbooks and stories for learners: summaries, syllabus units, exercises, vocabulary, questions."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from kg.errors import InputError
from models.examples import (
    Example,
    Splits,
    apart,
    expecting,
    read_csv,
    read_json,
    read_json_lines,
    split_groups,
    squeezed,
)

Module: TypeAlias = dict[str, Any]
CHOICES = 4
_HEADING = "Key Concepts and Summary "


def openstax(path: Path, *, read: Callable[[str, Module, list[Module]], Iterator[Example]]) -> Splits:
    """Books of OpenStax as ``modules.jsonl`` and ``toc.json``; chapters stay together, also those of the same name.

    Args:
        read: the examples of a module, from the name of its chapter, the module, and all modules of the chapter.
    """
    file = path / "modules.jsonl"
    keys = ("id", "title", "objectives", "paragraphs", "glossary", "summary", "exercises")
    modules = {str(row["id"]): row for _, row in read_json_lines(file, keys)}
    chapters: dict[str, dict[str, Module]] = {}
    for number, place in enumerate(read_json(path / "toc.json"), 1):
        with expecting(path / "toc.json", f"a path and a module of {file.name} in entry {number}"):
            chapters.setdefault(" / ".join(place["path"]), {})[place["module"]] = modules[place["module"]]
    seen: set[str] = set()
    grouped = []
    for chapter, members in chapters.items():
        for key, module in members.items():
            if key not in seen:
                seen.add(key)
                with expecting(file, f"lists of texts, of terms and of exercises in module {key}"):
                    grouped += [(chapter, example) for example in read(chapter, module, list(members.values()))]
    return split_groups(grouped)


def summaries(chapter: str, module: Module, members: list[Module]) -> Iterator[Example]:
    """The summary at the end of a module, from its text and its key terms."""
    if module["summary"]:
        summary = module["summary"].removeprefix(_HEADING)
        stated = f" {squeezed(summary)} "  # the last paragraphs of a module are those of its summary: the answer
        own = [paragraph for paragraph in module["paragraphs"] if f" {squeezed(paragraph)} " not in stated]
        terms = [f"{term}: {definition}." for term, definition in module["glossary"]]
        yield Example(id=module["id"], text="\n".join([module["title"], *own, *terms]), target=summary)


def syllabus(chapter: str, module: Module, members: list[Module]) -> Iterator[Example]:
    """A unit of a syllabus, topics and overview, from its place in the table of contents and its objectives."""
    if module["objectives"] and module["glossary"] and module["summary"]:
        contents = "; ".join(member["title"] for member in members)
        text = f"{chapter}: {contents}\nUnit: {module['title']}\nObjectives: {'; '.join(module['objectives'])}"
        overview = re.split(r"(?<=[.?!])\s", module["summary"].removeprefix(_HEADING))[0]
        topics = "; ".join(term for term, _ in module["glossary"])
        yield Example(id=module["id"], text=text, target=f"Topics: {topics}. Overview: {overview}")


def exercises(chapter: str, module: Module, members: list[Module]) -> Iterator[Example]:
    """An exercise with its answer, from the paragraph that shares most words with it."""
    bags = [set(re.findall(r"\w{4,}", paragraph.casefold())) for paragraph in module["paragraphs"]]
    for number, exercise in enumerate(module["exercises"]):
        if exercise["answer"] and bags:
            question = " ".join([exercise["question"], *exercise["options"]])
            words = set(re.findall(r"\w{4,}", f"{question} {exercise['answer']}".casefold()))
            best = max(range(len(bags)), key=lambda i: len(bags[i] & words) / (20 + len(bags[i])))
            text = f"{module['title']}\n{module['paragraphs'][best]}"
            yield Example(id=f"{module['id']}:{number}", text=text, target=f"{question} Answer: {exercise['answer']}")


def vocabulary(chapter: str, module: Module, members: list[Module]) -> Iterator[Example]:
    """Which of four terms of the chapter a definition defines."""
    terms = sorted({term for member in members for term, _ in member["glossary"]})
    for number, (term, definition) in enumerate(module["glossary"]):
        if len(terms) >= CHOICES:
            first = terms.index(term) - number % CHOICES  # the right one is in each place equally often
            choices = tuple(terms[(first + i) % len(terms)] for i in range(CHOICES))
            yield Example(id=f"{module['id']}:{number}", text=definition, choices=choices, label=term)


def fairytaleqa(path: Path) -> Splits:
    """FairytaleQA (ACL 2022): the question to an answer (the second text) and its passage; its own split, by story."""
    return apart(*(list(_stories(path, part)) for part in ("train", "val", "test")))


def _stories(path: Path, part: str) -> Iterator[Example]:
    folder = path / "questions" / part
    files = sorted(folder.glob("*-questions.csv"))
    if not files:
        raise InputError(folder, "holds no file NAME-questions.csv")
    for file in files:
        name = file.name.removesuffix("-questions.csv")
        story = path / "section-stories" / part / f"{name}-story.csv"
        sections = {row["section"]: row["text"] for _, row in read_csv(story, ("section", "text"))}
        for number, row in read_csv(file, ("question_id", "cor_section", "question", "answer1")):
            with expecting(file, f"sections of {story.name} in cor_section", line=number):
                passage = "\n".join(sections[section.strip()] for section in row["cor_section"].split(","))
            identifier = f"{name}:{row['question_id']}"
            yield Example(id=identifier, text=passage, second=row["answer1"], target=row["question"])


READERS: dict[str, Callable[[Path], Splits]] = {
    "openstax_summaries": partial(openstax, read=summaries),
    "openstax_syllabus": partial(openstax, read=syllabus),
    "openstax_exercises": partial(openstax, read=exercises),
    "openstax_vocabulary": partial(openstax, read=vocabulary),
    "fairytaleqa": fairytaleqa,
}
