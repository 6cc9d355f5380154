"""What every source gives: its release, its entities and triples, and the lossless copy where the input was RDF."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ingest.compression import MAX_LINE, TOO_LONG, numbered
from ingest.rdf import Statements
from ingest.report import MAX_TEXT, Report
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
    """Numbers and objects of the lines of a file, plain or packed; those without ``keys`` are quarantined.

    Raises:
        InputError: it cannot be read.
    """
    for number, line in numbered(file):
        report.read += 1
        try:
            row = None if len(line) == MAX_LINE else parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and row.keys() >= set(keys):
            yield number, row
        else:
            reason = TOO_LONG if len(line) == MAX_LINE else f"expected a JSON object with {', '.join(keys)}"
            report.quarantine(file, number, reason, line[: 4 * MAX_TEXT].decode("utf-8", "replace").rstrip())


def parse_json(content: bytes) -> Any:
    """What foreign JSON says.

    Raises:
        ValueError: it is no JSON in UTF-8, nested too deeply, or holds text that no store takes.
    """
    try:
        found = _DECODER.decode(content.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _HALF_PAIR.search(content):  # or what looks like it, an escaped backslash before u
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_HALF_PAIR = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
"""Half of a surrogate pair: JSON may hold it, text in a store may not."""
_DECODER = json.JSONDecoder(parse_constant=_no_number)
