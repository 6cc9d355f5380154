"""The relation between two mentions, each put between marks of its own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from kg.errors import UserError
from kg.linking import Linker
from kg.snapshot import Snapshot
from kg.types import Candidate, Link
from models.batch import PAIR, KnowledgeEncoder
from models.classifiers import RelationClassifier
from models.examples import Example, Mention
from models.kgbert import KGBertForRelationClassification
from models.objectives.classification import SequenceClassification


@dataclass(frozen=True)
class RelationClassification(SequenceClassification):
    """The relation between two mentions, each put between marks of its own.

    Marks are plain signs, ``@ head @`` and ``# tail #``, which every vocabulary has ("entity marker (punct)", arXiv
    2102.01373); a mention's knowledge is read at its marks, too. Entities are those of the examples: see
    ``with_entities``.
    """

    auto_class: ClassVar[Any] = RelationClassifier
    kgbert_class: ClassVar[Any] = KGBertForRelationClassification
    needs: ClassVar[tuple[str, ...]] = ("label", "pair")

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        features = []
        for example in examples:
            text, spans = marked(example)
            links = [link for span in spans if (link := named_link(encoder.linker.snapshot, text, span)) is not None]
            feature = encoder.encode_linked(text, links)
            offsets = feature.pop("offsets")
            places = pair_positions([(span.start, span.end) for span in spans], offsets)
            features.append({**feature, PAIR: places})
        return self.labelled(features, examples)


MARKS = ("@", "#")
"""Before and after the head, and the tail."""


def marked(example: Example) -> tuple[str, list[Mention]]:
    """The text with marks around its pair, and head and tail with their marks in it."""
    assert example.pair is not None
    order = sorted((0, 1), key=lambda which: example.pair[which].start)  # type: ignore[index]
    parts: list[str] = []
    spans: dict[int, Mention] = {}
    position = length = 0
    for which in order:
        mention, mark = example.pair[which], MARKS[which]
        before = example.text[position : mention.start]
        inside = f"{mark} {example.text[mention.start : mention.end]} {mark}"
        start = length + len(before)
        spans[which] = Mention(start=start, end=start + len(inside), entity=mention.entity)
        parts += [before, inside]
        position, length = mention.end, start + len(inside)
    return "".join([*parts, example.text[position:]]), [spans[0], spans[1]]


def spans_of_marks(text: str) -> list[tuple[int, int]]:
    """Head and tail with their marks, as ``marked`` puts them.

    Raises:
        UserError: the text does not have each pair of marks once.
    """
    found = [[match.span() for match in re.finditer(rf"{mark} \S(?:.*?\S)?? {mark}", text)] for mark in MARKS]
    if not all(len(spans) == 1 for spans in found):
        raise UserError(
            "A relation is asked of a text with its head between @ and @ and its tail between # and #, each once, "
            f"as in '@ Acme @ owns # Borealis #.'; got {text[:60]!r}"
        )
    return [spans[0] for spans in found]


def pair_positions(spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The first token of each span; the first of the text where it was cut off."""
    return [next((i for i, (s, e) in enumerate(offsets) if s >= start and e > s), 0) for start, _ in spans]


def with_entities(examples: Sequence[Example], linker: Linker) -> list[Example]:
    """The examples, their pairs linked where the data names no entity at all; where it names some, it knows best."""
    if any(mention.entity is not None for example in examples for mention in example.pair or ()):
        return list(examples)
    return [_linked(example, linker) if example.pair else example for example in examples]


def _linked(example: Example, linker: Linker) -> Example:
    assert example.pair is not None
    head, tail = example.pair
    links = linker.link_spans(example.text, [(head.start, head.end), (tail.start, tail.end)])
    return replace(example, pair=(replace(head, entity=links[0].id), replace(tail, entity=links[1].id)))


def named_link(snapshot: Snapshot, text: str, mention: Mention) -> Link | None:
    """The link that the data itself states; None where its entity is not in the graph."""
    index = snapshot.index.get(mention.entity or "")
    if mention.entity is None or index is None:
        return None
    name = snapshot.names[index]
    candidate = Candidate(entity=index, id=mention.entity, name=name, prior=1.0, score=1.0)
    return Link(
        start=mention.start,
        end=mention.end,
        text=text[mention.start : mention.end],
        id=mention.entity,
        name=name,
        confidence=1.0,
        candidates=(candidate,),
    )
