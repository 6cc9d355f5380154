"""Sentences with two marked entities and the relation between them, as published data sets have them."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from models.examples import Example, Mention, Splits, expecting, read_json_lines, stratified_split

SPACES = {"Q": "wd:", "C": "umls:"}
"""Prefix of an identifier by its first letter: Wikidata items, UMLS concepts."""
TEST_FOLD, VALIDATION_FOLD = 4, 3
"""Of KnowledgeNet, whose folds keep documents together."""
COMPANY_PROPERTIES = frozenset({"CEO", "EMPLOYEE_OR_MEMBER_OF", "FOUNDED_BY", "HEADQUARTERS", "SUBSIDIARY_OF"})


def fewrel(path: Path) -> Splits:
    """FewRel (arXiv 1810.10147, 1910.07124): relation to instances; 54 % training, 6 % validation, 40 % test of each.

    Its own splits part relations, for few-shot episodes; here all relations are told apart, and no sentence is in two
    parts.

    Raises:
        InputError: not a file of that form.
    """
    examples: dict[str, Example] = {}
    with expecting(path, "FewRel: relation to instances with tokens, h and t"):
        for relation, instances in json.loads(path.read_text(encoding="utf-8")).items():
            for number, instance in enumerate(instances):
                example = _instance(instance, relation, f"{relation}:{number}")
                examples.setdefault(example.text + str(example.pair), example)
    train, test = stratified_split(tuple(examples.values()), share=0.4, seed=0)
    train, validation = stratified_split(train, share=0.1, seed=0)
    return Splits(train=train, validation=validation, test=test)


def _instance(instance: dict[str, Any], relation: str, number: str) -> Example:
    starts, position = [], 0
    for token in instance["tokens"]:
        starts.append(position)
        position += len(token) + 1
    mentions = []
    for end in ("h", "t"):
        _, entity, places = instance[end]
        first, last = min(places[0]), max(places[0])
        mentions.append(
            Mention(start=starts[first], end=starts[last] + len(instance["tokens"][last]), entity=_curie(str(entity)))
        )
    return Example(id=number, text=" ".join(instance["tokens"]), label=relation, pair=(mentions[0], mentions[1]))


def knowledgenet(path: Path) -> Splits:
    """KnowledgeNet (EMNLP 2019) as JSON lines, a fact each; fold 4 is the test, fold 3 validation.

    A pair that one sentence states in two properties is left out: it has no single answer.
    """
    parts: dict[str, dict[tuple[Any, ...], set[str]]] = {part: defaultdict(set) for part in Splits.PARTS}
    for number, row in read_json_lines(path, ("fold", "property", "text", "subject", "object")):
        with expecting(path, "a fact with spans and a fold", line=number):
            mentions = tuple(_mention(row[end]) for end in ("subject", "object"))
            part = {TEST_FOLD: "test", VALIDATION_FOLD: "validation"}.get(int(str(row["fold"])), "train")
        if mentions[0].end <= mentions[1].start or mentions[1].end <= mentions[0].start:
            parts[part][str(row["text"]), *mentions].add(str(row["property"]))
    return Splits(
        **{
            part: tuple(
                Example(id=f"{part}:{number}", text=text, label=min(labels), pair=(head, tail))
                for number, ((text, head, tail), labels) in enumerate(facts.items())
                if len(labels) == 1
            )
            for part, facts in parts.items()
        }
    )


def knowledgenet_companies(path: Path) -> Splits:
    """The properties of KnowledgeNet that finance asks for: a company's head, founders, owner, staff and seat."""
    splits = knowledgenet(path)
    return Splits(
        **{
            part: tuple(example for example in getattr(splits, part) if example.label in COMPANY_PROPERTIES)
            for part in Splits.PARTS
        }
    )


def _mention(end: Any) -> Mention:
    start, stop = end["span"]
    return Mention(start=int(start), end=int(stop), entity=_curie(end["id"]) if end["id"] else None)


def _curie(identifier: str) -> str | None:
    return SPACES[identifier[0]] + identifier if identifier[1:].isdigit() and identifier[0] in SPACES else None


READERS = {
    "fewrel": fewrel,
    "knowledgenet": knowledgenet,
    "knowledgenet_companies": knowledgenet_companies,
}
