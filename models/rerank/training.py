"""A ranker from texts with gold links.

What is learned: which names denoted what, which names are mentions at all, and three small networks that weigh
spelling, text and graph. Names that a text itself contributed must not help to link it, so all is learned crosswise:
the features of each text come from what the texts of the other folds taught, and so do the predictions that confidence
is calibrated on.
"""

import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.numpy import save_file
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from kg.errors import ConfigError
from kg.linking.candidates import CandidateSet
from kg.linking.context import ContextIndex
from kg.linking.dictionary import Dictionary
from kg.linking.document import Mention, described
from kg.linking.learned import LearnedNames, write_links, write_spans
from kg.linking.ranker import (
    FORMAT,
    NUM_MENTION_BUCKETS,
    Array,
    Network,
    by_mention,
    feature_names,
    hashed,
)
from kg.linking.reader import Reader, nested
from kg.linking.spans import best_spans, span_features, worth
from kg.linking.tokens import Tokens, tokens_of
from kg.snapshot import Snapshot, file_sha256
from models.rerank.confidence import best_threshold, calibration_error, curve_of
from models.rerank.gold import GoldText
from models.rerank.networks import Example, crosswise
from models.run import aside, write_json

NUM_FOLDS = 5
STRENGTH = 0.3  # of the mention features: inverse of their L2 regularisation


@dataclass(frozen=True)
class Prepared:
    """A gold text, read with the names of the other folds."""

    gold: GoldText
    tokens: Tokens
    given: tuple[Mention, ...]
    right: tuple[frozenset[int], ...]
    """Entities that are right, of each mention in ``given``."""
    proposed: tuple[Mention, ...]


@dataclass(frozen=True)
class Fold:
    """Some of the texts, and what all the others teach of names."""

    reader: Reader
    texts: tuple[Prepared, ...]


def train_ranker(snapshot: Snapshot, gold: Sequence[GoldText], folder: Path, *, seed: int = 0) -> Mapping[str, Any]:
    """Learn from ``gold`` and write a ranker into ``folder``.

    Returns:
        what the crosswise predictions reach: see ``report`` in the ranker's manifest.

    Raises:
        ConfigError: there are fewer texts than folds, none of their ids is in the snapshot, or the folder holds
            something else than a ranker.
    """
    if len(gold) < NUM_FOLDS:
        raise ConfigError(f"{len(gold)} texts to learn from; expected at least {NUM_FOLDS}.")
    folder = folder.resolve()  # ``.`` has no name to write beside
    ours = all((folder / name).is_file() for name in ("manifest.json", "links.parquet"))
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is neither a ranker nor an empty folder; name another for what is learned.")
    dictionary = Dictionary.open(snapshot)
    with aside(folder) as part:
        with tempfile.TemporaryDirectory(prefix="kgfuse-rerank-") as temporary:
            folds = [
                _read_fold(dictionary, gold, number, Path(temporary) / str(number))
                for number in _shown(range(NUM_FOLDS), "Reading")
            ]
            if not any(right for fold in folds for text in fold.texts for right in text.right):
                raise ConfigError("None of the ids of the gold links is in the snapshot; are they CURIEs like its own?")
            weights, report = _fit(folds, dictionary, seed)
        learn_names(dictionary, gold, part)
        save_file(weights, part / "weights.safetensors")
        manifest = {
            "format": FORMAT,
            "features": feature_names(),
            "files": {file.name: file_sha256(file) for file in sorted(part.iterdir())},
            "threshold": report["threshold"],
            "trained_on": {"snapshot": snapshot.hash, "texts": len(gold)},
            "report": report,
        }
        write_json(part / "manifest.json", manifest)
    return report


