"""``python -m models.rerank``: teach the linker from texts with gold links.

What is learned: which names denoted what, which names are mentions at all, and three small networks that weigh
spelling, text and graph. Names that a text itself contributed must not help to link it, so all is learned crosswise:
the features of each text come from what the texts of the other folds taught, and so do the predictions that confidence
is calibrated on.
"""

import json
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.numpy import save_file
from scipy import sparse
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import nn

from kg.errors import ConfigError, InputError
from kg.linking.candidates import FEATURES, CandidateSet
from kg.linking.context import ContextIndex
from kg.linking.dictionary import Dictionary
from kg.linking.document import Mention, described
from kg.linking.learned import LearnedNames, write_learned
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

NUM_FOLDS = 5
HIDDEN = 32
EPOCHS = 15
BATCH = 64  # mentions
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-3
STRENGTH = 0.3  # of the mention features: inverse of their L2 regularisation
CURVE_POINTS = 50


@dataclass(frozen=True)
class GoldText:
    """A text and what it mentions."""

    id: str
    text: str
    mentions: tuple[tuple[int, int, tuple[str, ...]], ...]
    """Start, end (code points) and the ids that are right; none for NIL."""


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


@dataclass(frozen=True)
class Example:
    """One mention to rank: features ``[cand, features]`` and which candidates are right ``[cand]``."""

    features: Array
    right: NDArray[np.bool_]


def read_gold(file: Path) -> Iterator[GoldText]:
    """Lines ``{"id", "text", "mentions": [{"start", "end", "ids"}]}``; ids are CURIEs, offsets code points.

    Raises:
        InputError: naming file and line.
    """
    if not file.is_file():
        raise InputError(file, "there is no such file")
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
                mentions = tuple((m["start"], m["end"], tuple(m["ids"])) for m in row["mentions"])
                if not all(0 <= start < end <= len(row["text"]) for start, end, _ in mentions):
                    raise ValueError("a mention lies outside of its text")
                yield GoldText(str(row["id"]), row["text"], mentions)
            except (ValueError, KeyError, TypeError) as error:
                shape = 'expected {"id", "text", "mentions": [{"start", "end", "ids"}]}'
                raise InputError(file, f"{shape}, got {error!r}", line=number) from error


def train_ranker(snapshot: Snapshot, gold: Sequence[GoldText], folder: Path, *, seed: int = 0) -> Mapping[str, Any]:
    """Learn from ``gold`` and write a ranker into ``folder``.

    Returns:
        what the crosswise predictions reach: see ``report`` in the ranker's manifest.

    Raises:
        ConfigError: there are fewer texts than folds, or none of their ids is in the snapshot.
    """
    if len(gold) < NUM_FOLDS:
        raise ConfigError(f"{len(gold)} texts to learn from; expected at least {NUM_FOLDS}.")
    dictionary = Dictionary.open(snapshot)
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="kgfuse-rerank-") as temporary:
        folds = [
            _read_fold(dictionary, gold, number, Path(temporary) / str(number))
            for number in _shown(range(NUM_FOLDS), "Reading")
        ]
        if not any(right for fold in folds for text in fold.texts for right in text.right):
            raise ConfigError("None of the ids of the gold links is in the snapshot; are they CURIEs like its own?")
        weights, report = _fit(folds, ContextIndex(dictionary), seed)
    learn_names(dictionary, gold, aside)
    save_file(weights, aside / "weights.safetensors")
    manifest = {
        "format": FORMAT,
        "features": feature_names(),
        "files": {file.name: file_sha256(file) for file in sorted(aside.iterdir())},
        "threshold": report["threshold"],
        "trained_on": {"snapshot": snapshot.hash, "texts": len(gold), "mentions": sum(len(t.mentions) for t in gold)},
        "report": report,
    }
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
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
    write_learned(folder, links, {})
    reader = Reader(dictionary, LearnedNames(folder, dictionary))
    counts: dict[str, list[int]] = {}
    for tokens, wanted in read:
        for key in wanted.values():
            counts.setdefault(key, [0, 0])[0] += 1
        for here in reader.proposals(tokens):
            for proposal in here:
                if tokens.span(proposal.first, proposal.last) not in wanted:
                    counts.setdefault(proposal.key, [0, 0])[1] += 1
    write_learned(folder, links, {key: (yes, no) for key, (yes, no) in counts.items()})
    return LearnedNames(folder, dictionary)


