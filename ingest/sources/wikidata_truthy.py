"""Truthy N-Triples of Wikidata (and any RDF with those predicates) to records.

Predicates: the RDF dump format of Wikibase (mediawiki.org/wiki/Wikibase/Indexing/RDF_Dump_Format).
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias
from urllib.parse import unquote

import numpy as np
import pyarrow.compute as pc

from ingest.parts import by_subject, plain
from ingest.rdf import Statements
from ingest.report import Report
from ingest.sources.wikidata_record import (
    ENTITY,
    NODE_ID,
    NONE,
    UNKNOWN,
    Record,
    Statement,
    Value,
    coordinate,
    local_id,
    missing,
    monolingual,
    quantity,
    reference,
    string,
    time,
)
from ingest.vocabulary import OWL, RDFS, SKOS, TYPE, XSD

DIRECT, NORMALIZED = "http://www.wikidata.org/prop/direct/", "http://www.wikidata.org/prop/direct-normalized/"
NO_VALUE, GENID = "http://www.wikidata.org/prop/novalue/", "/.well-known/genid/"
SCHEMA, WIKIBASE = "http://schema.org/", "http://wikiba.se/ontology#"
DATA = re.compile(r"https?://www\.wikidata\.org/wiki/Special:EntityData/([QP]\d+)")
FILE_PATH = "http://commons.wikimedia.org/wiki/Special:FilePath/"
SAID, MAX_NEAR = 1 << 15, 1 << 28
_POINT = re.compile(r"(?:<(\S+)> )?Point\((\S+) (\S+)\)", re.IGNORECASE)
Row: TypeAlias = tuple[str, str, str, str | None, str | None]
"""Predicate, object, its kind, language, datatype."""


def records(statements: Statements, report: Report, *, properties: Collection[str] = ()) -> Iterator[Record]:
    """Every item and property; triples about pages, data sets and anonymous nodes are counted in ``report``."""
    sitelinks = _sitelinks(statements)
    report.skip("about an anonymous node", statements.blank.num_rows)
    for iri, rows in by_subject(statements, "predicate", "object", "kind", "language", "datatype"):
        id_ = local_id(iri)
        if NODE_ID.fullmatch(id_) and iri.startswith(("http:", "https:")):
            yield _record(Record(id_, sitelinks=sitelinks.get(id_)), rows, properties)
        elif id_ != iri:
            report.skip("about a lexeme, form, sense or schema", len(rows))
        elif DATA.fullmatch(iri):
            report.skip("about the data set of an entity", len(rows))
        else:
            report.skip("about a page of a wiki (their number is kept)", len(rows))


class Sitelinks:
    """Number of pages by entity: what its data set says, else those that are listed; all of Wikidata takes 280 MB."""

    def __init__(self) -> None:
        self._items = np.zeros(MAX_NEAR, np.uint16)  # memory that nothing is written to is never taken
        """By number of the item: 0 for nothing known, a count of pages, or what is said and SAID."""
        self._others: dict[str, int] = {}
        """The same for properties, and for items beyond those that Wikidata has."""

    def get(self, id_: str) -> int | None:
        """None where nothing is known."""
        is_near = id_[0] == "Q" and int(id_[1:]) < MAX_NEAR
        found = int(self._items[int(id_[1:])]) if is_near else self._others.get(id_, 0)
        return found & ~SAID if found else None

    def count(self, id_: str) -> None:
        """One more page."""
        numbers, place = self._place(id_)
        if not numbers[place] & SAID:
            numbers[place] += 1

    def say(self, id_: str, number: int) -> None:
        if number < SAID:
            numbers, place = self._place(id_)
            numbers[place] = number | SAID

    def _place(self, id_: str) -> tuple[Any, int | str]:
        if id_[0] == "Q" and int(id_[1:]) < MAX_NEAR:
            return self._items, int(id_[1:])
        self._others.setdefault(id_, 0)
        return self._others, id_


def _sitelinks(statements: Statements) -> Sitelinks:
    found = Sitelinks()
    for part in statements.parts():
        subjects, predicates, objects = (plain(part[name]) for name in ("subject", "predicate", "object"))
        for predicate in (SCHEMA + "about", WIKIBASE + "sitelinks"):
            where = pc.equal(predicates, predicate)
            rows = zip(subjects.filter(where).to_pylist(), objects.filter(where).to_pylist(), strict=True)
            for subject, said in rows:
                match = DATA.fullmatch(subject)
                if predicate == WIKIBASE + "sitelinks":
                    if match and said.isdecimal():
                        found.say(match[1], int(said))
                elif not match and NODE_ID.fullmatch(id_ := local_id(said)):
                    found.count(id_)
    return found


def _record(record: Record, rows: Sequence[Row], properties: Collection[str]) -> Record:
    texts = {
        RDFS + "label": record.labels,
        SKOS + "altLabel": record.aliases,
        SCHEMA + "description": record.descriptions,
    }
    for predicate, said, kind, language, datatype in rows:
        if predicate.startswith(DIRECT):
            name = predicate.removeprefix(DIRECT)
            if not _is_property(name):
                record.skipped["predicate with what is no id of a property"] += 1
            elif properties and name not in properties:
                record.skipped["statement of a property that was not asked for"] += 1
            else:
                record.statements.append(Statement(name, _value(said, kind, language, datatype)))
        elif predicate in texts:
            texts[predicate].append((language or "", said))
        elif predicate in (SKOS + "prefLabel", SCHEMA + "name"):
            record.skipped["another copy of a label"] += 1
        elif predicate.startswith(NORMALIZED):
            record.skipped["external id once more, as an IRI"] += 1
        elif predicate == OWL + "sameAs" and NODE_ID.fullmatch(local_id(said)):
            if record.replaced_by:
                record.skipped["redirect beside another one"] += 1
            record.replaced_by = record.replaced_by or local_id(said)
        elif predicate == TYPE and said.startswith(NO_VALUE) and _is_property(said.removeprefix(NO_VALUE)):
            record.statements.append(Statement(said.removeprefix(NO_VALUE), missing(NONE)))
        elif predicate == TYPE and said in (WIKIBASE + "Item", WIKIBASE + "Property"):
            record.kept["node label"] += 1
        elif predicate == WIKIBASE + "propertyType":
            record.datatype = _hyphened(said.removeprefix(WIKIBASE))
            record.kept["property"] += 1
        else:
            record.skipped["predicate of Wikibase itself"] += 1
    return record


def _is_property(name: str) -> bool:
    return name[:1] == "P" and NODE_ID.fullmatch(name) is not None


def _value(said: str, kind: str, language: str | None, datatype: str | None) -> Value:
    if kind == "blank" or (kind == "iri" and GENID in said):
        return missing(UNKNOWN)
    if kind == "iri":
        return reference(local_id(said)) if local_id(said) != said else string(unquote(said.removeprefix(FILE_PATH)))
    if language:
        return monolingual(said, language)
    try:
        if datatype == XSD + "dateTime":
            return time(said)
        if datatype == XSD + "decimal":
            return quantity(said)
        if match := _POINT.fullmatch(said):
            return coordinate(float(match[3]), float(match[2]), globe=local_id(match[1] or ENTITY + "Q2"))
    except ValueError:
        pass  # an odd lexical form is kept as the text that it is
    if datatype in (None, XSD + "string"):
        return string(said)
    return Value(f"{said}^^{str(datatype).removeprefix(XSD)}")


def _hyphened(name: str) -> str:
    """``WikibaseItem`` of the RDF is ``wikibase-item`` of the JSON."""
    return {"GlobeCoordinate": "globe-coordinate", "CommonsMedia": "commonsMedia"}.get(
        name, re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
    )
