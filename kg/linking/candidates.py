"""Which entities a mention may denote, and what its spelling says for each of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kg.linking.dictionary import Dictionary
from kg.linking.learned import LearnedNames
from kg.linking.names import MAX_NAME, Flag
from kg.linking.tokens import name_key

T = TypeVar("T")
MAX_CONSIDERED = 64
MAX_SIMILAR = 150  # names
MIN_COSINE = 0.15
MAX_EXCHANGED = 8  # words of a mention that are exchanged for others
MAX_FORMS = 8
MAX_KEPT = 3 * MAX_NAME  # code points of what was asked, if its answer is kept
SAME_LETTERS = 0.95  # fit of a name that only differs in case
EXCHANGED = 0.95  # similarity of a name that has one word exchanged
FEATURES = (
    "prior",
    "fit",
    "preferred",
    "cosine",
    "below_best",
    "rank",
    "words_covered",
    "name_covered",
    "rare_words_covered",
    "rare_name_covered",
    "preferred_covered",
    "same_last_word",
    "same_first_word",
    "length_ratio",
    "same_numbers",
    "other_numbers",
    "turned",
    "substituted",
    "learned_count",
    "learned_share",
    "learned_entity",
    "learned_alike",
    "learned_vocabulary",
    "exact_candidates",
)
"""What is known of a candidate without the text around the mention."""


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """The candidates of one mention, by dictionary score, best first."""

    entities: NDArray[np.int64]
    """``[cand]``"""
    priors: tuple[float, ...]
    scores: tuple[float, ...]
    """From prior and spelling alone; they sum to 1."""
    features: NDArray[np.float32]
    """``[cand, len(FEATURES)]``; empty where only the dictionary was asked."""
    quality: float
    """How much the spelling speaks for a name at all, in [0, 1]."""

    def __bool__(self) -> bool:
        return len(self.entities) > 0


NONE = CandidateSet(np.zeros(0, np.int64), (), (), np.zeros((0, len(FEATURES)), np.float32), 0.0)


@dataclass(slots=True)
class _Name:
    """The best name found so far for one entity."""

    prior: float = 0.0
    fit: float = 0.0
    preferred: bool = False
    cosine: float = 0.0
    rank: int = MAX_SIMILAR
    key: str = ""
    number: int = -1
    """Of the key, where that is not needed yet (``Dictionary.key``)."""
    turned: bool = False
    substituted: float = 0.0
    learned: bool = False


class CandidateFinder:
    """Candidates from a dictionary and, where there is one, from what was learned."""

    def __init__(self, dictionary: Dictionary, learned: LearnedNames | None = None) -> None:
        self.dictionary, self._learned = dictionary, learned
        self.taught = np.log1p(learned.entity_counts if learned else np.zeros(dictionary.num_entities, np.float32))
        self._preferred = lru_cache(maxsize=100_000)(self._preferred_words)
        self._rarity = _kept(100_000, self._rarity_of)
        self._unnamed = _kept(20_000, self._unnamed_features)
        self.named = _kept(100_000, self._named)
        self.known = _kept(50_000, self._known)
        self.similar = _kept(20_000, self._similar)

    def _named(self, key: str, surface: str, folded: str) -> CandidateSet:
        """Entities with a name of this key that may be written so; no similar names."""
        best = self._exact(key, surface, folded)
        if not best:
            return NONE
        weights = {entity: max(prior, 1e-6) * fit**4 for entity, (prior, fit, _) in best.items()}
        entities = sorted(weights, key=lambda entity: (-weights[entity], entity))[:MAX_CONSIDERED]
        total = sum(weights[entity] for entity in entities)
        quality = max(fit for _, fit, _ in best.values())
        return CandidateSet(
            np.array(entities, np.int64),
            tuple(best[entity][0] for entity in entities),
            tuple(weights[entity] / total for entity in entities),
            NONE.features,
            quality * _LENGTH_QUALITY.get(sum(map(str.isalnum, surface)), 1.0),
        )

    def extended(self, candidates: CandidateSet, key: str, entities: Sequence[int]) -> CandidateSet:
        """The candidates with others whose names say nothing of the mention."""
        if not entities:
            return candidates
        rows = self._unnamed(key, tuple(entities))
        return CandidateSet(
            np.concatenate([candidates.entities, np.array(entities, np.int64)]),
            (*candidates.priors, *(0.0 for _ in entities)),
            (*candidates.scores, *(0.0 for _ in entities)),
            np.concatenate([candidates.features, rows]),
            candidates.quality,
        )

    def among(self, key: str, surface: str, folded: str, entities: Sequence[int]) -> CandidateSet:
        """Just these entities, which someone else has found, the likeliest first."""
        found, num_exact = self._exactly(key, surface, folded)
        names = ((entity, found.get(entity) or self._own_name(key, entity)) for entity in dict.fromkeys(entities))
        return self._set_of(
            key, [(entity, replace(name, rank=rank)) for rank, (entity, name) in enumerate(names)], num_exact
        )

    def is_written(self, key: str, surface: str, folded: str) -> bool:
        """Whether a name of the dictionary is written just so, letter case apart."""
        return any(entry.fit >= SAME_LETTERS for entry in self.dictionary.entries(key, surface, folded))

    def _unnamed_features(self, key: str, entities: tuple[int, ...]) -> NDArray[np.float32]:
        return self._features(key, [(entity, _Name()) for entity in entities], 0)

    def _exact(self, key: str, surface: str, folded: str) -> dict[int, tuple[float, float, bool]]:
        best: dict[int, tuple[float, float, bool]] = {}
        for entity, prior, fit, preferred in self.dictionary.entries(key, surface, folded):
            _, known, its_preferred = best.get(entity, (0.0, 0.0, False))
            if fit > known:
                best[entity] = prior, fit, preferred or its_preferred
        return best

    def _known(self, key: str, surface: str, folded: str) -> CandidateSet:
        """Entities with names of this key and learned ones."""
        return self._described(key, surface, folded, spelling=False)

    def _similar(self, key: str, surface: str, folded: str) -> CandidateSet:
        """Entities with names of this key, learned ones, those with a word exchanged, and those spelt alike."""
        return self._described(key, surface, folded, spelling=True)

    def _described(self, key: str, surface: str, folded: str, *, spelling: bool) -> CandidateSet:
        found, num_exact = self._exactly(key, surface, folded)
        if spelling:
            forms = self._substituted(key)
            for form, share in forms:
                self._add(found, form, share)
            for form, share in [(key, 1.0), *forms[:1]]:
                self._add_similar(found, form, share)
        return self._set_of(key, sorted(found.items(), key=_closest_first)[:MAX_CONSIDERED], num_exact)

    def _exactly(self, key: str, surface: str, folded: str) -> tuple[dict[int, _Name], int]:
        """Entities with names of this key, how many they are, and among them those that learned links say."""
        found: dict[int, _Name] = {}
        for entity, (prior, fit, preferred) in self._exact(key, surface, folded).items():
            found[entity] = _Name(prior, fit, preferred, 1.0, 0, key)
        num_exact = len(found)
        for entity in self._links(key):
            if entity not in found:
                found[entity] = _Name(cosine=1.0, rank=0, key=key, learned=True)
        return found, num_exact

    def _own_name(self, key: str, entity: int) -> _Name:
        own = name_key(self.dictionary.entity_name(entity))
        return _Name(preferred=True, cosine=self.dictionary.likeness(key, own), key=own)

    def _links(self, key: str) -> Mapping[int, int]:
        return self._learned.links(key) if self._learned else {}

    def _set_of(self, key: str, kept: Sequence[tuple[int, _Name]], num_exact: int) -> CandidateSet:
        if not kept:
            return NONE
        # Only a ranker looks at features, and they take three quarters of the time.
        features = self._features(key, kept, num_exact) if self._learned else None
        raw = np.array([max(name.prior, 1e-3) * max(name.fit, 0.5 * name.cosine, 0.01) ** 4 for _, name in kept])
        scores = raw / raw.sum()
        order = np.lexsort((np.arange(len(kept)), -scores))
        return CandidateSet(
            np.array([kept[i][0] for i in order], np.int64),
            tuple(kept[i][1].prior for i in order),
            tuple(scores[order].tolist()),
            NONE.features if features is None else features[order],
            max(max(name.fit, 0.8 * name.cosine) for _, name in kept),
        )

    def _substituted(self, key: str) -> list[tuple[str, float]]:
        """The key with one of its words exchanged for another that can mean the same, likeliest first."""
        words = key.split(" ")
        forms = {
            " ".join((*words[:place], other, *words[place + 1 :])): share
            for place, word in enumerate(words[:MAX_EXCHANGED])
            for other, share in self.dictionary.substitutes.get(word, ())
        }
        return sorted(forms.items(), key=lambda row: (-row[1], row[0]))[:MAX_FORMS]

    def _add(self, found: dict[int, _Name], form: str, share: float) -> None:
        """Add the entities with a name of this key, which differs from the mention's."""
        for entity, prior, flags in self.dictionary.bearers(form):
            preferred = bool(flags & Flag.PREFERRED)
            _offer(found, entity, _Name(prior, 0.0, preferred, EXCHANGED, 1, form, substituted=share))
        if self._learned:
            for entity in self._learned.links(form):
                _offer(found, entity, _Name(0.0, 0.0, False, EXCHANGED, 1, form, substituted=share, learned=True))

    def _add_similar(self, found: dict[int, _Name], form: str, share: float) -> None:
        """Add the entities with names that are spelt like a form of the mention's key."""
        dictionary, exchanged = self.dictionary, share if share < 1 else 0.0
        for rank, (number, bearers, cosine) in enumerate(dictionary.similar(form, MAX_SIMILAR, MIN_COSINE), 2):
            for entity, prior, flags in bearers:
                if entity not in found or found[entity].cosine < cosine:
                    preferred, turned = bool(flags & Flag.PREFERRED), bool(flags & Flag.TURNED)
                    found[entity] = _Name(prior, 0.0, preferred, cosine, rank, "", number, turned, exchanged)
            if len(found) >= 2 * MAX_CONSIDERED:
                break
        if self._learned:
            numbers, cosines = self._learned.fuzzy.search(form, MAX_SIMILAR // 3, MIN_COSINE)
            for rank, (number, cosine) in enumerate(zip(numbers.tolist(), cosines.tolist(), strict=True), 2):
                key = self._learned.key(number)
                for entity in self._learned.links(key):
                    name = _Name(0.0, 0.0, False, cosine, rank, key, substituted=exchanged, learned=True)
                    _offer(found, entity, name)

    def _features(self, key: str, kept: Sequence[tuple[int, _Name]], num_exact: int) -> NDArray[np.float32]:
        links = self._links(key)
        words = key.split(" ")
        word_set, numbers = set(words), {word for word in words if word.isdigit()}
        weight = {word: self._rarity(word) for word in word_set}
        whole = sum(weight.values())
        total = sum(links.values())
        best = max((name.cosine for _, name in kept), default=0.0)
        learned = self._learned
        rows = []
        for entity, name in kept:
            its_key = name.key if name.number < 0 else self.dictionary.key(name.number)
            its_words = its_key.split(" ")
            its_set = set(its_words)
            shared = word_set & its_set
            rare = sum(weight[word] for word in shared)
            preferred = self._preferred(entity)
            its_numbers = {word for word in its_words if word.isdigit()}
            count = links.get(entity, 0)
            rows.append(
                (
                    math.log(max(name.prior, 1e-3)),
                    name.fit,
                    name.preferred,
                    name.cosine,
                    best - name.cosine,
                    1 / (1 + name.rank),
                    len(shared) / len(word_set),
                    len(shared) / len(its_set),
                    rare / whole,
                    rare / (sum(self._rarity(word) for word in its_set)),
                    len(word_set & preferred) / max(len(preferred), 1),
                    words[-1] == its_words[-1],
                    words[0] == its_words[0],
                    min(len(key), len(its_key)) / max(len(key), len(its_key), 1),
                    numbers == its_numbers,
                    bool(numbers and its_numbers and numbers != its_numbers),
                    name.turned,
                    name.substituted,
                    math.log1p(count),
                    count / (total + 0.5),
                    math.log1p(learned.entity_counts[entity]) if learned else 0.0,
                    math.log1p(learned.links(its_key).get(entity, 0)) if learned and name.learned else 0.0,
                    learned.vocabulary_share(self.dictionary.entity_id(entity)) if learned else 0.0,
                    math.log1p(num_exact),
                )
            )
        return np.array(rows, np.float32).reshape(-1, len(FEATURES))

    def _preferred_words(self, entity: int) -> frozenset[str]:
        return frozenset(name_key(self.dictionary.entity_name(entity)).split(" "))

    def _rarity_of(self, word: str) -> float:
        return math.log((2 + self.dictionary.num_entities) / self.dictionary.word_frequency(word)) + 0.1


def _kept(size: int, function: Callable[..., T]) -> Callable[..., T]:
    """``lru_cache`` but for what is asked at length: a mention may have a megabyte of white space between its words."""
    known = lru_cache(maxsize=size)(function)

    def answer(*asked: str | tuple[int, ...]) -> T:
        return (known if sum(map(len, asked)) <= MAX_KEPT else function)(*asked)

    return answer


def _closest_first(row: tuple[int, _Name]) -> tuple[float, int, int]:
    entity, name = row
    return -name.cosine - name.fit - name.learned, name.rank, entity


def _offer(found: dict[int, _Name], entity: int, name: _Name) -> None:
    if entity not in found or found[entity].cosine < name.cosine:
        found[entity] = name


_LENGTH_QUALITY = {1: 0.3, 2: 0.6, 3: 0.8, 4: 0.9}
"""What makes a name worth looking for, by its letters and digits."""
