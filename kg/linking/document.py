"""What the mentions of one text say of each other's candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg.linking.candidates import CandidateFinder, CandidateSet
from kg.linking.context import ContextIndex
from kg.linking.dictionary import Dictionary
from kg.linking.mentions import Way
from kg.linking.names import telling
from kg.linking.ranker import DOCUMENT_FEATURES, GRAPH_FEATURES, Array
from kg.linking.tokens import Tokens

CONTEXT_WINDOW = 80  # words on either side of a mention
MAX_IN_CONTEXT = 8  # candidates that the words around are compared with
MAX_TOGETHER = 128  # mentions that speak for each other; of a longer text, those that follow each other
NUM_BEST, NUM_NEAR = 2, 6  # of the best candidates, those nearest in the graph
NUM_APPOSED = 3  # candidates that "(SM-5887)" takes over from "amrubicin" before it
_OPENING = frozenset("([")


@dataclass(frozen=True, slots=True)
class Mention:
    """Words of a text that may denote one of the candidates."""

    first: int
    last: int
    """One past the last word."""
    start: int
    end: int
    """Code points of the original text."""
    key: str
    way: Way
    candidates: CandidateSet
    closed: bool = False
    """No others are looked for."""


def described(
    tokens: Tokens,
    mentions: Sequence[Mention],
    local: Sequence[Array],
    finder: CandidateFinder,
    context: ContextIndex,
    *,
    graph: bool,
) -> tuple[list[CandidateSet], list[Array]]:
    """Candidates and features of each mention in its text.

    Args:
        local: log-probabilities of the candidates of each mention from spelling alone ``[cand]``.
        graph: whether ``GRAPH_FEATURES`` are among them.

    Returns:
        the candidates, and ``kg.linking.ranker.feature_names`` of them ``[cand, features]``.
    """
    sets: list[CandidateSet] = []
    features: list[Array] = []
    for start in range(0, len(mentions), MAX_TOGETHER):
        part = slice(start, start + MAX_TOGETHER)
        found = _described_together(tokens, mentions[part], local[part], finder, context, graph=graph)
        sets += found[0]
        features += found[1]
    return sets, features


def _described_together(
    tokens: Tokens,
    mentions: Sequence[Mention],
    local: Sequence[Array],
    finder: CandidateFinder,
    context: ContextIndex,
    *,
    graph: bool,
) -> tuple[list[CandidateSet], list[Array]]:
    sets, favours = _with_apposed(tokens, mentions, local, finder)
    if graph:
        sets = _with_near(mentions, sets, local, finder)
    local, favours = (
        [_extended(scores, len(found.entities), least) for scores, found in zip(column, sets, strict=True)]
        for column, least in ((local, None), (favours, 0.0))
    )
    columns = [
        [found.features for found in sets],
        _document_features(tokens, mentions, sets, local, favours, context),
    ]
    if graph:
        columns.append(_graph_features(mentions, sets, local, finder))
    return sets, [np.concatenate(parts, axis=1, dtype=np.float32) for parts in zip(*columns, strict=True)]


def _extended(values: Array, length: int, least: float | None) -> Array:
    """Values with those of candidates that came later: ``least``, or below all others."""
    if least is None:
        least = float(values.min()) - 1 if len(values) else -1.0
    return np.concatenate([values, np.full(length - len(values), least, np.float32)])


def _with_near(
    mentions: Sequence[Mention], sets: Sequence[CandidateSet], local: Sequence[Array], finder: CandidateFinder
) -> list[CandidateSet]:
    """Candidates with those nearest in the graph to the best of them: what is broader, or the same elsewhere."""
    found = []
    for mention, candidates, scores in zip(mentions, sets, local, strict=True):
        known = set(candidates.entities.tolist())
        best = candidates.entities[np.argsort(-scores, kind="stable")[:NUM_BEST]]
        near = [entity for one in best.tolist() for entity in finder.dictionary.nearest(one, NUM_NEAR)]
        extra = [entity for entity in dict.fromkeys(near) if entity not in known and not mention.closed]
        found.append(finder.extended(candidates, mention.key, extra))
    return found


def _with_apposed(
    tokens: Tokens, mentions: Sequence[Mention], local: Sequence[Array], finder: CandidateFinder
) -> tuple[list[CandidateSet], list[Array]]:
    """Candidates of each mention with those of the mention that it stands beside in parentheses.

    Returns:
        the candidates, and how much each is favoured by the mention before the parenthesis ``[cand]``.
    """
    ends = {mention.last: number for number, mention in enumerate(mentions)}
    sets, favours = [], []
    for mention in mentions:
        candidates = mention.candidates
        beside = ends.get(mention.first - 1) if mention.first and tokens.words[mention.first - 1] in _OPENING else None
        favour = np.zeros(len(candidates.entities), np.float32)
        if beside is not None and len(local[beside]):
            other, log_share = mentions[beside].candidates.entities, local[beside]
            best = np.argsort(-log_share, kind="stable")[:NUM_APPOSED]
            extra = [int(entity) for entity in other[best] if entity not in candidates.entities]
            candidates = candidates if mention.closed else finder.extended(candidates, mention.key, extra)
            share = dict(zip(other[best].tolist(), np.exp(log_share[best]).tolist(), strict=True))
            favour = np.array([share.get(entity, 0.0) for entity in candidates.entities.tolist()], np.float32)
        sets.append(candidates)
        favours.append(favour)
    return sets, favours


def _document_features(
    tokens: Tokens,
    mentions: Sequence[Mention],
    sets: Sequence[CandidateSet],
    local: Sequence[Array],
    favours: Sequence[Array],
    context: ContextIndex,
) -> list[Array]:
    """``DOCUMENT_FEATURES`` of the candidates of each mention ``[cand, 3]``."""
    found = []
    for mention, candidates, scores, favour in zip(mentions, sets, local, favours, strict=True):
        rows = np.zeros((len(scores), len(DOCUMENT_FEATURES)), np.float32)
        rows[:, 0], rows[:, 1] = scores, favour
        if len(scores) > 1:
            best = np.argsort(-scores, kind="stable")[: None if mention.closed else MAX_IN_CONTEXT]
            around = words_around(tokens, mention.first, mention.last)
            rows[best, 2] = context.scores(around, candidates.entities[best].tolist())
        found.append(rows)
    return found


def words_around(tokens: Tokens, first: int, last: int) -> set[str]:
    words = tokens.words
    return telling(words[max(0, first - CONTEXT_WINDOW) : first] + words[last : last + CONTEXT_WINDOW])


def _graph_features(
    mentions: Sequence[Mention], sets: Sequence[CandidateSet], local: Sequence[Array], finder: CandidateFinder
) -> list[Array]:
    """``GRAPH_FEATURES`` of the candidates of each mention; mentions of one name do not speak for each other."""
    dictionary = finder.dictionary
    found = [np.zeros((len(scores), len(GRAPH_FEATURES)), np.float32) for scores in local]
    best = [
        int(found.entities[scores.argmax()]) if len(scores) else -1 for found, scores in zip(sets, local, strict=True)
    ]
    beliefs: dict[tuple[str, int], float] = {}
    for mention, scores, top in zip(mentions, local, best, strict=True):
        if top >= 0:
            beliefs[mention.key, top] = max(beliefs.get((mention.key, top), 0.0), float(np.exp(scores.max())))
    if not beliefs:
        return found
    keys = np.array([key for key, _ in beliefs])
    others = np.array([entity for _, entity in beliefs], np.int64)
    share = np.array(list(beliefs.values()), np.float32)
    column = {top: number for number, (_, top) in enumerate(beliefs)}
    entities, places = np.unique(np.concatenate([each.entities for each in sets]), return_inverse=True)
    around = _rows(entities, dictionary)
    near = (around @ _rows(others, dictionary).T).toarray()
    same = (entities[:, None] == others) * share
    taught = around @ finder.taught
    degree = np.log1p(dictionary.degree[entities])
    begin = 0
    for mention, candidates, rows, top in zip(mentions, sets, found, best, strict=True):
        at = places[begin : begin + len(candidates.entities)]
        begin += len(candidates.entities)
        if not len(at):
            continue
        apart = keys != mention.key
        if apart.any():
            closeness = near[at][:, apart] * share[apart]
            rows[:, 0], rows[:, 1] = closeness.max(axis=1), closeness.mean(axis=1)
            rows[:, 2] = np.log1p(same[at][:, apart].sum(axis=1))
        rows[:, 3], rows[:, 4], rows[:, 5] = near[at, column[top]], taught[at], degree[at]
    return found


def _rows(entities: NDArray[np.int64], dictionary: Dictionary) -> sparse.csr_matrix:
    counts, near, weights = dictionary.surroundings(entities)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_matrix((weights, near, offsets), shape=(len(entities), dictionary.num_entities))
