"""One Wikidata entity, whichever format it came in: the values that its statements have."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ingest.vocabulary import MAX_PROPERTY
from kg.types import Scalar

ENTITY = "http://www.wikidata.org/entity/"
EARTH, JULIAN = "Q2", "Q1985786"
UNKNOWN, NONE = "unknown", "none"
NODE_ID = re.compile(r"[QP][1-9]\d{0,17}")
"""Ids of items and properties; lexemes, forms, senses and schemas are values, not nodes."""
_TIME = re.compile(r"([+-]?)0*(\d{1,16})-(\d\d)-(\d\d)T(\d\d:\d\d:\d\d)Z")
_AMOUNT = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


class Value(NamedTuple):
    """What a statement or a qualifier says."""

    lexical: str
    """As in a tail or a qualifier: ``1952-03-11T00:00:00Z/11``, ``30528[30527,30529]Q712226``, ``text@en``."""
    entity: str | None = None
    """Id of the item or property that it refers to."""
    columns: Mapping[str, Scalar] = {}
    """Typed properties by what follows the name of the Wikidata property, as ``""`` and ``"_unit"``."""
    missing: str | None = None
    """``unknown`` or ``none`` where there is no value."""


class Statement(NamedTuple):
    property: str
    value: Value
    rank: str = "normal"
    qualifiers: Mapping[str, str | Sequence[str]] = {}
    """By name on the relationship, ``q_P580``."""


@dataclass(slots=True)
class Record:
    """An entity with its truthy statements; what else the input says of it is counted already."""

    id: str
    datatype: str | None = None
    """Of a property: ``wikibase-item``, ``time`` …"""
    labels: list[tuple[str, str]] = field(default_factory=list)
    """(language, text), as in aliases and descriptions."""
    aliases: list[tuple[str, str]] = field(default_factory=list)
    descriptions: list[tuple[str, str]] = field(default_factory=list)
    sitelinks: int | None = None
    statements: list[Statement] = field(default_factory=list)
    replaced_by: str | None = None
    kept: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def num_read(self) -> int:
        return self.kept.total() + self.skipped.total()


def missing(what: str) -> Value:
    return Value(what, missing=what)


def reference(entity_id: str) -> Value:
    """An item or property; ids of other kinds stay strings."""
    if NODE_ID.fullmatch(entity_id):
        return Value(f"wd:{entity_id}", entity_id)
    return string(entity_id)


def string(text: str) -> Value:
    return Value(text, None, {"": text}) if len(text) <= MAX_PROPERTY else Value(text)


def monolingual(text: str, language: str) -> Value:
    columns = {"": text, "_language": language} if len(text) <= MAX_PROPERTY else {}
    return Value(f"{text}@{language}", None, columns)


def time(text: str, precision: int | None = None, calendar: str = "", **margins: int) -> Value:
    """A point in time; month and day are 00 where the precision (9 year, 10 month, 11 day) leaves them open.

    Years before the common era are negative and have no zero, as in the JSON dump.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a time like +1952-03-11T00:00:00Z, got {text[:60]!r}")
    sign = "-" if match[1] == "-" else ""
    said = f"{sign}{match[2]:0>4}-{match[3]}-{match[4]}T{match[5]}Z"
    columns: dict[str, Scalar] = {"": said, "_year": int(sign + match[2])}
    lexical = said
    if precision is not None:
        lexical += f"/{precision}"
        columns["_precision"] = precision
    if calendar:
        columns["_calendar"] = "julian" if calendar == JULIAN else "gregorian"
        lexical += "/J" if calendar == JULIAN else ""
    for name, margin in margins.items():
        if margin:
            columns[f"_{name}"] = margin
            lexical += f" {name}={margin}"
    return Value(lexical, None, columns)