def learn_names(dictionary: Dictionary, gold: Sequence[GoldText], folder: Path) -> LearnedNames:
    """Write what ``gold`` teaches of names: what each denoted, and how often it was a mention.

    A name was none wherever it stands in a text and no gold mention has just this span.
    """
    links: Counter[tuple[str, str]] = Counter()
    read = []
    plain = Reader(dictionary)
    for text in gold:
        tokens = tokens_of(text.text)
        keys = plain.keys(tokens, [(start, end) for start, end, _ in text.mentions])
        read.append(
            (tokens, {(start, end): key for (start, end, _), (key, _) in zip(text.mentions, keys, strict=True)})
        )
        links.update((key, id) for (key, _), (_, _, ids) in zip(keys, text.mentions, strict=True) for id in ids)
    write_links(folder, links)
    write_spans(folder, {})
    reader = Reader(dictionary, LearnedNames(folder, dictionary))
    counts: dict[str, list[int]] = {}
    for tokens, wanted in read:
        for key in wanted.values():
            counts.setdefault(key, [0, 0])[0] += 1
        for here in reader.proposals(tokens):
            for proposal in here:
                if tokens.span(proposal.first, proposal.last) not in wanted:
                    counts.setdefault(proposal.key, [0, 0])[1] += 1
    write_spans(folder, {key: (yes, no) for key, (yes, no) in counts.items()})
    return LearnedNames(folder, dictionary)


def _read_fold(dictionary: Dictionary, gold: Sequence[GoldText], number: int, folder: Path) -> Fold:
    folder.mkdir()
    mine = [text for text in gold if _fold_of(text) == number]
    learned = learn_names(dictionary, [text for text in gold if _fold_of(text) != number], folder)
    reader = Reader(dictionary, learned)
    prepared = []
    for text in mine:
        tokens = tokens_of(text.text)
        given = reader.given(tokens, [(start, end) for start, end, _ in text.mentions], text.candidates)
        right = tuple(
            frozenset(entity for id in ids if (entity := dictionary.index_of(id)) is not None)
            for _, _, ids in text.mentions
        )
        prepared.append(Prepared(text, tokens, tuple(given), right, tuple(reader.proposed(tokens))))
    return Fold(reader, tuple(prepared))


def _fold_of(text: GoldText) -> int:
    return zlib.crc32(text.id.encode()) % NUM_FOLDS


