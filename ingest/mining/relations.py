"""Relations between terms: by patterns (Hearst 1992), by their heads, by significant co-occurrence (Dunning 1993)."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import log

from ingest.mining.corpus import Sentence
from ingest.mining.terms import MAX_WORDS, Term, Words

SIGNIFICANT = 10.83
"""Log-likelihood ratio that one pair in a thousand reaches by chance (chi squared, one degree of freedom)."""
_WHOLE = r"(?= (?:[^\w<\s]|and|or|in|to|for|is|are|that|which|who)(?: |$)|$)"
"""What follows a term that is not the beginning of a longer name."""
_TERM = rf"(?:(?:an?|the|other) )?<\d+>{_WHOLE}"
_LIST = rf"({_TERM}(?:(?: ,)?(?: (?:and|or))? {_TERM})*)"
_IS_A = r"(?<!of )(<\d+>) (?:is an?(?: (?:kind|type|form) of)?|are (?:kinds|types|forms) of)"
PATTERNS = {
    "such as": re.compile(rf"<(?P<above>\d+)>(?: ,)? such as {_LIST}"),
    "including": re.compile(rf"<(?P<above>\d+)>(?: ,)? (?:including|especially) {_LIST}"),
    "and other": re.compile(rf"{_LIST}(?: ,)? (?:and|or) other <(?P<above>\d+)>"),
    "is a": re.compile(rf"{_IS_A} <(?P<above>\d+)>{_WHOLE}"),
}


@dataclass
class Edge:
    """A relation with its evidence."""

    head: Words
    relation: str
    tail: Words
    methods: set[str] = field(default_factory=set)
    count: int = 0
    score: float = 0.0
    """Log-likelihood ratio of a co-occurrence."""
    example: Sentence | None = None


def find_relations(found: Iterable[Sentence], terms: Mapping[Words, Term], *, min_count: int) -> list[Edge]:
    """SUBCLASS_OF by patterns and by heads, RELATED_TO by co-occurrence in sentences; each pair has the first of them.

    Args:
        min_count: sentences that a co-occurrence needs.
    """
    keys, numbers = list(terms), {form: i for i, key in enumerate(terms) for form in terms[key].forms}
    edges: dict[tuple[int, int], Edge] = {}
    alone: Counter[int] = Counter()
    together: Counter[tuple[int, int]] = Counter()
    examples: dict[tuple[int, int], Sentence] = {}
    total = 0
    for sentence in found:
        total += 1
        line = marked(sentence, numbers)
        met = sorted({int(number) for number in re.findall(r"<(\d+)>", line)})
        alone.update(met)
        for pair in combinations(met, 2):
            together[pair] += 1
            examples.setdefault(pair, sentence)
        for below, above, method in stated(line):
            edge = edges.setdefault((below, above), Edge(keys[below], "SUBCLASS_OF", keys[above], example=sentence))
            edge.methods.add(method)
            edge.count += 1
    for key, term in terms.items():
        if len(key) > 1 and key[-1:] in terms:
            pair = (numbers[key], numbers[key[-1:]])
            edge = edges.setdefault(pair, Edge(key, "SUBCLASS_OF", key[-1:], count=term.count))
            edge.methods.add("head")
    taken = {tuple(sorted(pair)) for pair in edges}
    for pair, count in together.items():
        score = likelihood_ratio(count, alone[pair[0]], alone[pair[1]], total)
        if count >= min_count and score >= SIGNIFICANT and pair not in taken:
            one, other = sorted(keys[i] for i in pair)
            edges[pair] = Edge(one, "RELATED_TO", other, {"co-occurrence"}, count, score, examples[pair])
    return sorted(edges.values(), key=lambda edge: (edge.relation != "SUBCLASS_OF", edge.head, edge.tail))


def marked(sentence: Sentence, numbers: Mapping[Words, int]) -> str:
    """The sentence in lower case with ``<number>`` in place of the longest terms, ``<`` and ``>`` of its own struck."""
    tokens = [word.lower() for word in sentence.tokens if word not in ("<", ">")]
    out, i = list[str](), 0
    while i < len(tokens):
        for size in range(MAX_WORDS, 0, -1):
            if (number := numbers.get(tuple(tokens[i : i + size]))) is not None:
                out.append(f"<{number}>")
                i += size
                break
        else:
            out.append(tokens[i])
            i += 1
    return " ".join(out)


def stated(line: str) -> Iterator[tuple[int, int, str]]:
    """What the patterns say of a marked sentence: below, above, pattern."""
    for method, pattern in PATTERNS.items():
        for match in pattern.finditer(line):
            above = int(match["above"])
            listed = next(group for group in match.groups() if group and "<" in group)
            for below in map(int, re.findall(r"<(\d+)>", listed)):
                if below != above:
                    yield below, above, method


def likelihood_ratio(both: int, one: int, other: int, total: int) -> float:
    """Dunning's ratio for two events in ``total`` sentences; 0 where they meet less often than by chance."""
    if both * total <= one * other:
        return 0.0
    cells = defaultdict[tuple[bool, bool], int](int)
    cells[True, True], cells[True, False], cells[False, True] = both, one - both, other - both
    cells[False, False] = total - one - other + both
    rows, columns = {True: one, False: total - one}, {True: other, False: total - other}
    return 2 * sum(n * log(n * total / (rows[r] * columns[c])) for (r, c), n in cells.items() if n)
