"""One normal form of text, for names and for running text alike, with the way back to the original code points.

Per code point: compatibility decomposition (NFKD), case folding, the generic accents stripped, dashes and
apostrophes unified, control characters as spaces, invisible ones dropped; then white space folded. Working per code
point makes the way back exact and the time linear; composed and decomposed accents come out equal because accents go.
Marks that carry meaning outside Latin, Greek and Cyrillic (Devanagari vowels, Japanese voicing) stay.
"""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DASHES = frozenset("‐‑‒–—―−﹘﹣-⁃")
_APOSTROPHES = frozenset("'`´ʹʻʼʽʾʿˈ‘’‚‛′‵`'")
_GENERIC_MARKS = (
    (0x0300, 0x036F),  # combining diacritical marks
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFE20, 0xFE2F),
    (0xE0100, 0xE01EF),
)
# Scripts written without spaces between words: every character is a token, so that names inside a run are found.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SPACE, _WORD, _SINGLE, _OTHER = " wso"


class _Fold(dict[int, str]):
    """Normal form by code point, filled as text needs it (at most one entry per code point of Unicode)."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold(chr(code))
        return folded


class _Kind(dict[int, str]):
    def __missing__(self, code: int) -> str:
        char = chr(code)
        if char == " ":
            kind = _SPACE
        elif _UNSPACED.match(char):
            kind = _SINGLE
        else:
            kind = _WORD if char.isalnum() or unicodedata.category(char)[0] == "M" else _OTHER
        self[code] = kind
        return kind


def _fold(char: str) -> str:
    if char in _DASHES:
        return "-"
    if char in _APOSTROPHES:
        return "'"
    category = unicodedata.category(char)
    if char.isspace() or category == "Cc":
        return " "
    if category == "Cs":
        return "\N{REPLACEMENT CHARACTER}"  # half of a pair has no UTF-8 form
    if category == "Cf" or _is_generic_mark(char):
        return ""
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return parts if parts == char else "".join(_fold(part) for part in parts)


def _is_generic_mark(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _GENERIC_MARKS)


_FOLD, _KIND = _Fold(), _Kind()


@dataclass(frozen=True, slots=True)
class NormalText:
    """A text in normal form that remembers where it came from."""

    original: str
    text: str
    origin: NDArray[np.int64] | None
    """Index in ``original`` of each code point of ``text``; None when they are the same indices."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Code points of the original that ``text[start:end]`` stands for, accents after the last one included."""
        if self.origin is None:
            return start, end
        first, last = int(self.origin[start]), int(self.origin[end - 1]) + 1
        while last < len(self.original) and _is_generic_mark(self.original[last]):
            last += 1
        return first, last

    def base(self, index: int) -> int:
        """The code point of the original that an accent at ``index`` stands on; of any other, ``index`` itself."""
        while 0 < index < len(self.original) and self.origin is not None and _is_generic_mark(self.original[index]):
            index -= 1
        return index

    def place(self, index: int) -> int:
        """Where code point ``index`` of the original, or what comes after it, is in ``text``."""
        return index if self.origin is None else int(np.searchsorted(self.origin, index))


def kinds_of(text: str) -> str:
    """The kind of each code point of a normalised text.

    ``w`` is part of a word, ``s`` a character of a script without spaces, a word of its own, ``o`` another visible one.
    """
    return text.translate(_KIND)


def normalise(text: str) -> NormalText:
    """The normal form of ``text``; linear in its length for any Unicode, lone surrogates included."""
    folded = text.translate(_FOLD)
    if text.isascii():
        if "  " not in folded:
            return NormalText(text, folded, None)
        origin = np.arange(len(text))
    else:
        fold = _FOLD
        lengths = np.fromiter((len(fold[ord(char)]) for char in text), np.int64, len(text))
        if "  " not in folded and bool((lengths == 1).all()):
            return NormalText(text, folded, None)
        origin = np.repeat(np.arange(len(text)), lengths)
    codes = np.frombuffer(folded.encode("utf-32-le"), np.uint32)
    keep = np.ones(len(codes), bool)
    keep[1:] = (codes[1:] != 32) | (codes[:-1] != 32)
    return NormalText(text, codes[keep].tobytes().decode("utf-32-le"), origin[keep])


def normalise_name(name: str) -> str:
    """The key under which a name is stored and looked up."""
    return normalise(name).text.strip()


def words(text: str) -> list[str]:
    """The word tokens of a normalised text."""
    return _WORDS.findall(text)


_WORDS = re.compile(r"[^\W_]+")
