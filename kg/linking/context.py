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

    def __init__(self, dictionary: Dictionary, *, graph: bool = True) -> None:
        """
        Args:
            graph: whether the names of what surrounds an entity speak for it, beside its own and its definition.
        """
        self._dictionary, self._graph = dictionary, graph
        self._profile = lru_cache(maxsize=50_000)(self._make_profile)
        self._name_words = lru_cache(maxsize=100_000)(lambda entity: context_words(dictionary.entity_name(entity)))
        self._weight = lru_cache(maxsize=200_000)(self._make_weight)

    def scores(self, around: set[str], entities: Sequence[int]) -> list[float]:
        """Cosine of idf-weighted words between a text and each entity, in [0, 1].

        Words of the text that none of the entities knows are left out.
        """
        profiles = [self._profile(entity) for entity in entities]
        known = sorted(around.intersection(*[set().union(*(words for words, _ in profiles))]))
        weights = [self._weight(word) for word in known]
        length = math.sqrt(sum(weights))
        return [_cosine(known, weights, length, *profile) for profile in profiles]

    def _make_weight(self, word: str) -> float:
        """Square of the idf of a word."""
        frequency = self._dictionary.word_frequency(word)
        return (math.log((1 + self._dictionary.num_entities) / frequency) + 0.1) ** 2

    def _make_profile(self, entity: int) -> tuple[frozenset[str], float]:
        """Words that speak for an entity, and the length of their vector."""
        dictionary = self._dictionary
        definition = dictionary.definition(entity) or ""
        found = context_words(definition[:MAX_DEFINITION]) | self._name_words(entity)
        if self._graph:
            found |= self._near_words(entity)
        return frozenset(found), math.sqrt(sum(self._weight(word) for word in sorted(found)))

    def _near_words(self, entity: int) -> set[str]:
        dictionary, found = self._dictionary, set[str]()
        _, near, weights = dictionary.surroundings(np.array([entity]))
        for neighbour in near[np.argsort(-weights, kind="stable")][:MAX_NEIGHBOURS].tolist():
            found |= self._name_words(neighbour)
        return found


def _cosine(
    known: Sequence[str], weights: Sequence[float], length: float, words: frozenset[str], its_length: float
) -> float:
    shared = sum(weight for word, weight in zip(known, weights, strict=True) if word in words)
    return shared / (length * its_length) if shared else 0.0
