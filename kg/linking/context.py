"""How well the words around a mention fit an entity: what its definition and its neighbours' names say."""

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from kg.linking.dictionary import Dictionary
from kg.linking.names import context_words
from kg.snapshot import Snapshot

MAX_NEIGHBOURS = 64  # by entity index; hubs would otherwise know every word
MAX_DEFINITION = 2_000  # code points


class ContextIndex:
    """Word profiles of entities, made when first asked for."""

    def __init__(self, snapshot: Snapshot, dictionary: Dictionary) -> None:
        self._snapshot, self._dictionary = snapshot, dictionary
        self._profile = lru_cache(maxsize=50_000)(self._make_profile)
        self._idf = lru_cache(maxsize=200_000)(self._make_idf)

    def scores(self, around: set[str], entities: Sequence[int]) -> list[float]:
        """Cosine of idf-weighted words between a text and each entity, in [0, 1].

        Words of the text that none of the entities knows are left out.
        """
        profiles = [self._profile(entity) for entity in entities]
        known = sorted(around.intersection(*[set().union(*profiles)]))
        length = math.sqrt(sum(self._idf(word) ** 2 for word in known))
        return [self._cosine(known, length, profile) for profile in profiles]

    def _cosine(self, known: Sequence[str], length: float, profile: frozenset[str]) -> float:
        shared = sum(self._idf(word) ** 2 for word in known if word in profile)
        return shared / (length * math.sqrt(sum(self._idf(word) ** 2 for word in sorted(profile)))) if shared else 0.0

    def _make_idf(self, word: str) -> float:
        return math.log((1 + self._snapshot.num_entities) / self._dictionary.word_frequency(word)) + 0.1

    def _make_profile(self, entity: int) -> frozenset[str]:
        definition = self._snapshot.entities["definition"][entity].as_py() or ""
        found = context_words(definition[:MAX_DEFINITION]) | context_words(self._snapshot.names[entity])
        offsets, neighbours = self._adjacency
        for neighbour in neighbours[offsets[entity] : offsets[entity + 1]][:MAX_NEIGHBOURS]:
            found |= context_words(self._snapshot.names[neighbour])
        return frozenset(found)

    @cached_property
    def _adjacency(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Neighbours in either direction in compressed sparse rows: offsets ``[num_entities + 1]`` and entities."""
        triples = self._snapshot.triples
        here = np.concatenate([triples[:, 0], triples[:, 2]])
        there = np.concatenate([triples[:, 2], triples[:, 0]])
        order = np.lexsort((there, here))
        return np.searchsorted(here[order], np.arange(self._snapshot.num_entities + 1)), there[order]
