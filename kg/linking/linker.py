"""Text to links: mentions by longest match, candidates from the dictionary, ranks by prior, spelling and context.

The linker reads a snapshot and nothing else, keeps no state between texts, and gives the same links whatever the
order or grouping of the texts.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from kg.errors import ConfigError
from kg.linking.abbreviations import find_abbreviations
from kg.linking.context import ContextIndex
from kg.linking.dictionary import Dictionary, Entry
from kg.linking.names import FUNCTION_WORDS, Flag, context_words, surface_hash
from kg.normalise import NormalText, normalise, normalise_name
from kg.snapshot import Snapshot
from kg.types import Candidate, Link

DEFAULT_THRESHOLD = 0.3
CONTEXT_WINDOW = 400  # code points on either side of a mention
CONTEXT_WEIGHT = 8.0
MAX_CONSIDERED = 64  # candidates of one mention that are ranked


@dataclass(frozen=True, slots=True)
class Mention:
    """A span that may denote one of its candidates."""

    start: int
    end: int
    """Code points of the original text."""
    normal: tuple[int, int]
    """The same span in the normalised text."""
    candidates: tuple[Candidate, ...]
    """Ranked by prior and spelling alone."""
    quality: float
    """How much the spelling speaks for a name at all, in [0, 1]."""


class Linker:
    """Links text to the entities of one snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        dictionary: Dictionary,
        *,
        threshold: float = DEFAULT_THRESHOLD,
        max_candidates: int = 8,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(f"The linking threshold is {threshold}; expected a number from 0 to 1.")
        if max_candidates < 1:
            raise ConfigError(f"max_candidates is {max_candidates}; expected at least 1.")
        self.snapshot, self.threshold, self.max_candidates = snapshot, threshold, max_candidates
        self._dictionary = dictionary
        self._context = ContextIndex(snapshot, dictionary)
        self._look_up = lru_cache(maxsize=100_000)(self._candidates_of)

    @classmethod
    def load(
        cls, snapshot: Snapshot | Path | str, *, threshold: float = DEFAULT_THRESHOLD, max_candidates: int = 8
    ) -> "Linker":
        """Open a snapshot and its name dictionary, which is compiled on first use.

        Args:
            snapshot: a snapshot or its folder.
            threshold: confidence below which a mention is NIL.
            max_candidates: how many candidates a link keeps.
        """
        if not isinstance(snapshot, Snapshot):
            snapshot = Snapshot.load(snapshot)
        return cls(snapshot, Dictionary.open(snapshot), threshold=threshold, max_candidates=max_candidates)

    def link(self, text: str) -> list[Link]:
        """Mentions of ``text`` in order, without overlaps; ``id`` is None where no candidate is sure enough."""
        normal = normalise(text)
        return [self._resolve(mention, normal) for mention in self._mentions(normal)]

    def link_batch(self, texts: Iterable[str]) -> list[list[Link]]:
        """The links of each text, equal to those of ``link``."""
        return [self.link(text) for text in texts]

    def link_spans(self, text: str, spans: Iterable[tuple[int, int]]) -> list[Link]:
        """One link for each span of code points of ``text``, in their order; NIL where a span is no name.

        Raises:
            ValueError: a span is empty or not within the text.
        """
        normal = normalise(text)
        shorts = self._abbreviations(text)
        return [self._resolve(self._mention(normal, shorts, start, end), normal) for start, end in spans]

    def _mention(
        self, normal: NormalText, shorts: dict[str, tuple[tuple[Candidate, ...], float]], start: int, end: int
    ) -> Mention:
        if not 0 <= start < end <= len(normal.original):
            raise ValueError(
                f"The span {start}-{end} is empty or not within the text, which has {len(normal.original)}."
            )
        surface = normal.original[start:end]
        known, quality = shorts.get(surface) or self._named(surface)
        if normal.origin is None:
            return Mention(start, end, (start, end), known, quality)
        first, last = np.searchsorted(normal.origin, (start, end)).tolist()
        return Mention(start, end, (first, last), known, quality)

    def candidates(self, mention: str) -> list[Candidate]:
        """Entities that ``mention``, taken as a whole and without context, may denote; best first."""
        known, _ = self._named(mention)
        return list(known[: self.max_candidates])

    def _mentions(self, normal: NormalText) -> Iterator[Mention]:
        """Leftmost longest names on token boundaries; an abbreviation stands for what the text defines it as."""
        starts, ends = normal.token_bounds()
        is_end = ends.tolist()
        shorts = self._abbreviations(normal.original)
        short_lengths = sorted({len(short) for short in shorts})
        position = 0
        for start in starts.tolist():
            if start < position:
                continue
            spans: list[tuple[int, int | None]] = list(self._dictionary.prefixes(normal.text, start))
            for length in short_lengths:
                end = normal.end_of(start, length)
                if end is not None and normal.original[slice(*normal.span(start, end))] in shorts:
                    spans.append((end, None))
            spans.sort(key=_longest_first)
            for end, key in spans:
                if not is_end[end]:
                    continue
                first, last = normal.span(start, end)
                surface = normal.original[first:last]
                known, quality = shorts[surface] if key is None else self._look_up(key, surface)
                if key is not None and _is_shouted(normal, start, end):
                    continue
                if known:
                    yield Mention(first, last, (start, end), known, quality)
                    position = end
                    break

    def _abbreviations(self, text: str) -> dict[str, tuple[tuple[Candidate, ...], float]]:
        """Candidates of each short form that the text defines, where its long form is a name."""
        found = {}
        for short, (start, end) in find_abbreviations(text).items():
            known, quality = self._named(text[start:end])
            if known:
                found[short] = known, 0.95 * quality
        return found

    def _named(self, name: str) -> tuple[tuple[Candidate, ...], float]:
        key = self._dictionary.find(normalise_name(name))
        return ((), 0.0) if key is None else self._look_up(key, name.strip())

    def _candidates_of(self, key: int, surface: str) -> tuple[tuple[Candidate, ...], float]:
        """Candidates of a key for a mention written as ``surface``, best first, and how good a name it is in [0, 1]."""
        best: dict[int, tuple[float, float]] = {}
        for entry in self._dictionary.entries(key, surface):
            similarity = _similarity(entry, surface)
            best[entry.entity] = max(best.get(entry.entity, (0.0, 0.0)), (similarity, entry.prior))
        weights = {entity: max(prior, 1e-6) * similarity**4 for entity, (similarity, prior) in best.items()}
        entities = sorted(weights, key=lambda entity: (-weights[entity], entity))[:MAX_CONSIDERED]
        total = sum(weights[entity] for entity in entities)
        ids, names = self.snapshot.ids, self.snapshot.names
        known = tuple(
            Candidate(entity=e, id=ids[e], name=names[e], prior=best[e][1], score=weights[e] / total) for e in entities
        )
        quality = max((similarity for similarity, _ in best.values()), default=0.0)
        return known, quality * _LENGTH_QUALITY.get(sum(map(str.isalnum, surface)), 1.0)

    def _resolve(self, mention: Mention, normal: NormalText) -> Link:
        ranked = self._in_context(mention, normal.text) if len(mention.candidates) > 1 else mention.candidates
        confidence = ranked[0].score * mention.quality if ranked else 0.0
        sure = bool(ranked) and confidence >= self.threshold
        return Link(
            start=mention.start,
            end=mention.end,
            text=normal.original[mention.start : mention.end],
            id=ranked[0].id if sure else None,
            name=ranked[0].name if sure else None,
            confidence=confidence,
            candidates=ranked[: self.max_candidates],
        )

    def _in_context(self, mention: Mention, text: str) -> tuple[Candidate, ...]:
        """The candidates ranked anew with what the words around the mention say."""
        start, end = mention.normal
        around = context_words(text[max(0, start - CONTEXT_WINDOW) : start] + " " + text[end : end + CONTEXT_WINDOW])
        scores = self._context.scores(around, [candidate.entity for candidate in mention.candidates])
        weights = [c.score * math.exp(CONTEXT_WEIGHT * s) for c, s in zip(mention.candidates, scores, strict=True)]
        total = sum(weights)
        ranked = (replace(c, score=w / total) for c, w in zip(mention.candidates, weights, strict=True))
        return tuple(sorted(ranked, key=lambda candidate: (-candidate.score, candidate.entity)))


def _longest_first(span: tuple[int, int | None]) -> tuple[int, bool]:
    """Order of spans at one place; of equally long ones the abbreviation, which has no key, comes first."""
    end, key = span
    return -end, key is not None


def _is_shouted(normal: NormalText, start: int, end: int) -> bool:
    """Whether a function word is in capitals only because its neighbours are: ``METHODS AND RESULTS``."""
    if normal.text[start:end] not in FUNCTION_WORDS:
        return False
    first, last = normal.span(start, end)
    before, after = normal.original[max(0, first - 40) : first].split(), normal.original[last : last + 40].split()
    return any(len(word) > 1 and word.isupper() for word in before[-1:] + after[:1])


def _similarity(entry: Entry, surface: str) -> float:
    """How well the mention's spelling fits the alias, beyond having the same normal form."""
    if entry.variant:
        return 0.9
    if entry.surface == surface_hash(surface):
        return 1.0
    if entry.flags & Flag.ALL_CAPS:
        return 0.8  # "aids" for "AIDS"
    return 0.9 if surface.isupper() else 0.95


_LENGTH_QUALITY = {1: 0.3, 2: 0.6, 3: 0.8, 4: 0.9}
