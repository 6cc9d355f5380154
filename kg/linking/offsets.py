"""Offsets in the units that other languages count in: UTF-16 (JavaScript, Java) and UTF-8 bytes."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

OffsetUnit: TypeAlias = Literal["code-point", "utf-16", "utf-8"]


def offsets_of(text: str, unit: OffsetUnit) -> NDArray[np.int64]:
    """Offset in ``unit`` of each code point of ``text`` and of its end ``[len(text) + 1]``."""
    if unit == "code-point":
        return np.arange(len(text) + 1)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    widths = 1 + (codes > 0xFFFF) if unit == "utf-16" else 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
    return np.concatenate([[0], np.cumsum(widths)])