def _fit(folds: Sequence[Fold], dictionary: Dictionary, seed: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Weights of all parts, learnt from all folds, and what those learnt crosswise reach."""
    plain = [[_examples([m.candidates for m in t.given], None, t.right) for t in fold.texts] for fold in folds]
    fitted = {"local": crosswise(plain, seed)}
    context = ContextIndex(dictionary)
    for name, around in (("document", ContextIndex(dictionary, graph=False)), ("graph", context)):
        examples = [
            [
                _examples(
                    *described(text.tokens, text.given, scores, fold.reader.finder, around, graph=name == "graph"),
                    text.right,
                )
                for text, scores in zip(fold.texts, local, strict=True)
            ]
            for fold, local in zip(folds, fitted["local"].scores, strict=True)
        ]
        fitted[name] = crosswise(examples, seed)
    mentions = _fit_mentions(folds, fitted["local"].crossed)
    links = [
        row
        for fold, local, graph, likely in zip(
            folds, fitted["local"].crossed, fitted["graph"].crossed, mentions.likely, strict=True
        )
        for text, shares in zip(fold.texts, likely, strict=True)
        for row in _linked(text, shares, local, graph, fold.reader, context)
    ]
    curves = {"entity": curve_of(fitted["graph"].tops), "link": curve_of(links)}
    num_gold = sum(bool(ids) for fold in folds for text in fold.texts for _, _, ids in text.gold.mentions)
    report: dict[str, Any] = {
        "accuracy": {name: float(np.mean([right for _, right in its.tops])) for name, its in fitted.items()},
        "calibration_error": {
            "entity": calibration_error(fitted["graph"].tops, curves["entity"]),
            "link": calibration_error(links, curves["link"]),
        },
        **best_threshold(links, curves["link"], num_gold),
    }
    weights: dict[str, NDArray[Any]] = {"mention.weight": mentions.weight, "mention.bias": mentions.bias}
    for name, its in fitted.items():
        weights |= {f"{name}.{part}": getattr(its.network, part) for part in Network.__dataclass_fields__}
    for name, (confidence, accuracy) in curves.items():
        weights |= {f"{name}.confidence": confidence, f"{name}.accuracy": accuracy}
    return weights, report


def _examples(
    sets: Sequence[CandidateSet], features: Sequence[Array] | None, right: Sequence[frozenset[int]]
) -> list[Example]:
    rows = [found.features for found in sets] if features is None else features
    return [
        Example(its, np.isin(found.entities, list(wanted)))
        for its, found, wanted in zip(rows, sets, right, strict=True)
    ]


@dataclass(frozen=True)
class FittedMentions:
    """Weights of the mention features, and what those that did not see a fold say of its spans."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    likely: list[list[list[float]]]
    """By fold, text and proposed span."""


def _fit_mentions(folds: Sequence[Fold], networks: Sequence[Network]) -> FittedMentions:
    rows, labels = [], []
    for fold, network in zip(folds, networks, strict=True):
        names = fold.reader.learned
        assert names is not None
        for text in fold.texts:
            local = by_mention([mention.candidates.features for mention in text.proposed], network)
            wanted = {(start, end) for start, end, _ in text.gold.mentions}
            for mention, scores, inside in zip(text.proposed, local, nested(text.proposed), strict=True):
                rows.append(hashed(span_features(text.tokens, mention, scores, names, inside=inside)))
                labels.append((mention.start, mention.end) in wanted)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    columns = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    matrix = sparse.csr_matrix((np.ones(len(columns), np.float32), columns, offsets), (len(rows), NUM_MENTION_BUCKETS))
    right = np.array(labels, bool)
    owner = np.repeat(np.arange(len(folds)), [sum(len(text.proposed) for text in fold.texts) for fold in folds])
    shares = np.zeros(len(rows))
    for number in _shown(range(len(folds)), "Mentions"):
        model = _logistic(matrix[owner != number], right[owner != number])
        if (owner == number).any():
            shares[owner == number] = model.predict_proba(matrix[owner == number])[:, 1]
    model = _logistic(matrix, right)
    remaining = iter(shares.tolist())
    likely = [[[next(remaining) for _ in text.proposed] for text in fold.texts] for fold in folds]
    return FittedMentions(model.coef_[0].astype(np.float32), model.intercept_.astype(np.float32), likely)


def _logistic(matrix: sparse.csr_matrix, right: NDArray[np.bool_]) -> LogisticRegression:
    if right.all() or not right.any():
        raise ConfigError(
            "The gold links cannot teach what a mention is: of the names in the texts, all or none are mentions."
        )
    return LogisticRegression(C=STRENGTH, max_iter=200).fit(matrix, right)


def _linked(
    text: Prepared, likely: Sequence[float], local: Network, graph: Network, reader: Reader, context: ContextIndex
) -> Iterator[tuple[float, bool]]:
    """Confidence of each link end to end, and whether span and entity are right."""
    chosen = best_spans(text.proposed, [worth(share) for share in likely])
    mentions = [text.proposed[i] for i in chosen]
    by_spelling = by_mention([mention.candidates.features for mention in mentions], local)
    sets, features = described(text.tokens, mentions, by_spelling, reader.finder, context, graph=True)
    gold = {(start, end): wanted for (start, end, _), wanted in zip(text.gold.mentions, text.right, strict=True)}
    for i, mention, found, scores in zip(chosen, mentions, sets, by_mention(features, graph), strict=True):
        top = int(scores.argmax())
        right = int(found.entities[top]) in gold.get((mention.start, mention.end), ())
        yield likely[i] * float(np.exp(scores[top])), right


def _shown(items: Sequence[Any], what: str) -> Iterator[Any]:
    return iter(track(items, what, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()))
