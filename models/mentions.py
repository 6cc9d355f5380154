"""Mentions of features: hidden, kept by their links, or led to other entities; and how much a model let in of each."""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import torch

from models.batch import PARTS
from models.entity_table import FIRST, NULL
from models.injection import knowledge_of


class Weight(NamedTuple):
    """Attention and gate of a link, where most of it was let in."""

    let_in: float
    attention: float
    gate: float


Weights: TypeAlias = dict[int, Weight]
"""By the number of the link."""
_Change = TypeVar("_Change", bound=Callable[..., dict[str, Any]])


def _of_each_part(change: _Change) -> _Change:
    """Of an example in parts, each part is changed."""

    @wraps(change)
    def changed(feature: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        if PARTS in feature:
            return {**feature, PARTS: [change(part, *args) for part in feature[PARTS]]}
        return change(feature, *args)

    return cast(_Change, changed)


@_of_each_part
def hide_mentions(feature: Mapping[str, Any], share: float, draw: int) -> dict[str, Any]:
    """The feature with each mention hidden with probability ``share``; the same ``draw`` hides the same ones.

    A model that is sometimes not told learns to do without knowledge, too.
    """
    rng = random.Random(draw)  # noqa: S311
    return keep_mentions(feature, [m for m in range(len(feature["mention_entities"])) if rng.random() >= share])


@_of_each_part
def wrong_links(feature: Mapping[str, Any], share: float, num_entities: int, draw: int) -> dict[str, Any]:
    """The feature with each mention led to entities at random with probability ``share``."""
    rng = random.Random(draw)  # noqa: S311
    entities = [
        [row if row == NULL or not wrong else FIRST + rng.randrange(num_entities) for row in candidates]
        for candidates in feature["mention_entities"]
        for wrong in [rng.random() < share]
    ]
    return {**feature, "mention_entities": entities}


def keep_mentions(feature: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The feature with only the mentions ``kept`` (counted from 0)."""
    number = {0: 0} | {mention + 1: position for position, mention in enumerate(kept, 1)}
    return {
        **feature,
        "mention_entities": [feature["mention_entities"][mention] for mention in kept],
        "mention_priors": [feature["mention_priors"][mention] for mention in kept],
        "mention_links": [feature["mention_links"][mention] for mention in kept],
        "token_mentions": [number.get(mention, 0) for mention in feature["token_mentions"]],
    }


@_of_each_part
def keep_links(feature: Mapping[str, Any], kept: Collection[int]) -> dict[str, Any]:
    """The feature with only the mentions of the links ``kept``."""
    return keep_mentions(feature, [m for m, link in enumerate(feature["mention_links"]) if link in kept])


def weigh(weights: Weights, output: Any, parts: Sequence[Mapping[str, Any] | None]) -> None:
    """Note what the parts, one a row of the output, read of each link; a None is passed over."""
    reads = list(knowledge_of(output).values())
    for row, part in enumerate(parts):
        for mention, link in enumerate(part["mention_links"] if part else ()):
            reading = torch.cat([read.reading[row][:, mention] for read in reads])  # [layers x seq]
            gate = torch.cat([read.gate[row].abs() for read in reads])
            most = int((reading * gate).argmax())
            let_in = float(reading[most] * gate[most])
            if link not in weights or let_in > weights[link].let_in:
                weights[link] = Weight(let_in, float(reading[most]), float(gate[most]))
