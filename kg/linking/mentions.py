"""Where a text may mention a name: at the names themselves, and where a text says a name in its own way.

Beside whole names: abbreviations that the text defines, ``carcinoma of the breast`` for ``breast carcinoma``, and
``breast`` in ``breast and ovarian cancer``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from kg.linking.abbreviations import find_abbreviations
from kg.linking.tokens import Tokens, name_key

MAX_OF = 4  # words after "of"
MAX_PART = 2  # words of each part of a coordination


class Way(IntEnum):
    """How a text says a name."""

    NAME = 0
    SHORT = 1
    """An abbreviation that the text defines."""
    ORDER = 2
    """In another order of words."""
    PART = 3
    """A part of a coordination that shares its head with another."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Words of a text that may be a mention, and the key of the name that they may say."""

    first: int
    last: int
    """One past the last word."""
    key: str
    way: Way


def proposals(
    tokens: Tokens, name_ends: Callable[[str, int], Sequence[int]], is_name: Callable[[str], bool]
) -> Iterator[list[Proposal]]:
    """By the word that they begin with, all that may be mentions there, the longest first.

    Args:
        tokens: the text.
        name_ends: where in ``tokens.text`` the names that begin at a place of it end.
        is_name: whether a key is that of a name.
    """
    text, at, ends = tokens.text, tokens.at, _ends(tokens)
    others: dict[int, list[Proposal]] = {}
    for proposal in (*_shorts(tokens, is_name), *_orders(tokens, is_name), *_parts(tokens, is_name)):
        others.setdefault(proposal.first, []).append(proposal)
    for first, start in enumerate(at):
        found = others.get(first, [])
        for end in name_ends(text, start):
            last = ends.get(end)
            if last is not None:
                found.append(Proposal(first, last, text[start:end], Way.NAME))
        if found:
            if len(found) > 1:
                found.sort(key=_longest_first)
            yield found


def _longest_first(proposal: Proposal) -> tuple[int, bool]:
    """Of equally long ones, what the text says of itself comes before the name."""
    return -proposal.last, proposal.way is Way.NAME


def _ends(tokens: Tokens) -> dict[int, int]:
    """One past the last word, by where it ends in ``tokens.text``."""
    ends = {start - 1: number for number, start in enumerate(tokens.at)}
    ends[len(tokens.text)] = len(tokens.at)
    return ends


def _shorts(tokens: Tokens, is_name: Callable[[str], bool]) -> Iterator[Proposal]:
    """Where the short forms stand, all looked for at once: a text may define thousands."""
    original, origin = tokens.normal.original, tokens.normal.origin
    long_forms = ((short, name_key(original[slice(*long)])) for short, long in find_abbreviations(original).items())
    keys = {short: key for short, key in long_forms if is_name(key)}
    lengths = {len(short) for short in keys}
    for at in dict.fromkeys(tokens.starts if origin is None else origin[tokens.starts].tolist()) if keys else ():
        for stop in (at + length for length in lengths):
            key = keys.get(original[at:stop])
            if key is not None:
                first, last = tokens.words_at(at, stop)
                if first < last and tokens.span(first, last) == (at, stop):
                    yield Proposal(first, last, key, Way.SHORT)


def _orders(tokens: Tokens, is_name: Callable[[str], bool]) -> Iterator[Proposal]:
    words = tokens.words
    for place, word in enumerate(words):
        if word != "of":
            continue
        begin = place + 2 if words[place + 1 : place + 2] == ["the"] else place + 1
        for head in range(max(0, place - MAX_PART), place):
            for last in range(min(begin + MAX_OF, len(words)), begin, -1):
                key = " ".join((*words[begin:last], *words[head:place]))
                if is_name(key):
                    yield Proposal(head, last, key, Way.ORDER)
                    break


def _parts(tokens: Tokens, is_name: Callable[[str], bool]) -> Iterator[Proposal]:
    words = tokens.words
    for place, word in enumerate(words):
        if word not in ("and", "or"):
            continue
        for whole in range(min(place + 1 + 2 * MAX_PART, len(words)), place + 2, -1):
            if not is_name(" ".join(words[place + 1 : whole])):
                continue
            for head in range(max(place + 2, whole - MAX_PART), whole):
                for first in range(max(0, place - MAX_PART), place):
                    key = " ".join((*words[first:place], *words[head:whole]))
                    if is_name(key) and not is_name(" ".join(words[first:place])):
                        yield Proposal(first, place, key, Way.PART)
