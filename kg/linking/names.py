"""What makes a name worth looking for, how it may be turned, and which letter case it insists on."""

import zlib
from collections.abc import Iterable, Iterator

from kg.linking.tokens import name_key, tokens_of
from kg.normalise import words

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
_COMPARED_FUNCTION_WORDS = FUNCTION_WORDS | frozenset(name_key(word) for word in FUNCTION_WORDS)


class Flag:
    """Bits that tell what is known of an alias beside its key; short names insist on their letter case."""

    CAPS_ONLY = 1
    """All capitals and at most 4 letters: an acronym, matches only all-capital text (``ALL`` is no ``all``)."""
    NO_CAPS = 2
    """Small letters, at most 3: a word, never all-capital text (``ice`` is no ``ICE``)."""
    CASE_EXACT = 4
    """Capitals and small letters, at most 3: matches only as written (``Met`` is no ``met``)."""
    ALL_CAPS = 8
    PREFERRED = 16
    """The entity's preferred name."""
    TURNED = 32
    """The name in the order of running text, ``Diabetes Mellitus, Type 2`` as ``type 2 diabetes mellitus``."""


def spelling(surface: str) -> int:
    """16 bits that tell one way of writing a name from another."""
    return zlib.crc32(surface.encode("utf-8", "surrogatepass")) & 0xFFFF


def is_nameable(key: str, flags: int) -> bool:
    """Whether a name with this key and these flags can be looked for in text.

    Left out are numbers, punctuation, single letters, codes of two small letters (``mn`` for Mongolian), function words
    unless in capitals, and what is too long.
    """
    if len(key) > MAX_NAME or not any(map(str.isalpha, key)):
        return False
    if key.isascii() and len(key) < (3 if flags & Flag.NO_CAPS else 2):
        return False
    return bool(flags & Flag.ALL_CAPS) or not _COMPARED_FUNCTION_WORDS.issuperset(words(key))


def turned(key: str) -> Iterator[str]:
    """The key of a name that is put in the order of an index, in the order of running text."""
    parts = key.split(" , ")
    if 1 < len(parts) <= 4 and all(part[:1].isalpha() or part[-1:].isalpha() for part in parts):
        yield " ".join(reversed(parts))


def telling(found: Iterable[str]) -> set[str]:
    """Of words as they are compared, those that can tell one meaning from another."""
    return {word for word in found if len(word) > 2 and word not in _COMPARED_FUNCTION_WORDS}


def context_words(text: str | None) -> set[str]:
    return telling(tokens_of(text).words) if text else set()


def flags_of(alias: str) -> int:
    letters = sum(map(str.isalpha, alias))
    if alias.isupper():
        return Flag.ALL_CAPS | Flag.CAPS_ONLY if letters <= 4 else Flag.ALL_CAPS
    if letters > 3:
        return 0
    return Flag.NO_CAPS if alias == alias.lower() else Flag.CASE_EXACT


def case_allows(flags: int, written: int, surface: str) -> bool:
    """Whether an alias with these flags may be meant by ``surface``."""
    if flags & Flag.CAPS_ONLY:
        return surface.isupper() or (surface[-1:] == "s" and surface[:-1].isupper())  # "MRIs"
    if flags & Flag.CASE_EXACT:
        return written == spelling(surface)
    return not (flags & Flag.NO_CAPS and surface.isupper())
