"""A task's examples as models read them, and which of them each model is trained, chosen and tested with."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

from models.bans import Bans
from models.data import read_task
from models.examples import Example, Splits, squeezed
from models.facts import FACT_TOKENS, Facts
from models.objectives import Objective, Regression, objective_for, with_entities
from models.recipe import Task
from models.retrieval import Memory, with_found
from models.stages.arms import text_encoder
from models.training import Training


@dataclass(frozen=True, kw_only=True)
class Division:
    """Positions of the examples that one model is trained, chosen and tested with."""

    train: list[int]
    validation: list[int]
    test: list[int]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task read, linked and tokenized."""

    read: list[Example]
    """As the task has them: they are divided by these, for all arms alike."""
    examples: list[Example]
    """As a model is given them, in the same order."""
    features: dict[int, list[dict[str, Any]]]
    """Of each example, by its position; each names it under ``example``."""
    division: Division
    objective: Objective
    memory: Memory | None = None
    """What examples are looked up in before they are read."""

    def of(self, positions: Iterable[int]) -> list[dict[str, Any]]:
        return [feature for position in positions for feature in self.features[position]]

    def taught(self, feature: dict[str, Any]) -> dict[str, Any]:
        """What a model is trained with: features serve all divisions, numbers are scaled by those of one."""
        if not isinstance(self.objective, Regression):
            return feature
        return {**feature, "labels": self.objective.scaled(self.examples[feature["example"]])}


def prepared(run_path: Path, base: str, snapshot: str, task: Task, path: Path, *, facts: bool) -> Prepared:
    """A task read, linked and tokenized; kept by a worker process for its later trainings.

    Args:
        facts: write what the graph says of the linked entities behind each text.
    """
    # whatever the number of shots, and however it is trained, the texts are the same
    training = Training(max_length=task.training.max_length)
    return _prepared(run_path, base, snapshot, replace(task, name="any", shots=(), training=training), path, facts)


def divided(task: Task, path: Path) -> tuple[list[Example], Division]:
    """The examples that a task uses, and which of them are for what."""
    splits = read_task(task.reader, path, task.columns)
    examples = [example for part in Splits.PARTS for example in getattr(splits, part)]
    ends = list(accumulate((len(getattr(splits, part)) for part in Splits.PARTS), initial=0))
    train, validation, test = (list(range(start, end)) for start, end in pairwise(ends))
    division = Division(
        train=some(train, task.max_train),
        validation=some(validation, None if task.max_test is None else task.max_test // 4),
        test=some(test, task.max_test),
    )
    kept = sorted({*division.train, *division.validation, *division.test})
    place = {index: number for number, index in enumerate(kept)}
    examples = [examples[index] for index in kept]
    return examples, Division(**{part: [place[index] for index in getattr(division, part)] for part in Splits.PARTS})


@cache
def _prepared(run_path: Path, base: str, snapshot: str, task: Task, path: Path, facts: bool) -> Prepared:
    read, division = divided(task, path)
    examples = read
    memory = Memory.of([examples[index] for index in division.train]) if task.retrieve else None
    if memory is not None:
        examples = with_found(examples, division.train, memory)
    encoder = text_encoder(run_path, base, snapshot, task.training.max_length)
    examples = with_entities(examples, encoder.linker)
    if facts:
        written = Facts(encoder.linker, Bans.load(run_path / "table"))
        examples = list(map(written.behind, examples))
        encoder = text_encoder(run_path, base, snapshot, task.training.max_length + FACT_TOKENS)
    objective = objective_on(task, examples, division)
    features: dict[int, list[dict[str, Any]]] = {}
    for number, feature in enumerate(objective.encode(examples, encoder)):
        features.setdefault(feature.setdefault("example", number), []).append(feature)
    return Prepared(
        read=read, examples=examples, features=features, division=division, objective=objective, memory=memory
    )


def objective_on(task: Task, examples: Sequence[Example], division: Division) -> Objective:
    """The objective of a task that has learnt of values and lengths from what the division trains with, and no more."""
    return objective_for(task.kind, examples, train=[examples[at] for at in division.train], **asdict(task.decoding))


def some(positions: list[int], most: int | None) -> list[int]:
    """``most`` of the positions at random, always the same, in their order."""
    if most is None or len(positions) <= most:
        return positions
    return [positions[index] for index in sorted(random.Random(0).sample(range(len(positions)), most))]  # noqa: S311


def draw(examples: Sequence[Example], train: Sequence[int], task: Task, *, seed: int) -> list[int]:
    """Positions of the training examples that this seed labels, in order: ``shots`` of each label, or all.

    Of tagged sentences, as many as it takes until each type has been in ``shots`` of them, and as many without any; of
    what has no classes, ``shots`` in all.
    """
    if not task.shots:
        return list(train)
    (shots,) = task.shots
    order = list(train)
    random.Random(seed).shuffle(order)  # noqa: S311
    counts: Counter[str] = Counter()
    drawn = []
    for index in order:
        example = examples[index]
        types = {tag[2:] for tag in example.tags if tag != "O"} | set(example.labels)
        if example.label is not None and not example.choices:
            types.add(example.label)
        if any(counts[label] < shots for label in types or {"O"}):
            drawn.append(index)
            counts.update(types or {"O"})
    return sorted(drawn)


def divisions_of(examples: Sequence[Example], division: Division, task: Task, *, seed: int) -> list[Division]:
    """What each model of a seed is trained, chosen and tested with: one a fold, else one on what the seed labels."""
    if task.folds:
        return folds_of(examples, task.folds, seed=seed)
    return [replace(division, train=draw(examples, division.train, task, seed=seed))]


def folds_of(examples: Sequence[Example], count: int, *, seed: int) -> list[Division]:
    """Each example tested once, labels spread evenly; a tenth of what is left of each fold validates.

    All that is asked of one text stays together, or it would leak.
    """
    of_text: dict[str, list[int]] = {}
    for index in random.Random(seed).sample(range(len(examples)), len(examples)):  # noqa: S311
        example = examples[index]
        of_text.setdefault(squeezed(example.text or example.second) or example.id, []).append(index)
    by_label: dict[str | None, list[list[int]]] = {}
    for group in of_text.values():
        first = examples[group[0]]
        by_label.setdefault(None if first.choices else first.label, []).append(group)
    dealt = [group for part in by_label.values() for group in part]
    divisions = []
    for number in range(count):
        rest = [group for place, group in enumerate(dealt) if place % count != number]
        divisions.append(
            Division(
                train=sorted(chain.from_iterable(group for place, group in enumerate(rest) if place % 10)),
                validation=sorted(chain.from_iterable(rest[::10])),
                test=sorted(chain.from_iterable(dealt[number::count])),
            )
        )
    return divisions


def seen(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> list[bool]:
    """True for the test features of whose entities one was in a training example."""
    trained = {row for feature in train for candidates in feature["mention_entities"] for row in candidates[1:2]}
    return [
        any(row in trained for candidates in feature["mention_entities"] for row in candidates[1:2]) for feature in test
    ]


def any_of_example(flags: Sequence[bool], features: Sequence[dict[str, Any]]) -> list[bool]:
    """Of each example, whether one of its features has the flag."""
    found: dict[int, bool] = {}
    for flag, feature in zip(flags, features, strict=True):
        found[feature["example"]] = found.get(feature["example"], False) or flag
    return list(found.values())
