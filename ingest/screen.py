"""Refuse hostile XML before any RDF parser sees it.

The RDF parser in use aborts its whole process on an entity bomb. FIBO declares its prefixes as entities, so entities as
such are no sign of malice: small, flat, internal ones pass. That parser also takes declarations from where XML has none
(``<!doctype``, comments, values, a second document type), so all that look like one must be ones that expat has seen.
"""

import re
from pathlib import Path
from typing import Any
from xml.parsers import expat

from kg.errors import InputError

MAX_ENTITIES, MAX_VALUE, MAX_GROWTH = 500, 1024, 20
_REFERENCE = re.compile(rb"&([A-Za-z_][\w.-]*);")
_DOCTYPE = re.compile(rb"<!doctype", re.IGNORECASE)
_DECLARATION = re.compile(rb"<!entity", re.IGNORECASE)


def screen_xml(path: Path, content: bytes) -> None:
    """Pass, or raise.

    Raises:
        InputError: external or parameter entities, entities within entities, too many or too long ones, or a document
            that they would blow up; also a file with a document type that is not XML.
    """
    if not _DOCTYPE.search(content):
        return
    values: dict[str, str] = {}

    def declared(name: str, is_parameter: int, value: str | None, base: Any, system: str | None, *rest: Any) -> None:
        if is_parameter:
            raise InputError(path, f"declares the parameter entity %{name}; refused")
        if value is None:
            raise InputError(path, f"declares the external entity {name} ({system}); refused")
        if len(value) > MAX_VALUE or "&" in value or "%" in value:
            raise InputError(path, f"the entity {name} is longer than {MAX_VALUE} or holds another one; refused")
        values[name] = value
        if len(values) > MAX_ENTITIES:
            raise InputError(path, f"declares more than {MAX_ENTITIES} entities; refused")

    def doctype(name: str, system: str | None, public: str | None, internal: int) -> None:
        if system or public:
            raise InputError(path, f"names an external document type ({system or public}); refused")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = declared
    parser.StartDoctypeDeclHandler = doctype
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise InputError(path, f"not XML: {expat.errors.messages[error.code]}", line=error.lineno) from error
    if len(_DECLARATION.findall(content)) != len(values):
        raise InputError(path, "declares an entity twice, or in a comment or a value; refused")
    growth = sum(len(values.get(match[1].decode(), "")) for match in _REFERENCE.finditer(content))
    if growth > MAX_GROWTH * len(content):
        raise InputError(path, f"its entities would make {growth:,} characters of {len(content):,}; refused")
