"""The texts that a run pretrains on and measures with; never a validation or test text of its tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any

from kg.errors import ConfigError
from kg.settings import Settings
from models.cleaning import clean_sample
from models.corpus import read_corpus
from models.data import read_task
from models.recipe import resolve_path
from models.run import Run

HELD_OUT = 200
"""Texts on which a loss is measured; a tenth where there are few."""


@dataclass(frozen=True)
class Texts:
    """Shuffled, and no text in two places."""

    train: tuple[str, ...]
    """General ones among them, with ``replay``."""
    held_out: tuple[str, ...]
    """Of the domain, for the report alone."""
    watched: tuple[str, ...]
    """Of the domain, by which the best weights are chosen."""
    general: tuple[str, ...]
    """By which the report tells what was forgotten."""


def read_texts(run: Run, settings: Settings) -> tuple[Texts, list[dict[str, Any]]]:
    """Training texts of the tasks, as they are, and of the corpora, cleaned; with what the cleaning did."""
    recipe, config = run.recipe, run.recipe.pretrain
    splits = [read_task(task.reader, resolve_path(task.path, settings.data), task.columns) for task in recipe.tasks]
    barred = {
        example.text
        for task, split in zip(recipe.tasks, splits, strict=True)
        for part in (split.validation, split.test, *((split.train,) if task.folds else ()))  # there all are tested
        for example in part
    }
    own = [example.text for split in splits for example in split.train if example.text not in barred]
    task_texts = [text for text in dict.fromkeys(own) if len(text) >= config.cleaning.min_length]
    room = max(0, config.max_texts - len(task_texts))
    found, counts = clean_sample(
        _documents(config.corpus, settings, config.text_key),
        config.cleaning,
        most=room,
        barred=barred,
        known=task_texts,
    )
    domain = [*task_texts, *found][: config.max_texts]
    if len(domain) < 2:
        raise ConfigError(
            "There are no texts to pretrain on; set pretrain.corpus, or max_steps = 0 to skip this stage."
        )
    Random(0).shuffle(domain)  # noqa: S311
    watched, domain = _apart(domain, HELD_OUT if config.evaluate_steps else 0)
    held_out, train = _apart(domain, HELD_OUT)
    mixed_in = round(len(train) * config.replay_share / (1 - config.replay_share))
    general, _ = clean_sample(
        _documents(config.replay, settings, config.text_key),
        config.cleaning,
        most=HELD_OUT + mixed_in if config.replay else 0,
        barred=barred,
        known=(*train, *held_out, *watched),
    )
    replayed = general[: min(mixed_in, len(general) - len(general) // 10)]
    measured = tuple(general[len(replayed) :])
    return Texts((*train, *replayed), tuple(held_out), tuple(watched), measured), counts


def _documents(paths: Sequence[str], settings: Settings, key: str) -> Iterable[str]:
    return chain.from_iterable(read_corpus(resolve_path(path, settings.data), key=key) for path in paths)


def _apart(texts: list[str], most: int) -> tuple[list[str], list[str]]:
    """Up to ``most`` of the texts, a tenth of few, and the others."""
    number = min(most, max(1, len(texts) // 10)) if texts else 0
    return texts[:number], texts[number:]
