"""Which words of a text are mentions: what speaks for a span, and the best set of spans that do not overlap."""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from kg.linking.document import Mention
from kg.linking.learned import LearnedNames
from kg.linking.ranker import Array
from kg.linking.tokens import Tokens

_EDGE = "^"
MIN_MENTION = 0.05  # probability below which a span is not looked at further


def span_features(tokens: Tokens, mention: Mention, local: Array, names: LearnedNames, *, inside: bool) -> list[str]:
    """Named features of a span that may be a mention.

    Args:
        local: log-probabilities of its candidates from spelling alone ``[cand]``.
        inside: whether it lies within a longer span.
    """
    words, first, last = tokens.words, mention.first, mention.last
    seen, other = names.spans(mention.key)
    counts = f"{_size(seen)}/{_size(other)}"
    share = round(8 * (seen + 0.3) / (seen + other + 0.6))
    before = words[first - 1] if first else _EDGE
    after = words[last] if last < len(words) else _EDGE
    before2 = words[first - 2] if first > 1 else _EDGE
    after2 = words[last + 1] if last + 1 < len(words) else _EDGE
    surface = tokens.surface(first, last)
    shape = "A" if surface.isupper() else "a" if surface.islower() else "Aa"
    length = min(last - first, 4)
    if len(local):
        top = int(local.argmax())
        entity = int(mention.candidates.entities[top])
        known = f"{round(4 * float(np.exp(local[top])))}|{_size(names.entity_counts[entity])}"
    else:
        entity, known = -1, "none"
    in_names = bool(mention.candidates) and max(mention.candidates.priors) > 0
    glued_before = tokens.starts[first] > 0 and tokens.normal.text[tokens.starts[first] - 1] in "-/"
    end = tokens.ends[last - 1]
    glued_after = end < len(tokens.normal.text) and tokens.normal.text[end] in "-/"
    glue = f"{glued_before:d}{glued_after:d}"
    kind = f"{mention.way:d}{in_names:d}{inside:d}"
    return [
        f"counts={counts}",
        f"share={share}",
        f"counts,kind={counts},{kind}",
        f"counts,shape={counts},{shape},{length}",
        f"key={mention.key}",
        f"key,before={mention.key},{before}",
        f"key,after={mention.key},{after}",
        f"kind={kind}",
        f"known={known}",
        f"known,counts={known},{share}",
        f"entity={entity}",
        f"shape={shape},{length},{min(len(surface), 12)}",
        f"glue={glue},{share}",
        f"last={words[last - 1]}",
        f"first={words[first]}",
        f"suffix={words[last - 1][-3:]}",
        f"before={before}",
        f"after={after}",
        f"before2={before2},{before}",
        f"after2={after},{after2}",
        f"before,share={before},{share}",
        f"after,share={after},{share}",
        f"inside,after={inside:d},{after}",
    ]


def worth(share: float) -> float:
    """What a span that is a mention with this probability adds to a choice of spans."""
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share)) - math.log(MIN_MENTION / (1 - MIN_MENTION))


def best_spans(mentions: Sequence[Mention], worth: Sequence[float]) -> list[int]:
    """The spans without overlaps whose worth is greatest in sum; those worth nothing or less are left out."""
    order = sorted(range(len(mentions)), key=lambda i: (mentions[i].last, mentions[i].first))
    ends = [mentions[i].last for i in order]
    totals = [0.0]
    for rank, i in enumerate(order):
        before = bisect_right(ends, mentions[i].first, hi=rank)
        totals.append(max(totals[-1], totals[before] + worth[i]))
    chosen = []
    rank = len(order)
    while rank:
        i = order[rank - 1]
        if totals[rank] > totals[rank - 1]:
            chosen.append(i)
            rank = bisect_right(ends, mentions[i].first, hi=rank - 1)
        else:
            rank -= 1
    return chosen[::-1]


def _size(count: int) -> int:
    """A count in steps that double."""
    return int(count).bit_length()
