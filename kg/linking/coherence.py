"""How close entities are in the graph: mentions of one text tend to be about things that are near each other.

What surrounds an entity is itself, its neighbours, and two further steps along outgoing relationships (which mostly
lead to what is more general), each weighing less the further away and the more connected it is, as in Adamic and Adar
(Social Networks 2003). The closeness of two entities is the product of their surroundings, both of length 1.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_NEIGHBOURS = 32
"""Of an entity in either direction, those with the fewest neighbours themselves."""
MAX_NEAR = 64
DECAY = (1.0, 0.6, 0.4, 0.25)
CHUNK = 50_000


def surroundings(triples: NDArray[np.int32], num_entities: int) -> dict[str, NDArray[Any]]:
    """In compressed sparse rows: ``near_offsets`` ``[num_entities + 1]``, ``near_entities``, ``near_weights`` (uint8,
    255 is 1), and ``degree`` ``[num_entities]``."""
    heads, tails = triples[:, 0].astype(np.int64), triples[:, 2].astype(np.int64)
    pairs = np.unique(np.concatenate([heads * num_entities + tails, tails * num_entities + heads]))
    here, there = (pairs // num_entities, pairs % num_entities) if len(pairs) else (pairs, pairs)
    apart = here != there
    here, there = here[apart], there[apart]
    degree = np.bincount(here, minlength=num_entities)
    order = np.lexsort((there, degree[there], here))
    around = _Rows(here[order], there[order], num_entities, MAX_NEIGHBOURS)
    out = np.unique(heads * num_entities + tails)
    up_from, up_to = (out // num_entities, out % num_entities) if len(out) else (out, out)
    order = np.lexsort((up_to, degree[up_to], up_from))
    up = _Rows(up_from[order], up_to[order], num_entities, 8)
    worth = 1 / np.sqrt(np.log(np.e + degree))
    offsets = [np.zeros(1, np.int64)]
    entities, weights = [], []
    for start in range(0, num_entities, CHUNK):
        rows = np.arange(start, min(start + CHUNK, num_entities))
        above = up.step(*up.step(rows, rows))
        steps = ((rows, rows), around.step(rows, rows), above, up.step(*above))
        values = np.concatenate([np.full(len(near), decay) for (_, near), decay in zip(steps, DECAY, strict=True)])
        owner, near = (np.concatenate(column) for column in zip(*steps, strict=True))
        counts, its_near, its_weight = _strongest(owner - start, near, values, worth, len(rows))
        offsets.append(offsets[-1][-1] + np.cumsum(counts))
        entities.append(its_near)
        weights.append(its_weight)
    return {
        "near_offsets": np.concatenate(offsets).astype(np.uint32),
        "near_entities": np.concatenate([np.zeros(0, np.int32), *entities]).astype(np.int32),
        "near_weights": np.concatenate([np.zeros(0, np.uint8), *weights]).astype(np.uint8),
        "degree": degree.astype(np.uint32),
    }


class _Rows:
    """Neighbours in compressed sparse rows, at most ``limit`` each."""

    def __init__(self, here: NDArray[np.int64], there: NDArray[np.int64], num_entities: int, limit: int) -> None:
        firsts = np.searchsorted(here, np.arange(num_entities + 1))
        self._first, self._count, self._there = firsts[:-1], np.minimum(np.diff(firsts), limit), there

    def step(self, owner: NDArray[np.int64], at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        counts = self._count[at]
        return np.repeat(owner, counts), self._there[ranges(self._first[at], counts)]


def _strongest(
    owner: NDArray[np.int64], near: NDArray[np.int64], value: NDArray[np.float64], worth: NDArray[np.float64], rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]:
    """The largest weights of each owner, of length 1, sorted by entity: their number by owner, entities and weights."""
    order = np.lexsort((-value, near, owner))
    owner, near, value = owner[order], near[order], value[order]
    first = np.concatenate([[True], (owner[1:] != owner[:-1]) | (near[1:] != near[:-1])])
    owner, near, value = owner[first], near[first], value[first] * worth[near[first]]
    order = np.lexsort((near, -value, owner))
    owner, near, value = owner[order], near[order], value[order]
    begins = np.searchsorted(owner, np.arange(rows + 1))
    rank = np.arange(len(owner)) - begins[owner]
    kept = rank < MAX_NEAR
    owner, near, value = owner[kept], near[kept], value[kept]
    length = np.sqrt(np.bincount(owner, value * value, minlength=rows))
    order = np.lexsort((near, owner))
    steps = np.maximum(np.rint(value / length[owner] * 255), 1).astype(np.uint8)
    return np.bincount(owner, minlength=rows), near[order].astype(np.int32), steps[order]


def ranges(firsts: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.int64]:
    """The integers from each first, as many as its count, one after the other."""
    firsts, counts = firsts.astype(np.int64), counts.astype(np.int64)
    ends = np.cumsum(counts)
    found: NDArray[np.int64] = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(
        firsts - (ends - counts), counts
    )
    return found
