"""What every source gives: its release, its entities and triples, and the lossless copy where the input was RDF."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ingest.rdf import Statements
from ingest.report import Report
from kg.errors import InputError
from kg.types import Entity, Name, PropertyValue, Triple


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A release of a source, read and mapped."""

    release: str
    items: Iterable[Entity | Triple]
    statements: Statements | None = None
    licence: str = ""
    """Terms that go with the content wherever it goes; empty where the source asks for nothing."""


class Making:
    """Entities and triples of a source that come bit by bit; each is there once."""

    def __init__(self, source: str, prefix: str, report: Report) -> None:
        self.source, self.prefix, self.report = source, prefix, report
        self._entities: dict[str, Entity] = {}
        self._triples: dict[str, Triple] = {}

    def id(self, key: str) -> str:
        return f"{self.prefix}:{key}"

    def entity(
        self,
        key: str,
        *,
        name: str = "",
        names: Sequence[Name] = (),
        definition: str | None = None,
        kinds: tuple[str, ...] = ("Item",),
        properties: Mapping[str, PropertyValue] | None = None,
    ) -> str:
        """Describe an entity, or say more of it; its id."""
        identifier = self.id(key)
        entity = self._entities.setdefault(identifier, self._blank(identifier, kinds))
        entity.names = tuple(dict.fromkeys([*entity.names, *(names or (Name(name),))]))
        entity.name = entity.names[0].text
        entity.definitions = tuple(dict.fromkeys([*entity.definitions, *([definition] if definition else [])]))
        entity.definition = entity.definitions[0] if entity.definitions else None
        entity.properties = {**entity.properties, **(properties or {})}
        return identifier

    def edge(self, head: str, relation: str, tail: str, **properties: PropertyValue) -> None:
        """State a relationship between two ids."""
        sid = statement_id(head, relation, tail, properties)
        triple = Triple(head=head, relation=relation, tail=tail, source=self.source, sid=sid, properties=properties)
        self._triples[sid] = triple

    def items(self) -> Iterator[Entity | Triple]:
        """Entities, stubs of those that are only referred to, triples."""
        ends = dict.fromkeys(end for triple in self._triples.values() for end in (triple.head, triple.tail))
        yield from self._entities.values()
        yield from (self._blank(end, ("Stub",)) for end in ends if end not in self._entities)
        yield from self._triples.values()

    def _blank(self, identifier: str, kinds: tuple[str, ...]) -> Entity:
        return Entity(id=identifier, iri=f"urn:{identifier}", source=self.source, kinds=kinds)


def statement_id(head: str, relation: str, tail: str, properties: Mapping[str, PropertyValue]) -> str:
    """Hash of a statement, equal for equal ones."""
    said = f" {json.dumps(properties, sort_keys=True, ensure_ascii=False)}" if properties else ""
    return blake2b(f"{head} {relation} {tail}{said}".encode(), digest_size=16).hexdigest()


def slug(name: str) -> str:
    """A name as part of an id: ``I-ESCROW, INC.`` → ``i-escrow-inc``."""
    return "-".join(re.findall(r"\w+", name.casefold()))


def json_lines(file: Path, keys: Sequence[str], report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and objects of the lines of a file, plain or ``.gz``; those without ``keys`` are quarantined.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                report.read += 1
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict) and row.keys() >= set(keys):
                    yield number, row
                else:
                    text = line.decode("utf-8", "replace").rstrip()
                    report.quarantine(file, number, f"expected a JSON object with {', '.join(keys)}", text)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(file, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
