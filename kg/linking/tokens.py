"""The words of a text in the form that names are compared in, with the way back to the code points of the original.

Beyond ``kg.normalise``: plural and possessive, hyphen and slash, British and American spelling, Greek letters, Roman
numerals and letters that meet digits (``il2``, ``IL-2``) are made alike, word by word, in names and texts. Names that
come out equal are told apart by how they are written (``kg.linking.names``).
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from kg.normalise import NormalText, kinds_of, normalise

_TOKEN = re.compile(r"(?<=[a-z0-9])(?:'s(?![a-z0-9])|[-/'](?=[a-z0-9]))|([a-z0-9]+|[^\sa-z0-9])")
_GLUE = frozenset("-/'")
_KIND = re.compile("w+|s|o")
_BETWEEN = re.compile("(?<=[a-z])(?=[0-9])|(?<=[0-9])(?=[a-z])")
MAX_MIXED = 12
MAX_KEPT = 64  # code points of a word whose form is kept; one word may be as long as a text
_GREEK_NAMES = """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau upsilon phi
    chi psi omega
"""
_GREEK = dict(zip("αβγδεζηθικλμνξοπρσςτυφχψω", _GREEK_NAMES.split(), strict=True))
_GREEK_LETTERS = re.compile("[" + "".join(_GREEK) + "]")
_GREEK_WORD = re.compile("[\u0370-\u03ff]{2,}")
_NUMERALS = {
    numeral: str(value)
    for value, numeral in enumerate(["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"], 1)
    if numeral != "x"  # "X-linked"
}
# Endings, first that fits: plural to singular, then British to American; of Greek plurals only those in -sis.
_PLURALS = tuple(
    (plural, len(plural), singular, least)
    for plural, singular, least in (
        ("yses", "ysis", 6),
        ("stases", "stasis", 7),
        ("boses", "bosis", 7),
        ("enoses", "enosis", 7),
        ("choses", "chosis", 7),
        ("croses", "crosis", 7),
        ("gnoses", "gnosis", 7),
        ("theses", "thesis", 7),
        ("uloses", "ulosis", 7),
        ("itides", "itis", 7),
        ("ies", "y", 5),
        ("sses", "ss", 5),
        ("xes", "x", 4),
        ("ches", "ch", 5),
        ("shes", "sh", 5),
        ("ss", "ss", 3),
        ("us", "us", 3),
        ("is", "is", 5),
        ("s", "", 4),
    )
)
_BRITISH = tuple(
    (re.compile(pattern), american)
    for pattern, american in (
        ("ae|oe(?!s?$)", "e"),
        ("(?<=..)our(?=(able|ed|ing|less|al)?$)", "or"),
        ("sulph", "sulf"),
        ("(?<=..[bt])re$", "er"),
        ("(?<=[a-z]{3})is(?=(ed|ing|ation|er)$)", "iz"),
        ("(?<=[a-z]{3}[^aeiouw])ise$", "ize"),
        ("yse(?=d?$)", "yze"),
        ("alogue$", "alog"),
        ("aluminium", "aluminum"),
    )
)


@dataclass(slots=True)
class Tokens:
    """A text by its words: runs of letters and digits, or one other sign; signs that only join words are left out."""

    normal: NormalText
    words: list[str]
    """In the form that names are compared in; one may hold a space (``il 2`` of ``IL2``)."""
    starts: list[int]
    ends: list[int]
    """Of each word in ``normal.text``."""
    text: str
    """The words with one space between them."""
    at: list[int]
    """Where each word begins in ``text``."""

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Code points of the original from word ``first`` to before word ``last``."""
        return self.normal.span(self.starts[first], self.ends[last - 1])

    def surface(self, first: int, last: int) -> str:
        start, end = self.span(first, last)
        return self.normal.original[start:end]

    def words_at(self, start: int, end: int) -> tuple[int, int]:
        """The words that code points ``start`` to ``end`` of the original touch, first and one past the last."""
        first, last = self.normal.place(self.normal.base(start)), self.normal.place(end)
        begin = bisect_left(self.ends, first + 1)
        return begin, max(begin, bisect_left(self.starts, last))


def tokens_of(text: str) -> Tokens:
    """The words of ``text``; linear in its length."""
    normal = normalise(text)
    if normal.text.isascii() and normal.origin is None:
        found = [match for match in _TOKEN.finditer(normal.text) if match.lastindex]
        words = [match[0] for match in found]
        starts = [match.start() for match in found]
        ends = [match.end() for match in found]
    else:
        spans = _spans(normal)
        words = [normal.text[start:end] for start, end in spans]
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
    words = [compared(word) if len(word) <= MAX_KEPT else compared.__wrapped__(word) for word in words]
    at = list(accumulate((len(word) + 1 for word in words), initial=0))
    return Tokens(normal, words, starts, ends, " ".join(words), at[:-1])


def name_key(name: str) -> str:
    """The form of a name under which it is stored and looked up."""
    return tokens_of(name).text


def _spans(normal: NormalText) -> list[tuple[int, int]]:
    text, kinds, origin = normal.text, kinds_of(normal.text), normal.origin
    spans: list[tuple[int, int]] = []
    last = len(text) - 1
    for match in _KIND.finditer(kinds):
        start, end = match.span()
        if origin is not None and spans and start == spans[-1][1] and origin[start] == origin[start - 1]:
            spans[-1] = spans[-1][0], end  # one character that folds to several belongs to one word
            continue
        if end - start == 1:
            char = text[start]
            if char in _GLUE and 0 < start < last and kinds[start - 1] in "ws" and kinds[start + 1] in "ws":
                continue
            if char == "s" and start > 1 and text[start - 1] == "'" and kinds[start - 2] == "w":
                continue
        spans.append((start, end))
    return spans


@lru_cache(maxsize=200_000)
def compared(word: str) -> str:
    """A normalised word as it is compared with others."""
    if not word.isascii():
        return word if _GREEK_WORD.search(word) else _GREEK_LETTERS.sub(lambda letter: _GREEK[letter[0]], word)
    if word in _NUMERALS:
        return _NUMERALS[word]
    if not word.isalpha():
        return _BETWEEN.sub(" ", word) if len(word) <= MAX_MIXED else word
    if len(word) < 4:
        return word
    for plural, length, singular, least in _PLURALS:
        if word.endswith(plural) and len(word) >= least:
            word = word[:-length] + singular
            break
    if len(word) > 4:
        for pattern, american in _BRITISH:
            word = pattern.sub(american, word)
    return word
