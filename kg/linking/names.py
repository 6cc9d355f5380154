"""What makes a name worth looking for, how it may be varied, and which letter case it insists on."""

import re
import zlib
from collections.abc import Iterator
from enum import IntFlag

from kg.normalise import normalise_name, words

MAX_NAME = 200  # code points; longer names do not occur in running text, and the bound keeps matching linear
FUNCTION_WORDS = frozenset(
    """
    a about after all also although am among an and any are as at be because been before being between both
    but by can could did do does during each either for from had has have he her here his how i if in into is
    it its may me more most my new no non nor not of on one only or other our out over own per same she should since
    so some such than that the their them then there these they this those through to too two under until up
    us very was we were what when where which while who whom whose why will with within without would yet you
    your
    """.split()  # noqa: SIM905 - a list of quoted words is harder to read
)
_LAST_WORD = re.compile(r"[a-z]+$")


class Flag(IntFlag):
    """What is known of an alias beside its normal form; short names insist on their letter case."""

    CAPS_ONLY = 1
    """All capitals and at most 4 letters: an acronym, matches only all-capital text (``ALL`` is no ``all``)."""
    NO_CAPS = 2
    """Small letters, at most 3: a word, never all-capital text (``ice`` is no ``ICE``)."""
    CASE_EXACT = 4
    """Capitals and small letters, at most 3: matches only as written (``Met`` is no ``met``)."""
    ALL_CAPS = 8


def surface_hash(surface: str) -> int:
    return zlib.crc32(surface.encode("utf-8", "surrogatepass"))


def is_nameable(name: str, flags: Flag) -> bool:
    """Whether a normalised name with these flags can be looked for in text.

    Left out are numbers, punctuation, single letters, codes of two small letters (``mn`` for Mongolian), function words
    unless in capitals, and what is too long.
    """
    if len(name) > MAX_NAME or not any(map(str.isalpha, name)):
        return False
    if name.isascii() and len(name) < (3 if flags & Flag.NO_CAPS else 2):
        return False
    return bool(flags & Flag.ALL_CAPS) or not FUNCTION_WORDS.issuperset(words(name))


def variants(name: str) -> Iterator[str]:
    """Plural or singular of the last word of a normalised name, and the name without possessives."""
    if "'s " in name:
        yield name.replace("'s ", " ")
    last = _LAST_WORD.search(name)
    if not last or len(last[0]) < 3 or last[0] in FUNCTION_WORDS:
        return
    if name.endswith("ies") and len(last[0]) > 4:
        yield name[:-3] + "y"
    elif name.endswith("s"):
        if not name.endswith(("ss", "us", "is")) and len(last[0]) > 3:
            yield name[:-1]
    elif name.endswith("y") and name[-2] not in "aeiou":
        yield name[:-1] + "ies"
    elif name.endswith(("x", "z", "ch", "sh")):
        yield name + "es"
    else:
        yield name + "s"


def context_words(text: str | None) -> set[str]:
    """Words of a text that can tell one meaning from another."""
    return {w for w in words(normalise_name(text)) if len(w) > 2 and w not in FUNCTION_WORDS} if text else set()


def flags_of(alias: str) -> Flag:
    letters = sum(map(str.isalpha, alias))
    if alias.isupper():
        return Flag.ALL_CAPS | Flag.CAPS_ONLY if letters <= 4 else Flag.ALL_CAPS
    if letters > 3:
        return Flag(0)
    return Flag.NO_CAPS if alias == alias.lower() else Flag.CASE_EXACT


def case_allows(flags: Flag, crc: int, surface: str, variant: bool) -> bool:
    """Whether an alias with these flags may be meant by ``surface``."""
    if flags & Flag.CAPS_ONLY:
        return surface.isupper() or (variant and surface[:-1].isupper())  # "MRIs"
    if flags & Flag.CASE_EXACT:
        return crc == surface_hash(surface)
    return not (flags & Flag.NO_CAPS and surface.isupper())
