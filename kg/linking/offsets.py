"""Offsets in the units that other languages count in: UTF-16 (JavaScript, Java) and UTF-8 bytes."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kg.types import Link

OffsetUnit: TypeAlias = Literal["code-point", "utf-16", "utf-8"]


def offsets_of(text: str, unit: OffsetUnit) -> NDArray[np.int64]:
    """Offset in ``unit`` of each code point of ``text`` and of its end ``[len(text) + 1]``."""
    if unit == "code-point":
        return np.arange(len(text) + 1)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    widths = 1 + (codes > 0xFFFF) if unit == "utf-16" else 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
    return np.concatenate([[0], np.cumsum(widths)])


def links_as_json(text: str, links: Sequence[Link], unit: OffsetUnit = "code-point") -> list[dict[str, object]]:
    """The links of ``text`` as the command line and the HTTP API print them, start and end counted in ``unit``."""
    offset = offsets_of(text, unit)
    return [{**link.as_json(), "start": int(offset[link.start]), "end": int(offset[link.end])} for link in links]
