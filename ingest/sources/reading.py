"""What every source gives: its release, its entities and triples, and the lossless copy where the input was RDF."""

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.rdf import Statements
from kg.types import Entity, Triple


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A release of a source, read and mapped."""

    release: str
    items: Iterable[Entity | Triple]
    statements: Statements | None = None
    licence: str = ""
    """Terms that go with the content wherever it goes; empty where the source asks for nothing."""
