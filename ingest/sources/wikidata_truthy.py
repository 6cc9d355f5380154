"""Truthy N-Triples of Wikidata (and any RDF with those predicates) to records.

Predicates: the RDF dump format of Wikibase (mediawiki.org/wiki/Wikibase/Indexing/RDF_Dump_Format).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from typing import TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

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
_POINT = re.compile(r"(?:<(\S+)> )?Point\((\S+) (\S+)\)", re.IGNORECASE)
Row: TypeAlias = tuple[str, str, str, str, str | None, str | None]
"""Subject, predicate, object, its kind, language, datatype."""


def records(statements: Statements, report: Report, *, properties: Collection[str] = ()) -> Iterator[Record]:
    """Every item and property, sorted by IRI; triples about pages and data sets are counted in ``report``."""
    sitelinks = _sitelinks(statements.table)
    for iri, rows in groupby(_rows(statements.table), key=lambda row: row[0]):
        id_ = local_id(iri)
        if NODE_ID.fullmatch(id_) and iri.startswith(("http:", "https:")):
            yield _record(Record(id_, sitelinks=sitelinks.get(id_)), rows, properties)
            continue
        number = sum(1 for _ in rows)
        if id_ != iri:
            report.skip("about a lexeme, form, sense or schema", number)
        elif DATA.fullmatch(iri):
            report.skip("about the data set of an entity", number)
        else:
            report.skip("about a page of a wiki (their number is kept)", number)


def _rows(table: pa.Table) -> Iterator[Row]:
    columns = ["subject", "predicate", "object", "kind", "language", "datatype"]
    for batch in table.select(columns).to_batches(max_chunksize=50_000):
        yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _sitelinks(table: pa.Table) -> Mapping[str, int]:
    """Number of pages by entity: what the data set says of itself, else the pages that are listed."""
    about = table.filter(pc.equal(table["predicate"], SCHEMA + "about"))
    pages = Counter(
        local_id(entity)
        for page, entity in zip(about["subject"].to_pylist(), about["object"].to_pylist(), strict=True)
        if not DATA.fullmatch(page)
    )
    said = table.filter(pc.equal(table["predicate"], WIKIBASE + "sitelinks"))
    for subject, number in zip(said["subject"].to_pylist(), said["object"].to_pylist(), strict=True):
        match = DATA.fullmatch(subject)
        if match and number.isdecimal():
            pages[match[1]] = int(number)
    return pages


def _record(record: Record, rows: Iterator[Row], properties: Collection[str]) -> Record:
    texts = {
        RDFS + "label": record.labels,
        SKOS + "altLabel": record.aliases,
        SCHEMA + "description": record.descriptions,
    }
    for _, predicate, said, kind, language, datatype in rows:
        if predicate.startswith(DIRECT):
            name = predicate.removeprefix(DIRECT)
            if properties and name not in properties:
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
            record.replaced_by = local_id(said)
        elif predicate == TYPE and said.startswith(NO_VALUE):
            record.statements.append(Statement(said.removeprefix(NO_VALUE), missing(NONE)))
        elif predicate == TYPE and said in (WIKIBASE + "Item", WIKIBASE + "Property"):
            record.kept["node label"] += 1
        elif predicate == WIKIBASE + "propertyType":
            record.datatype = _hyphened(said.removeprefix(WIKIBASE))
            record.kept["property"] += 1
        else:
            record.skipped["predicate of Wikibase itself"] += 1
    return record


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
