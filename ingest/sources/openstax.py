"""Textbooks of OpenStax as a concept graph: books, chapters, modules in their order, objectives, glossary terms."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ingest.report import Report
from ingest.sources.reading import Making, Reading, json_lines, parse_json, slug
from kg.errors import InputError
from kg.types import Name

LICENCE = "CC BY 4.0 (OpenStax, Rice University): name OpenStax and the book"
_KEYS = ("id", "title", "objectives", "paragraphs", "glossary")


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """Folders with ``modules.jsonl`` and ``toc.json``.

    A module DEFINES its glossary terms, MENTIONS those that its text has, and is followed by the NEXT one of a book;
    a term REFERS_TO those that its definition has.

    Raises:
        InputError: a file is missing, or the table of contents is not as expected.
    """
    made = Making(source_id, prefix, report)
    for folder in paths:
        modules = _modules(folder / "modules.jsonl", made)
        _contents(folder / "toc.json", made, modules)
        _mentions(made, modules)
    return Reading(release="", items=made.items(), licence=LICENCE)


def _modules(file: Path, made: Making) -> dict[str, dict[str, Any]]:
    """Modules by id; one that is malformed is quarantined."""
    modules: dict[str, dict[str, Any]] = {}
    for number, row in json_lines(file, _KEYS, made.report):
        try:
            terms = [(str(term), str(definition)) for term, definition in row["glossary"]]
            objectives, text = [str(said) for said in row["objectives"]], " ".join(row["paragraphs"])
        except (TypeError, ValueError) as error:
            made.report.quarantine(file, number, f"expected lists of texts, and of pairs in glossary: {error}")
            continue
        made.report.keep("module")
        module = made.entity(row["id"], name=str(row["title"]), definition="; ".join(objectives) or None)
        for objective in objectives:
            made.edge(module, "HAS_OBJECTIVE", made.entity(f"objective-{slug(objective)}", name=objective))
        for term, definition in terms:
            made.edge(module, "DEFINES", made.entity(_term(term), names=_names(term), definition=definition))
        modules[str(row["id"])] = {"text": text, "terms": terms}
    return modules


def _term(term: str) -> str:
    return f"term-{slug(_names(term)[0].text)}"


def _names(term: str) -> list[Name]:
    """``gross domestic product (GDP)`` has two names."""
    inside = re.findall(r"\(([^()]+)\)", term)
    return [
        Name(text=" ".join(re.sub(r"\([^()]*\)", " ", term).split()) or term),
        *(Name(said, "syn") for said in inside),
    ]


def _contents(file: Path, made: Making, modules: dict[str, dict[str, Any]]) -> None:
    order: dict[str, list[str]] = defaultdict(list)
    try:
        places = [(str(row["book"]), [str(step) for step in row["path"]], str(row["module"])) for row in _json(file)]
    except (KeyError, TypeError) as error:
        raise InputError(file, f"expected a list of book, path and module ({type(error).__name__}: {error})") from error
    for book, steps, module in places:
        made.report.read += 1
        if module not in modules:
            made.report.skip("place of a module that is not there")
            continue
        made.report.keep("place")
        whole = made.entity(f"book-{slug(book)}", name=book)
        for step in steps:
            part = made.entity(f"chapter-{slug(step)}", name=step)
            made.edge(part, "PART_OF", whole)
            whole = part
        made.edge(made.id(module), "PART_OF", whole)
        order[book].append(made.id(module))
    for followed in order.values():
        for module, following in pairwise(followed):
            made.edge(module, "NEXT", following)


def _json(file: Path) -> Any:
    try:
        return parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(file, f"cannot be read: {error}") from error


def _mentions(made: Making, modules: dict[str, dict[str, Any]]) -> None:
    starts: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for module in modules.values():
        for term, _ in module["terms"]:
            for name in _names(term):
                words = tuple(_words(name.text))
                if words:
                    starts[words[0]].append((words, _term(term)))
    for key, module in modules.items():
        for term in _found(module["text"], starts):
            made.edge(made.id(key), "MENTIONS", made.id(term))
        for term, definition in module["terms"]:
            for other in _found(definition, starts):
                if other != _term(term):
                    made.edge(made.id(_term(term)), "REFERS_TO", made.id(other))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _found(text: str, starts: dict[str, list[tuple[tuple[str, ...], str]]]) -> Iterator[str]:
    """Terms in a text, in the singular as in the glossary or with an s."""
    words = _words(text)
    seen: dict[str, None] = {}
    for i, word in enumerate(words):
        for first in (word, word.removesuffix("s")):
            for term, key in starts.get(first, ()):
                run = words[i : i + len(term)]
                if [*run[:-1], run[-1].removesuffix("s")] == [*term[:-1], term[-1].removesuffix("s")]:
                    seen[key] = None
    yield from seen