def _read_fold(dictionary: Dictionary, gold: Sequence[GoldText], number: int, folder: Path) -> Fold:
    folder.mkdir()
    mine = [text for text in gold if _fold_of(text) == number]
    learned = learn_names(dictionary, [text for text in gold if _fold_of(text) != number], folder)
    reader = Reader(dictionary, learned)
    prepared = []
    for text in mine:
        tokens = tokens_of(text.text)
        given = reader.given(tokens, [(start, end) for start, end, _ in text.mentions])
        right = tuple(
            frozenset(entity for id in ids if (entity := dictionary.index_of(id)) is not None)
            for _, _, ids in text.mentions
        )
        prepared.append(Prepared(text, tokens, tuple(given), right, tuple(reader.proposed(tokens))))
    return Fold(reader, tuple(prepared))


def _fold_of(text: GoldText) -> int:
    return zlib.crc32(text.id.encode()) % NUM_FOLDS


def _fit(folds: Sequence[Fold], context: ContextIndex, seed: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Weights of all parts, learnt from all folds, and what those learnt crosswise reach."""
    plain = [[_examples([m.candidates for m in t.given], None, t.right) for t in fold.texts] for fold in folds]
    fitted = {"local": _crosswise(plain, seed, "local")}
    for name in ("document", "graph"):
        examples = [
            [
                _examples(
                    *described(text.tokens, text.given, scores, fold.reader.finder, context, graph=name == "graph"),
                    text.right,
                )
                for text, scores in zip(fold.texts, local, strict=True)
            ]
            for fold, local in zip(folds, fitted["local"].scores, strict=True)
        ]
        fitted[name] = _crosswise(examples, seed, name)
    mentions = _fit_mentions(folds, fitted["local"].crossed)
    links = [
        row
        for fold, local, graph, likely in zip(
            folds, fitted["local"].crossed, fitted["graph"].crossed, mentions.likely, strict=True
        )
        for text, shares in zip(fold.texts, likely, strict=True)
        for row in _linked(text, shares, local, graph, fold.reader, context)
    ]
    curves = {"entity": _curve(fitted["graph"].tops), "link": _curve(links)}
    num_gold = sum(bool(ids) for fold in folds for text in fold.texts for _, _, ids in text.gold.mentions)
    report: dict[str, Any] = {
        "accuracy": {name: float(np.mean([right for _, right in its.tops])) for name, its in fitted.items()},
        "calibration_error": {
            "entity": calibration_error(fitted["graph"].tops, curves["entity"]),
            "link": calibration_error(links, curves["link"]),
        },
        **_best_threshold(links, curves["link"], num_gold),
    }
    weights: dict[str, NDArray[Any]] = {"mention.weight": mentions.weight, "mention.bias": mentions.bias}
    for name, its in fitted.items():
        weights |= {f"{name}.{part}": getattr(its.network, part) for part in Network.__dataclass_fields__}
    for name, (confidence, accuracy) in curves.items():
        weights |= {f"{name}.confidence": confidence, f"{name}.accuracy": accuracy}
    return weights, report


# Networks


@dataclass(frozen=True)
class Fitted:
    """A network, and what those that did not see a fold say of it."""

    network: Network
    crossed: tuple[Network, ...]
    """By fold."""
    scores: list[list[list[Array]]]
    """Log-probabilities ``[cand]`` by fold, text and mention."""
    tops: list[tuple[float, bool]]
    """Of each mention: the probability of the first candidate, and whether it is right."""


def _examples(
    sets: Sequence[CandidateSet], features: Sequence[Array] | None, right: Sequence[frozenset[int]]
) -> list[Example]:
    rows = [found.features for found in sets] if features is None else features
    return [
        Example(its, np.isin(found.entities, list(wanted)))
        for its, found, wanted in zip(rows, sets, right, strict=True)
    ]


def _crosswise(folds: Sequence[Sequence[Sequence[Example]]], seed: int, name: str) -> Fitted:
    flat = [[example for text in fold for example in text] for fold in folds]
    crossed = [
        fit_network([example for other, its in enumerate(flat) if other != number for example in its], seed)
        for number in _shown(range(len(folds)), f"Network {name}")
    ]
    scores = [
        [by_mention([example.features for example in text], network) for text in fold]
        for fold, network in zip(folds, crossed, strict=True)
    ]
    tops = [
        (float(np.exp(its.max())), bool(example.right[its.argmax()])) if len(its) else (0.0, False)
        for fold, by_text in zip(folds, scores, strict=True)
        for text, by_mention_ in zip(fold, by_text, strict=True)
        for example, its in zip(text, by_mention_, strict=True)
    ]
    return Fitted(fit_network([example for its in flat for example in its], seed), tuple(crossed), scores, tops)


def fit_network(examples: Sequence[Example], seed: int) -> Network:
    """The network that gives the right candidates the largest share of the softmax over a mention's candidates and NIL.

    NIL, whose score is that of the mean features, is right where no candidate is.
    """
    useful = [example for example in examples if len(example.right)]
    width = examples[0].features.shape[1] if examples else len(FEATURES)
    rows = np.concatenate([example.features for example in useful]) if useful else np.zeros((1, width), np.float32)
    mean, scale = rows.mean(axis=0), 1 / np.maximum(rows.std(axis=0), 1e-3)
    torch.manual_seed(seed)
    first, last = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, 1, bias=False)
    net = nn.Sequential(first, nn.ReLU(), last)
    inputs = torch.from_numpy((rows - mean) * scale)
    right = torch.from_numpy(np.concatenate([example.right for example in useful]) if useful else np.zeros(1, bool))
    sizes = np.array([len(example.right) for example in useful], np.int64)
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    num_steps = EPOCHS * -(-len(useful) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(num_steps, 1))
    shuffle = np.random.default_rng(seed)
    for _ in range(EPOCHS if len(useful) else 0):
        order = shuffle.permutation(len(useful))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            width_of = int(sizes[batch].max())
            places = torch.from_numpy(firsts[batch][:, None] + np.arange(width_of))
            real = torch.from_numpy(np.arange(width_of) < sizes[batch][:, None])
            places = places.where(real, torch.tensor(0))
            nil = last(first.bias.relu()).expand(len(batch), 1)
            scores = torch.cat([net(inputs[places]).squeeze(-1).masked_fill(~real, -torch.inf), nil], 1)
            is_right = right[places] & real
            is_right = torch.cat([is_right, ~is_right.any(1, keepdim=True)], 1)
            loss = (scores.logsumexp(1) - scores.masked_fill(~is_right, -torch.inf).logsumexp(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return Network(
        mean.astype(np.float32),
        scale.astype(np.float32),
        np.ascontiguousarray(first.weight.detach().numpy().T),
        first.bias.detach().numpy(),
        last.weight.detach().numpy()[0],
    )


# Mentions


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


# Confidence


def _curve(rows: Sequence[tuple[float, bool]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The share that is right by confidence, never falling, at a few points."""
    points = np.linspace(0, 1, CURVE_POINTS + 1)
    if not rows:
        return points.astype(np.float32), points.astype(np.float32)
    confidence, right = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    return points.astype(np.float32), model.predict(points).astype(np.float32)


def calibration_error(
    rows: Sequence[tuple[float, bool]], curve: tuple[NDArray[np.float32], NDArray[np.float32]], bins: int = 15
) -> float:
    """Expected calibration error in equal bins (Guo et al., ICML 2017)."""
    if not rows:
        return 0.0
    confidence, right = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    confidence = np.interp(confidence, *curve)
    owner = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[owner == b].sum() - right[owner == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(rows))


def _best_threshold(
    rows: Sequence[tuple[float, bool]], curve: tuple[NDArray[np.float32], NDArray[np.float32]], num_gold: int
) -> dict[str, float]:
    """The confidence below which to answer NIL for the best F1, and that F1."""
    if not rows:
        return {"threshold": 0.5, "f1": 0.0, "precision": 0.0, "recall": 0.0}
    ordered = sorted(((float(np.interp(confidence, *curve)), right) for confidence, right in rows), reverse=True)
    hits = np.cumsum([right for _, right in ordered])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + num_gold)
    best = int(f1.argmax())
    return {
        "threshold": ordered[best][0],
        "f1": float(f1[best]),
        "precision": float(hits[best] / (best + 1)),
        "recall": float(hits[best] / num_gold),
    }


def _shown(items: Sequence[Any], what: str) -> Iterator[Any]:
    return iter(track(items, what, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()))
