"""Refuse hostile XML before any RDF parser sees it.

The RDF parser in use aborts its whole process on an entity bomb. FIBO declares its prefixes as entities, so entities as
such are no sign of malice: small, flat, internal ones pass. That parser also takes declarations from where XML has none
(``<!doctype``, comments, values, a second document type), so all that look like one must be ones that expat has seen.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

from kg.errors import InputError

MAX_ENTITIES, MAX_VALUE, MAX_GROWTH = 500, 1024, 20
PIECE = 1 << 20
LONGEST = 256
"""Bytes of the end of a piece that may be looked at with the next one; no name of an entity comes near it."""
_REFERENCE = re.compile(rb"&([A-Za-z_][\w.-]*);")
_DECLARATION = re.compile(rb"<!entity", re.IGNORECASE)


def screen_xml(path: Path, content: BinaryIO) -> None:
    """Pass, or raise; the content is read to its end, a piece at a time.

    Raises:
        InputError: external or parameter entities, entities within entities, too many or too long ones, or a document
            that they would blow up; also a file that is not XML.
    """
    values: dict[str, str] = {}

    def declared(name: str, is_parameter: int, value: str | None, base: Any, system: str | None, *rest: Any) -> None:
        if is_parameter:
            raise InputError(path, f"declares the parameter entity %{name}; refused")
        if value is None:
            raise InputError(path, f"declares the external entity {name} ({system}); refused")
        if len(value) > MAX_VALUE or "&" in value or "%" in value:
            raise InputError(path, f"the entity {name} is longer than {MAX_VALUE} or holds another one; refused")
        if len(name) > LONGEST // 4 or not name.isascii():
            raise InputError(path, f"the entity {name[:20]}… has a long or foreign name; refused")
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
    size = growth = declarations = 0
    held = b""
    try:
        while piece := content.read(PIECE):
            parser.Parse(piece, False)
            size += len(piece)
            seen = held + piece
            cut = max(seen.rfind(mark, -LONGEST) for mark in (b"<", b"&"))  # what begins there may not be whole
            seen, held = (seen[:cut], seen[cut:]) if cut >= 0 else (seen, b"")
            declarations += len(_DECLARATION.findall(seen))
            growth += _growth(seen, values)
            if growth > MAX_GROWTH * max(size, PIECE):
                break
        else:
            parser.Parse(b"", True)
            declarations += len(_DECLARATION.findall(held))
            growth += _growth(held, values)
    except expat.ExpatError as error:
        raise InputError(path, f"not XML: {expat.errors.messages[error.code]}", line=error.lineno) from error
    if declarations != len(values):
        raise InputError(path, "declares an entity twice, or in a comment or a value; refused")
    if growth > MAX_GROWTH * size:
        raise InputError(path, f"its entities would make {growth:,} characters of {size:,}; refused")


def _growth(content: bytes, values: Mapping[str, str]) -> int:
    """Characters that the entities in ``content`` make."""
    if not values:
        return 0
    return sum(
        len(values.get(name.decode(), "")) * count for name, count in Counter(_REFERENCE.findall(content)).items()
    )
