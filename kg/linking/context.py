"""How well the words around a mention fit an entity: what its definition and its neighbours' names say."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from kg.linking.dictionary import Dictionary
from kg.linking.names import context_words

MAX_NEIGHBOURS = 32  # the nearest; hubs would otherwise know every word
MAX_DEFINITION = 2_000  # code points


class ContextIndex:
    """Word profiles of entities, made when first asked for."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
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
        return math.log((1 + self._dictionary.num_entities) / self._dictionary.word_frequency(word)) + 0.1

    def _make_profile(self, entity: int) -> frozenset[str]:
        dictionary = self._dictionary
        definition = dictionary.definition(entity) or ""
        found = context_words(definition[:MAX_DEFINITION]) | context_words(dictionary.entity_name(entity))
        _, near, weights = dictionary.surroundings(np.array([entity]))
        for neighbour in near[np.argsort(-weights, kind="stable")][:MAX_NEIGHBOURS].tolist():
            found |= context_words(dictionary.entity_name(neighbour))
        return frozenset(found)
