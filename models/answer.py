"""What a model says of one text, and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kg.types import Link
from models.objectives import Span
from models.words import Words


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What the knowledge at one linked mention did to the answer."""

    link: int
    """Position in the links of the answer."""
    influence: float
    """Probability of the answer less what it is when this mention's knowledge alone is taken away; in [-1, 1].

    Of a number, the number less what it is then; of a text that is written, by the mean over its tokens.
    """
    without: str
    """The answer in a line when this mention's knowledge alone is taken away."""
    attention: float
    """Share of the token that let in most of it which went to this mention, over the fused layers; in [0, 1]."""
    gate: float
    """How far that token let in what it read; in [0, 1]."""
    facts: tuple[str, ...]
    """What the graph says of the entity, a few of the triples that the model was told of."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says of one text, and why."""

    task: str
    said: str = ""
    """The answer in a line, whatever its kind; empty where nothing is found, or the text does not say."""
    label: str | None
    """Most probable label of the text, or choice; None for a task of another kind."""
    labels: tuple[str, ...] = ()
    """All labels of a text that may have several."""
    value: float | None = None
    """The number of a regression."""
    probabilities: Mapping[str, float]
    """Of each label of the text, or choice."""
    spans: tuple[Span, ...]
    """Found by a task that labels words, or looks for the answer to a question."""
    retrieved: str | None = None
    """What was written for a training text near to this one, which the model read behind what is put to it; None
    where the task looks nothing up."""
    unread: int = 0
    """Code points at the end of the text that were cut off, since it is longer than the model reads."""
    without_knowledge: str | None
    """The answer in a line when all knowledge is taken away."""
    influence: float
    """Probability of the answer less what it is then; single mentions may matter little where they say the same."""
    links: tuple[Link, ...]
    """In the text, and behind it, after a line end, in what was put to it."""
    reasons: tuple[Reason, ...]
    """Most influential first; mentions that the model reads, no others."""
    unmeasured: int = 0
    """Links that the model reads too, but lets in least of, where there are many: what each did was not measured."""
    words: Words | None = None
    """None where they were not asked for."""

    def as_json(self) -> dict[str, Any]:
        """The form that the command line and the HTTP API print."""
        return {**asdict(self), "links": [link.as_json() for link in self.links]}
