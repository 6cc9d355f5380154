"""The values that all packages share: entities and triples on the way in, mentions and links on the way out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

Scalar: TypeAlias = str | int | float | bool
"""A value that a Neo4j property can hold; lists of one of them are allowed too."""

PropertyValue: TypeAlias = Scalar | Sequence[str]


class Name(NamedTuple):
    """One surface form of an entity."""

    text: str
    kind: str = "pref"
    """``pref``, ``syn``, ``abbr``, ``broad``, ``narrow`` or ``related``."""
    language: str = ""
    """BCP 47 tag as given; empty when the source gives none."""
    origin: str = ""
    """Who calls it so within the source, for UMLS ``vocabulary/term type/code``, several parted by ``|``."""


@dataclass(slots=True, kw_only=True)  # not frozen: millions are made, and a frozen one takes twice as long
class Entity:
    """A node of the graph: anything with an IRI that a source describes or refers to."""

    id: str
    """CURIE, ``fibo:LegalPerson``; unique in the graph."""
    iri: str
    source: str
    """Data set it was read from: ``fibo``, ``umls``, ``wikidata``, ``doid`` …"""
    kinds: tuple[str, ...]
    """From the fixed list in ``kg.schema.KINDS``; ``("Stub",)`` when referred to and not described."""
    name: str | None = None
    names: tuple[Name, ...] = ()
    """Every surface form kept, the preferred one included, without repeats."""
    definition: str | None = None
    definitions: tuple[str, ...] = ()
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)
    """Literals whose predicate has one value and one datatype throughout the source (Wikidata: in the entity)."""
    tail: tuple[str, ...] = ()
    """All other literals as ``predicate=lexical@lang`` or ``predicate=lexical^^datatype``."""


@dataclass(slots=True, kw_only=True)
class Triple:
    """A relationship of the graph."""

    head: str
    relation: str
    """Relationship type, UPPER_SNAKE (``HAS_REFERENCE_CURRENCY``) or a Wikidata property (``P17``)."""
    tail: str
    source: str
    sid: str
    """Statement id: a hash of the canonical statement, equal wherever it is stated."""
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)
    """Quantifier, cardinality, group or qualifiers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An entity that a mention may denote."""

    entity: int
    """Index of the entity in the snapshot."""
    id: str
    name: str
    prior: float
    """P(entity | alias) from the dictionary alone."""
    score: float
    """What the linker ranks by; in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A mention in a text and what it denotes."""

    start: int
    """First Unicode code point of the mention."""
    end: int
    """One past the last code point, so that ``text[start:end]`` is the mention."""
    text: str
    id: str | None
    """CURIE of the entity; None for NIL."""
    name: str | None
    confidence: float
    candidates: tuple[Candidate, ...] = ()
    """Best first; kept for NIL too."""

    def as_json(self) -> dict[str, object]:
        """The form that the command line and the HTTP API print."""
        return {
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "id": self.id,
            "name": self.name,
            "confidence": round(self.confidence, 4),
            "candidates": [{"id": c.id, "name": c.name, "score": round(c.score, 4)} for c in self.candidates],
        }