def quantity(amount: str, unit: str = "", lower: str | None = None, upper: str | None = None) -> Value:
    """A number; ``_amount`` is there where a double does not say the same digits."""
    columns: dict[str, Scalar] = {}
    for name, text in (("", amount), ("_lower", lower), ("_upper", upper)):
        if text is None:
            continue
        if not _AMOUNT.fullmatch(text):
            raise ValueError(f"expected a decimal number, got {text[:60]!r}")
        number = float(text)
        if abs(number) != float("inf"):
            columns[name] = number
        if not name and repr(number).removesuffix(".0") != text.lstrip("+"):
            columns["_amount"] = text.lstrip("+")
    bounds = f"[{(lower or '').lstrip('+')},{(upper or '').lstrip('+')}]" if lower or upper else ""
    if unit:
        columns["_unit"] = f"wd:{unit}" if NODE_ID.fullmatch(unit) else unit
    return Value(f"{amount.lstrip('+')}{bounds}{unit}", None, columns)


def coordinate(latitude: float, longitude: float, precision: float | None = None, globe: str = EARTH) -> Value:
    """``Point(longitude latitude)`` as in the RDF, with the two numbers beside it for search."""
    if not all(isinstance(number, int | float) for number in (latitude, longitude, precision or 0)):
        raise ValueError(f"expected numbers for a coordinate, got {latitude!r}, {longitude!r}, {precision!r}")
    where, said = f"Point({_short(longitude)} {_short(latitude)})", ""
    columns: dict[str, Scalar] = {"_latitude": float(latitude), "_longitude": float(longitude)}
    if precision is not None:
        columns["_precision"] = float(precision)
        said = f"/{_short(precision)}"
    if globe != EARTH:
        columns["_globe"] = f"wd:{globe}"
        where = f"wd:{globe} {where}"
    return Value(where + said, None, {"": where, **columns})


def of_snak(snak: Mapping[str, Any]) -> Value:
    """The value of a JSON snak.

    Raises:
        KeyError, TypeError, AttributeError, ValueError, OverflowError: it is not shaped like one.
    """
    if snak["snaktype"] != "value":
        return missing({"somevalue": UNKNOWN, "novalue": NONE}[snak["snaktype"]])
    kind, value = snak["datavalue"]["type"], snak["datavalue"]["value"]
    if kind == "wikibase-entityid":
        if "id" in value:
            return reference(as_text(value["id"]))
        letter = {"item": "Q", "property": "P"}[value["entity-type"]]
        return reference(f"{letter}{int(value['numeric-id'])}")  # dumps before 2015 give the number alone
    if kind == "string":
        return string(as_text(value))
    if kind == "monolingualtext":
        return monolingual(as_text(value["text"]), as_text(value["language"]))
    if kind == "time":
        margins = {name: _whole(value.get(name) or 0) for name in ("before", "after", "timezone")}
        calendar = local_id(value.get("calendarmodel") or "")
        return time(as_text(value["time"]), _whole(value["precision"]), calendar, **margins)
    if kind == "quantity":
        unit = value.get("unit") or "1"
        return quantity(
            as_text(value["amount"]),
            "" if unit == "1" else local_id(unit),
            value.get("lowerBound"),
            value.get("upperBound"),
        )
    if kind == "globecoordinate":
        globe = local_id(value.get("globe") or EARTH)
        return coordinate(value["latitude"], value["longitude"], value.get("precision"), globe)
    if kind == "bad" or "error" in snak["datavalue"]:
        raise ValueError(f"Wikidata itself could not read the value: {snak['datavalue'].get('error', '')}")
    return Value(json.dumps(value, sort_keys=True, ensure_ascii=False))


def local_id(iri: str) -> str:
    """``Q42`` of an entity's IRI, http or https; other IRIs stay."""
    match = re.fullmatch(r"https?://www\.wikidata\.org/entity/([A-Z]\d[\w-]*)", iri)
    return match[1] if match else iri


def as_qualifiers(values: Mapping[str, Sequence[Value]]) -> dict[str, str | Sequence[str]]:
    """``q_P580``: one text, or a list where there are several."""
    said = {name: sorted({value.lexical for value in found}) for name, found in values.items() if found}
    return {f"q_{name}": texts[0] if len(texts) == 1 else texts for name, texts in sorted(said.items())}


def _short(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


def _whole(value: Any) -> int:
    number = int(value)
    if abs(number) >= 1 << 63:
        raise ValueError(f"expected a number of 64 bits, got {number:.0e}")
    return number


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value
