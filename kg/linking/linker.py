"""Text to links: mentions, candidates, ranks, and how sure each link is.

With the dictionary alone a mention is the longest name, ranked by prior, spelling and context words. A ranker
(``models.rerank``) adds what gold links teach: which names are mentions, what they denote, and how far to trust
spelling, text and graph. The linker reads a snapshot and nothing else, keeps no state between texts, and gives the same
links whatever the order or grouping of the texts.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kg.errors import ConfigError
from kg.linking.candidates import CandidateSet
from kg.linking.context import ContextIndex
from kg.linking.dictionary import Dictionary
from kg.linking.document import Mention, described, words_around
from kg.linking.mentions import Way
from kg.linking.ranker import Ranker, by_mention
from kg.linking.reader import Reader, nested
from kg.linking.spans import best_spans, span_features, worth
from kg.linking.tokens import Tokens, tokens_of
from kg.snapshot import Snapshot
from kg.types import Candidate, Link

DEFAULT_THRESHOLD = 0.3
CONTEXT_WEIGHT = 8.0
SHORT_QUALITY = 0.95  # of an abbreviation that the text defines


class Linker:
    """Links text to the entities of one snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        dictionary: Dictionary,
        *,
        ranker: Ranker | None = None,
        threshold: float | None = None,
        max_candidates: int = 8,
        graph: bool = True,
    ) -> None:
        if threshold is None:
            threshold = ranker.threshold if ranker else DEFAULT_THRESHOLD
        if not 0 <= threshold <= 1:
            raise ConfigError(f"The linking threshold is {threshold}; expected a number from 0 to 1.")
        if max_candidates < 1:
            raise ConfigError(f"max_candidates is {max_candidates}; expected at least 1.")
        self.snapshot, self.threshold, self.max_candidates = snapshot, threshold, max_candidates
        self.ranker, self.graph = ranker, graph
        self._reader = Reader(dictionary, ranker.names if ranker else None)
        self._context = ContextIndex(dictionary, graph=graph)

    @classmethod
    def load(
        cls,
        snapshot: Snapshot | Path | str,
        *,
        ranker: Path | str | None = None,
        threshold: float | None = None,
        max_candidates: int = 8,
        graph: bool = True,
    ) -> "Linker":
        """Open a snapshot and its name dictionary, which is compiled on first use.

        Args:
            snapshot: a snapshot or its folder.
            ranker: folder written by ``python -m models.rerank``.
            threshold: confidence below which a mention is NIL; default that of the ranker, or 0.3.
            max_candidates: how many candidates a link keeps.
            graph: whether it counts where entities are in the graph; to see what that is worth.
        """
        if not isinstance(snapshot, Snapshot):
            snapshot = Snapshot.load(snapshot)
        dictionary = Dictionary.open(snapshot)
        return cls(
            snapshot,
            dictionary,
            ranker=None if ranker is None else Ranker.load(ranker, dictionary),
            threshold=threshold,
            max_candidates=max_candidates,
            graph=graph,
        )

    def on(self, snapshot: Path) -> "Linker":
        """A linker like this one on another snapshot."""
        return Linker.load(
            snapshot,
            ranker=self.ranker.folder if self.ranker else None,
            threshold=self.threshold,
            max_candidates=self.max_candidates,
            graph=self.graph,
        )

    def link(self, text: str) -> list[Link]:
        """Mentions of ``text`` in order, without overlaps; ``id`` is None where no candidate is sure enough."""
        tokens = tokens_of(text)
        if self.ranker is None:
            return [self._resolved(mention, tokens) for mention in self._reader.longest(tokens)]
        mentions = self._reader.proposed(tokens)
        likely = self._likelihoods(self.ranker, tokens, mentions)
        chosen = best_spans(mentions, [worth(share) for share in likely])
        shares = [likely[i] for i in chosen]
        links = self._ranked(self.ranker, tokens, [mentions[i] for i in chosen], shares, curve="link")
        return [link for link, share in zip(links, shares, strict=True) if link.id is not None or share > 0.5]

    def link_batch(self, texts: Iterable[str]) -> list[list[Link]]:
        """The links of each text, equal to those of ``link``."""
        return [self.link(text) for text in texts]

    def link_spans(
        self,
        text: str,
        spans: Sequence[tuple[int, int]],
        *,
        candidates: Sequence[Sequence[str] | None] | None = None,
    ) -> list[Link]:
        """A link for each span (code points), in order; a tagger may have found them, and they may overlap.

        Names that are only spelt alike are candidates, too.

        Args:
            candidates: ids that alone each span may denote, the likeliest first, where something else has found them;
                those that are not in the snapshot are left out.

        Raises:
            ValueError: a span is empty or not within the text, or there are candidates of more or fewer spans.
        """
        tokens = tokens_of(text)
        mentions = self._reader.given(tokens, spans, candidates)
        if self.ranker is not None:
            return self._ranked(self.ranker, tokens, mentions, [1.0] * len(mentions), curve="entity")
        return [self._resolved(mention, tokens) for mention in mentions]

    def candidates(self, mention: str) -> list[Candidate]:
        """Entities that ``mention``, taken as a whole and without context, may denote; best first.

        Those that bear the name, or else those whose names are spelt alike.
        """
        tokens = tokens_of(mention.strip())
        asked = tokens.text, tokens.normal.original, tokens.normal.text
        found = self._reader.finder.named(*asked) or self._reader.finder.similar(*asked)
        return self._shown(found, found.scores)

    def _resolved(self, mention: Mention, tokens: Tokens) -> Link:
        """The link of a mention from prior, spelling and context words."""
        found = mention.candidates
        scores = found.scores
        if len(scores) > 1:
            around = words_around(tokens, mention.first, mention.last)
            context = self._context.scores(around, found.entities.tolist())
            weights = [score * math.exp(CONTEXT_WEIGHT * fit) for score, fit in zip(scores, context, strict=True)]
            total = sum(weights)
            scores = tuple(weight / total for weight in weights)
        quality = found.quality * (SHORT_QUALITY if mention.way is Way.SHORT else 1.0)
        return self._link(mention, tokens, found, scores, max(scores, default=0.0) * quality)

    def _likelihoods(self, ranker: Ranker, tokens: Tokens, mentions: Sequence[Mention]) -> list[float]:
        """How likely each span is a mention."""
        local = by_mention([mention.candidates.features for mention in mentions], ranker.networks["local"])
        return [
            ranker.mention_probability(span_features(tokens, mention, scores, ranker.names, inside=inside))
            for mention, scores, inside in zip(mentions, local, nested(mentions), strict=True)
        ]

    def _ranked(
        self, ranker: Ranker, tokens: Tokens, mentions: Sequence[Mention], likely: Sequence[float], *, curve: str
    ) -> list[Link]:
        local = by_mention([mention.candidates.features for mention in mentions], ranker.networks["local"])
        sets, features = described(tokens, mentions, local, self._reader.finder, self._context, graph=self.graph)
        scores = by_mention(features, ranker.networks["graph" if self.graph else "document"])
        links = []
        for mention, found, its_scores, share in zip(mentions, sets, scores, likely, strict=True):
            shares = np.exp(its_scores)
            confidence = ranker.calibrated(curve, share * float(shares.max())) if len(shares) else 0.0
            links.append(self._link(mention, tokens, found, shares.tolist(), confidence))
        return links

    def _link(
        self, mention: Mention, tokens: Tokens, found: CandidateSet, scores: Sequence[float], confidence: float
    ) -> Link:
        candidates = self._shown(found, scores)
        sure = bool(candidates) and confidence >= self.threshold
        return Link(
            start=mention.start,
            end=mention.end,
            text=tokens.normal.original[mention.start : mention.end],
            id=candidates[0].id if sure else None,
            name=candidates[0].name if sure else None,
            confidence=confidence,
            candidates=tuple(candidates),
        )

    def _shown(self, found: CandidateSet, scores: Sequence[float]) -> list[Candidate]:
        entities, dictionary = found.entities.tolist(), self._reader.dictionary
        order = sorted(range(len(entities)), key=lambda i: (-scores[i], entities[i]))[: self.max_candidates]
        return [
            Candidate(
                entity=entities[i],
                id=dictionary.entity_id(entities[i]),
                name=dictionary.entity_name(entities[i]),
                prior=found.priors[i],
                score=float(scores[i]),
            )
            for i in order
        ]
