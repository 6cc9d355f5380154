"""From a text to an answer with its links and its reasons, by the models of a finished run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from seqeval.metrics.sequence_labeling import get_entities
from transformers import PreTrainedModel

from kg.errors import ConfigError, InputError
from kg.linking import Linker
from kg.snapshot import Snapshot
from kg.types import Link
from models.bans import Bans
from models.base import load_tokenizer, quiet
from models.batch import PAIR, KnowledgeCollator, KnowledgeEncoder, keep_mentions
from models.entity_table import EntityTable
from models.injection import knowledge_of
from models.kgbert import (
    KGBertForRelationClassification,
    KGBertForSequenceClassification,
    KGBertForTokenClassification,
    KGBertModel,
)
from models.objectives import pair_positions, spans_of_marks
from models.recipe import Task, load_recipe
from models.run import current_knowledge, read_manifest
from models.words import Asked, Words, attribute, support_of

CLASSES: Mapping[str, type[KGBertModel]] = {
    "sequence_classification": KGBertForSequenceClassification,
    "token_classification": KGBertForTokenClassification,
    "relation_classification": KGBertForRelationClassification,
}
MAX_FACTS = 5
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of the text that a token classifier found."""

    start: int
    end: int
    text: str
    label: str
    probability: float
    """Mean over its words."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What the knowledge at one linked mention did to the answer."""

    link: int
    """Position in the links of the answer."""
    influence: float
    """Probability of the answer less what it is when this mention's knowledge alone is taken away; in [-1, 1]."""
    without: str
    """The label, or the spans as ``text:label``, when this mention's knowledge alone is taken away."""
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
    label: str | None
    """Most probable label of the text; None for a task that labels words."""
    probabilities: Mapping[str, float]
    """Of each label of the text."""
    spans: tuple[Span, ...]
    """Found by a task that labels words."""
    without_knowledge: str | None
    """The label, or the spans as ``text:label``, when all knowledge is taken away."""
    influence: float
    """Probability of the answer less what it is then; single mentions may matter little where they say the same."""
    links: tuple[Link, ...]
    reasons: tuple[Reason, ...]
    """Most influential first; mentions that the model reads, no others."""
    words: Words | None = None
    """None where they were not asked for."""

    def as_json(self) -> dict[str, Any]:
        """The form that the command line and the HTTP API print."""
        return {**asdict(self), "links": [link.as_json() for link in self.links]}


