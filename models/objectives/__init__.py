"""What each kind of task asks of a model: its classes, how its labels are encoded, and how its answers are scored."""

from collections.abc import Mapping, Sequence
from typing import Any

from kg.errors import ConfigError
from models.examples import Example
from models.objectives.answers import QuestionAnswering
from models.objectives.choice import MultipleChoice
from models.objectives.classification import MultiLabelClassification, PairClassification, SequenceClassification
from models.objectives.extraction import ExtractiveSummary
from models.objectives.generation import CausalGeneration, Seq2SeqGeneration
from models.objectives.objective import METRICS, UNSCALED, Asked, Objective, Reading, Scored, Span
from models.objectives.regression import Regression
from models.objectives.relation import (
    MARKS,
    RelationClassification,
    marked,
    pair_positions,
    spans_of_marks,
    with_entities,
)
from models.objectives.tokens import TokenClassification

__all__ = [
    "KINDS",
    "MARKS",
    "METRICS",
    "UNSCALED",
    "Asked",
    "CausalGeneration",
    "ExtractiveSummary",
    "MultiLabelClassification",
    "MultipleChoice",
    "Objective",
    "PairClassification",
    "QuestionAnswering",
    "Reading",
    "Regression",
    "RelationClassification",
    "Scored",
    "Seq2SeqGeneration",
    "SequenceClassification",
    "Span",
    "TokenClassification",
    "marked",
    "objective_for",
    "objective_of",
    "pair_positions",
    "spans_of_marks",
    "with_entities",
]

KINDS: Mapping[str, type[Objective]] = {
    "sequence_classification": SequenceClassification,
    "multi_label_classification": MultiLabelClassification,
    "regression": Regression,
    "pair_classification": PairClassification,
    "token_classification": TokenClassification,
    "relation_classification": RelationClassification,
    "question_answering": QuestionAnswering,
    "multiple_choice": MultipleChoice,
    "extractive_summarization": ExtractiveSummary,
    "seq2seq_generation": Seq2SeqGeneration,
    "causal_generation": CausalGeneration,
}


def objective_for(
    kind: str, examples: Sequence[Example], *, train: Sequence[Example] | None = None, **decoding: Any
) -> Objective:
    """The objective of a task, with the labels that its examples show, in sorted order.

    Args:
        train: those of the examples from which it may learn more than the names of labels; default all.
        decoding: how text is written (``models.recipe.Decoding``).

    Raises:
        ConfigError: an example lacks what is predicted, or what it is predicted from, or has a text too many.
    """
    for example in examples:
        lacking = [field for field in KINDS[kind].needs if getattr(example, field) in (None, "", ())]
        if lacking:
            raise ConfigError(
                f"A task of the kind {kind} needs {' and '.join(KINDS[kind].needs)} of each example; {example.id!r} "
                f"has no {lacking[0]}: choose another kind, or name its column in columns."
            )
        if example.second and not KINDS[kind].reads_second():
            raise ConfigError(
                f"A task of the kind {kind} reads one text, but example {example.id!r} has a second: choose another "
                "kind, or give that column another name."
            )
        if example.choices and example.label not in example.choices:
            raise ConfigError(f"The label of example {example.id!r} is none of its choices {list(example.choices)}.")
    return KINDS[kind].of(examples if train is None else train, examples, **decoding)


def objective_of(kind: str, config: Any) -> Objective:
    """The objective of a saved model, from its configuration."""
    names: dict[int, str] = config.id2label
    labels = tuple(names[index] for index in range(len(names)))
    state = {"labels": labels, **(getattr(config, "objective", None) or {})}
    return KINDS[kind](**{name: tuple(value) if isinstance(value, list) else value for name, value in state.items()})
