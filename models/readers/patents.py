"""Patent texts: classes, entities and relations, titles; and why one work cites another, in science."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

from kg.errors import InputError
from models.examples import (
    Example,
    Mention,
    Splits,
    apart,
    read_csv,
    read_json_lines,
    read_lines,
    split_groups,
    tag_words,
)

Span: TypeAlias = tuple[int, int, str]
_CODE = re.compile(r"\b[A-HY]\d\d[A-Z]?(\d+/\d+)?\b")
_CLAUSE = re.compile(r"(?:(?<=[.;])\s+|\n+)(?=\S)")
_ENTITY = re.compile(r"T\d+\t(\S+) (\d+) (\d+)\t.*")
_RELATION = re.compile(r"R\d+\t(\S+) Arg1:(T\d+) Arg2:(T\d+)\s*")


def cpc(path: Path, *, width: int) -> Splits:
    """The first ``width`` characters of a code of the Cooperative Patent Classification, from its title and definition.

    Codes in the text are struck out, for those nearby have the same beginning; a main group and all below it stay
    together, since they share their words. A graph of the same classification states the label.
    """
    grouped = []
    for number, row in read_json_lines(path, ("code", "title", "definition")):
        code = str(row["code"])
        text = str(row["definition"]).removeprefix("Definition statement ").removeprefix("This place covers: ")
        text = " ".join(re.sub(r"[{}()]", " ", _CODE.sub(" ", f"{row['title']}. {text}")).split())
        if not _CODE.fullmatch(code):
            raise InputError(path, f"expected a code such as A01B1/02, got {code!r}", line=number)
        grouped.append((code.partition("/")[0], Example(id=code, text=text, label=code[:width])))
    return split_groups(grouped)


def tfh(path: Path, *, read: Callable[[Path, str], Iterator[Example]]) -> Splits:
    """TFH, abstracts of patents on thin film heads (Scientometrics 2020), by sentence.

    Patents of one family have one abstract, which stays on one side.
    """
    files = sorted(path.glob("*.ann"))
    if not files:
        raise InputError(path, "holds no .ann file; expected the folder of abstracts with annotations in brat's format")
    grouped: dict[tuple[str, str], tuple[str, Example]] = {}
    for file in files:
        abstract = "\n".join(read_lines(file.with_suffix(".txt")))
        for example in read(file, abstract):
            grouped.setdefault((example.text, str(example.pair)), (abstract, example))
    return split_groups(grouped.values())


def _annotated(file: Path, abstract: str) -> Iterator[tuple[int, str, dict[str, Span], list[re.Match[str]]]]:
    """Number and text of each sentence, its entities (start, end, type) by id, and all relations of the abstract."""
    entities: dict[str, Span] = {}
    relations = []
    for number, line in enumerate(read_lines(file), 1):
        if not re.match(r"[TR]\d", line):  # notes of the annotators
            continue
        entity, relation = _ENTITY.fullmatch(line), _RELATION.fullmatch(line)
        if entity:
            start, end = int(entity[2]), int(entity[3])
            entities[line.partition("\t")[0]] = (start, end, entity[1])
            if not start < end <= len(abstract):
                raise InputError(file, f"span {start} to {end} of {len(abstract)} characters", line=number)
        elif relation:
            relations.append(relation)
        else:
            raise InputError(file, f"expected an entity or a relation in brat's format, got {line[:60]!r}", line=number)
    ends = [match.start() for match in _CLAUSE.finditer(abstract)]
    ends = [end for end in ends if not any(start < end < stop for start, stop, _ in entities.values())]
    first = 0
    for number, last in enumerate([*ends, len(abstract)]):
        inside = {
            key: (start - first, stop - first, kind)
            for key, (start, stop, kind) in entities.items()
            if first <= start and stop <= last
        }
        yield number, abstract[first:last], inside, relations
        first = last


def tfh_tags(file: Path, abstract: str) -> Iterator[Example]:
    """17 types of entities; of two that overlap the one that begins first, the longer one of two that begin alike."""
    for number, text, entities, _ in _annotated(file, abstract):
        words, tags = tag_words(text, sorted(entities.values(), key=lambda span: (span[0], -span[1])))
        if words:
            yield Example(id=f"{file.stem}:{number}", text=text.strip(), words=words, tags=tags)


def tfh_relations(file: Path, abstract: str) -> Iterator[Example]:
    """15 relations between two entities of a sentence; one that goes from sentence to sentence is left out."""
    for number, text, entities, relations in _annotated(file, abstract):
        for place, (label, *ends) in enumerate(relation.groups() for relation in relations):
            if all(end in entities for end in ends):
                spans = [entities[end] for end in ends]
                head, tail = (Mention(start=start, end=end, entity=None) for start, end, _ in spans)
                if head.end <= tail.start or tail.end <= head.start:
                    yield Example(id=f"{file.stem}:{number}:{place}", text=text, label=label, pair=(head, tail))


def patent_titles(path: Path) -> Splits:
    """The title of a patent from its abstract; continuations with the same title or abstract stay on one side."""
    groups: dict[str, str] = {}
    found: dict[str, tuple[str, Example]] = {}
    for number, row in read_csv(path, ("patent_abstract", "patent_number", "patent_title")):
        abstract, title = (
            " ".join(row[f"patent_{name}"].replace('""', '"').strip(' "').split()) for name in ("abstract", "title")
        )
        if not abstract or not title:
            raise InputError(path, "expected an abstract and a title", line=number)
        group = groups.setdefault(title.casefold(), groups.get(abstract, title))
        groups.setdefault(abstract, group)
        found.setdefault(abstract, (group, Example(id=row["patent_number"], text=abstract, target=title)))
    return split_groups(found.values())


def citation_intent(path: Path) -> Splits:
    """Why a sentence cites: ACL-ARC or SciCite (NAACL 2019) in the form of SciBERT, with their own splits."""

    def read(part: str) -> Iterator[Example]:
        for number, row in read_json_lines(path / f"{part}.txt", ("text", "label")):
            yield Example(id=f"{part}:{number}", text=str(row["text"]), label=str(row["label"]))

    return apart(*(list(read(part)) for part in ("train", "dev", "test")))


READERS: dict[str, Callable[[Path], Splits]] = {
    "cpc_section": partial(cpc, width=1),
    "cpc_class": partial(cpc, width=3),
    "tfh_tags": partial(tfh, read=tfh_tags),
    "tfh_relations": partial(tfh, read=tfh_relations),
    "patent_titles": patent_titles,
    "citation_intent": citation_intent,
}