class Predictor:
    """One task's fused model with the linker of its snapshot; any number of threads may ask it."""

    def __init__(
        self, model: PreTrainedModel, encoder: KnowledgeEncoder, task: Task, *, bans: Bans | None = None
    ) -> None:
        """
        Args:
            bans: what the model was not told of, so that it is named as no reason.
        """
        self.model, self.encoder, self.task = model.eval(), encoder, task
        snapshot = encoder.linker.snapshot
        triples = snapshot.triples
        self.triples = triples if bans is None else triples[bans.kept(triples, snapshot)]
        names: dict[int, str] = model.config.id2label  # type: ignore[assignment]
        self.labels = tuple(names[index] for index in range(len(names)))
        self.collate = KnowledgeCollator(tokenizer=encoder.tokenizer)

    def predict(self, text: str, *, words: bool = False) -> Answer:
        """Answer for one text; what is longer than the model reads is cut off.

        The text of a relation has marks around its head and its tail: ``@ Acme @ owns # Borealis #.``

        Args:
            words: say also what each word did; that takes as long as a hundred answers.

        Raises:
            UserError: the text of a relation has no marks.
        """
        links, feature = self._linked(text)
        mentions = range(len(feature["mention_links"]))
        variants = [feature, keep_mentions(feature, [])]
        variants += [keep_mentions(feature, [other for other in mentions if other != left]) for left in mentions]
        probabilities, attention, gate = self._run(variants)
        in_text = _words(text, feature["offsets"])
        label, spans, asked = self._read(text, probabilities[0], in_text)
        support = support_of(probabilities, asked).tolist()
        without = [self._said(text, row, in_text) for row in probabilities[1:]]
        reasons = [
            Reason(
                link=link,
                influence=round(support[0] - support[2 + mention], 4),
                without=without[1 + mention],
                attention=round(float(attention[mention]), 4),
                gate=round(float(gate[mention]), 4),
                facts=self._facts(links[link]),
            )
            for mention, link in enumerate(feature["mention_links"])
        ]
        return Answer(
            task=self.task.name,
            label=label,
            probabilities=self._probabilities(probabilities[0]) if label is not None else {},
            spans=spans,
            without_knowledge=without[0],
            influence=round(support[0] - support[1], 4),
            links=tuple(links),
            reasons=tuple(sorted(reasons, key=lambda reason: -abs(reason.influence))),
            words=attribute(self.model, self.collate, text, feature, asked) if words else None,
        )

    def _linked(self, text: str) -> tuple[list[Link], dict[str, Any]]:
        """The links of a text, and what the model reads of it."""
        linker = self.encoder.linker
        if self.task.kind != "relation_classification":
            links = linker.link(text)
            return links, self.encoder.encode_linked(text, links)
        marked = spans_of_marks(text)
        links = linker.link_spans(text, [(start + 2, end - 2) for start, end in marked])  # less mark and blank
        whole = [replace(link, start=start, end=end) for link, (start, end) in zip(links, marked, strict=True)]
        feature = self.encoder.encode_linked(text, whole)
        return links, {**feature, PAIR: pair_positions(marked, feature["offsets"])}

    def _run(
        self, variants: Sequence[Mapping[str, Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities of each variant; for the first one attention and gate where most of each mention was let in."""
        parts, mentions = [], len(variants[0]["mention_links"])
        attention, gate = np.zeros(mentions, dtype=np.float32), np.zeros(mentions, dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(variants), BATCH):
                output = self.model(**self.collate(variants[start : start + BATCH]))
                parts.append(torch.softmax(output.logits.float(), dim=-1).numpy())
                if start == 0 and mentions:
                    reads = list(knowledge_of(output).values())
                    reading = torch.cat([read.reading[0] for read in reads])  # [layers x seq, mentions]
                    let_in = torch.cat([read.gate[0].abs() for read in reads])  # [layers x seq]
                    most = (reading * let_in[:, None]).argmax(0)
                    attention, gate = reading[most, range(mentions)].numpy(), let_in[most].numpy()
        return np.concatenate(parts), attention, gate

    def _read(
        self, text: str, probabilities: NDArray[np.float32], words: Sequence[tuple[int, int, int]]
    ) -> tuple[str | None, tuple[Span, ...], Asked]:
        """Label or spans, and where their probabilities stand."""
        if self.task.kind != "token_classification":
            best = int(probabilities.argmax())
            return self.labels[best], (), ([best],)
        tokens = [token for token, _, _ in words]
        best_tags = probabilities[tokens].argmax(-1)
        given = probabilities[tokens, best_tags]
        found = get_entities([self.labels[index] for index in best_tags])
        spans = tuple(
            Span(
                start=words[first][1],
                end=words[last][2],
                text=text[words[first][1] : words[last][2]],
                label=label,
                probability=round(float(given[first : last + 1].mean()), 4),
            )
            for label, first, last in found
        )
        within = [word for _, first, last in found for word in range(first, last + 1)] or list(range(len(tokens)))
        return None, spans, ([tokens[word] for word in within], [int(best_tags[word]) for word in within])

    def _said(self, text: str, probabilities: NDArray[np.float32], words: Sequence[tuple[int, int, int]]) -> str:
        label, spans, _ = self._read(text, probabilities, words)
        return label if label is not None else "; ".join(f"{span.text}:{span.label}" for span in spans)

    def _probabilities(self, row: NDArray[np.float32]) -> dict[str, float]:
        return {label: round(float(value), 4) for label, value in zip(self.labels, row, strict=True)}

    def _facts(self, link: Link) -> tuple[str, ...]:
        snapshot = self.encoder.linker.snapshot
        entity = snapshot.index[str(link.id)]
        triples = self.triples
        about = triples[(triples[:, 0] == entity) | (triples[:, 2] == entity)]
        own_first = about[np.argsort(about[:, 0] != entity, kind="stable")][:MAX_FACTS]
        return tuple(f"{snapshot.names[h]} –{snapshot.relations[r]}→ {snapshot.names[t]}" for h, r, t in own_first)


def load_predictors(run: Path) -> dict[str, Predictor]:
    """The models of a finished run by task, the recipe's first task first.

    Raises:
        InputError: the folder is no run, or nothing in it is fine-tuned yet. SnapshotMismatch: the model was trained
        with another snapshot than the one that the run folder holds.
    """
    manifest = read_manifest(run)
    recipe = load_recipe(str(run / "config.toml"))
    if not (run / "model" / "config.json").is_file():
        raise InputError(
            run, f"nothing is fine-tuned yet; run: python -m models.train_kgbert finetune {recipe.name} --run {run}"
        )
    knowledge = current_knowledge(manifest)
    snapshot = Snapshot.load(run / knowledge["snapshot"]["path"])
    table = EntityTable.load(run / knowledge["table"])
    table.check(snapshot)
    linker = Linker.load(snapshot)
    bans = Bans.load(run / "table")
    bans = replace(bans, relations=(*bans.relations, *knowledge["ignored_relations"]))
    predictors = {}
    for position, task in enumerate(recipe.tasks):
        folder = run / "model" if position == 0 else run / "model" / task.name
        try:
            with quiet():
                model = CLASSES[task.kind].from_pretrained(folder)
                model.set_table(table)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                folder, f"holds a model that cannot be loaded ({reason}); remove it and run again"
            ) from error
        encoder = KnowledgeEncoder(load_tokenizer(str(folder)), linker, table, max_length=task.training.max_length)
        predictors[task.name] = Predictor(model, encoder, task, bans=bans)
    return predictors


def choose(predictors: Mapping[str, Predictor], task: str | None) -> Predictor:
    """The predictor of ``task``, or of the recipe's first task.

    Raises:
        ConfigError: the run has no such task.
    """
    if task is None:
        return next(iter(predictors.values()))
    if task not in predictors:
        raise ConfigError(f"The run has no task {task!r}; it has {', '.join(predictors)}.")
    return predictors[task]


def _words(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(first token, start, end) of each word that has a token; words and single marks, as the tasks are split."""
    first_token: dict[int, int] = {}
    for token, (start, end) in enumerate(offsets):
        if end > start:
            first_token.setdefault(start, token)
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    return [(first_token[start], start, end) for start, end in spans if start in first_token]
