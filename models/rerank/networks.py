"""The networks that rank candidates: one hidden layer each, trained on all folds but one at a time, and on all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kg.linking.candidates import FEATURES
from kg.linking.ranker import Array, Network, by_mention

HIDDEN = 32
EPOCHS = 15
MAX_STEPS = 6_000  # enough for 25,000 mentions to be seen so often; more of them are seen less often
BATCH = 64  # mentions
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class Example:
    """One mention to rank: features ``[cand, features]`` and which candidates are right ``[cand]``."""

    features: Array
    right: NDArray[np.bool_]


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


def crosswise(folds: Sequence[Sequence[Sequence[Example]]], seed: int) -> Fitted:
    """Train on the examples (by fold, text and mention) of all folds but each one, and of all."""
    flat = [[example for text in fold for example in text] for fold in folds]
    crossed = [
        fit_network([example for other, its in enumerate(flat) if other != number for example in its], seed)
        for number in range(len(folds))
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
    num_steps = min(EPOCHS * -(-len(useful) // BATCH), MAX_STEPS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(num_steps, 1))
    shuffle = np.random.default_rng(seed)
    order = np.zeros(0, np.int64)
    for _ in range(num_steps):
        if not len(order):
            order = shuffle.permutation(len(useful))
        batch, order = order[:BATCH], order[BATCH:]
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
