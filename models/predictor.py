"""From a text to an answer with its links and its reasons, by the models of a finished run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import nlargest
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from safetensors import SafetensorError
from transformers import PreTrainedModel

from kg.errors import ConfigError, InputError, UserError
from kg.linking import Linker
from kg.snapshot import Snapshot
from kg.types import Link
from models.answer import Answer, Reason
from models.bans import Bans
from models.base import load_tokenizer, quiet
from models.batch import PAIR, PARTS, KnowledgeCollator, KnowledgeEncoder, parts_of, shifted
from models.entity_table import EntityTable
from models.examples import Example, whole
from models.mentions import keep_links
from models.objectives import (
    KINDS,
    ExtractiveSummary,
    QuestionAnswering,
    Seq2SeqGeneration,
    TokenClassification,
    objective_of,
    pair_positions,
    spans_of_marks,
)
from models.objectives.choice import encode_choices
from models.recipe import Task, load_recipe
from models.retrieval import Memory, beside
from models.run import current_knowledge, read_manifest
from models.variants import Variants
from models.words import attribute, support_of

MAX_FACTS = 5
MAX_REASONS = 48
"""Links that are taken away one by one: the whole text is read anew for each, and a long one has thousands."""


class Predictor:
    """One task's fused model with the linker of its snapshot; any number of threads may ask it."""

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: KnowledgeEncoder,
        task: Task,
        *,
        bans: Bans | None = None,
        memory: Memory | None = None,
    ) -> None:
        """
        Args:
            bans: what the model was not told of, so that it is named as no reason.
            memory: where a text is looked up before it is read.
        """
        self.model, self.encoder, self.task, self.memory = model.eval(), encoder, task, memory
        snapshot = encoder.linker.snapshot
        triples = snapshot.triples
        self.triples = triples if bans is None else triples[bans.kept(triples, snapshot)]
        self.objective = objective_of(task.kind, model.config)
        self.labels = self.objective.labels
        # padding behind the texts, since tokens of windows are counted from their start
        self.collate = KnowledgeCollator(tokenizer=encoder.tokenizer, left=False)

    def predict(
        self,
        text: str,
        *,
        second: str = "",
        choices: Sequence[str] = (),
        words: bool = False,
        abandoned: Event | None = None,
    ) -> Answer:
        """Answer for one text. What is longer than the model reads is cut off, and the answer says how much that is;
        but for tags, answers to questions and summaries made of sentences, which are found in windows.

        The text of a relation has marks around its head and its tail: ``@ Acme @ owns # Borealis #.``

        Args:
            second: what is put to the text: a hypothesis, a question.
            choices: of a task that chooses.
            words: say also what each word did; that takes as long as a hundred answers.
            abandoned: set when nobody waits for the answer any more; it is looked at between batches.

        Raises:
            UserError: the text of a relation has no marks, or the task is asked for what its kind does not do.
            KGError: the answer was abandoned.
        """
        self._check(second, choices, words)
        example = Example(id="", text=text, second=second, choices=tuple(choices))
        retrieved = None
        if self.memory is not None:
            (retrieved,) = self.memory.agreed([whole(example)])
            example = beside(example, retrieved)
        runs = Variants(self.model, self.collate, self.objective, abandoned)
        links, feature = self._linked(example, runs)
        if words and PARTS in feature:
            raise UserError(
                f"What each word did is told of a text that is read at once; this one is read in {len(feature[PARTS])} "
                "windows: ask without words, or of a part of it."
            )
        read = sorted({link for part in parts_of(feature) for link in part["mention_links"]})
        measured, every = read, frozenset(read)
        if PARTS in feature and len(read) > MAX_REASONS:
            runs.run([feature])
            measured = sorted(nlargest(MAX_REASONS, read, key=lambda link: runs.weights[link].let_in))
        variants = [feature, keep_links(feature, ()), *(keep_links(feature, every - {left}) for left in measured)]
        if isinstance(self.objective, Seq2SeqGeneration):
            said, rows = runs.write(self.objective, variants)
        else:
            said, rows = [text] * len(variants), runs.run(variants)
        readings = [
            self.objective.read(row, feature, given)
            for batch in runs.batches(zip(rows, said, strict=True))
            for row, given in batch
        ]
        answer = readings[0]
        support = support_of(rows, answer.asked).tolist()
        reasons = [
            Reason(
                link=link,
                influence=round(support[0] - support[2 + number], 4),
                without=readings[2 + number].said,
                attention=round(runs.weights[link].attention, 4),
                gate=round(runs.weights[link].gate, 4),
                facts=self._facts(links[link]),
            )
            for number, link in enumerate(measured)
        ]
        explained = None
        if words:
            try:
                explained = attribute(self.model, self.collate, whole(example), feature, answer.asked, self.objective)
            except NotImplementedError as error:  # T5's classifier takes no embeddings
                raise UserError(
                    f"What each word did is not told with this base ({error}); ask without words."
                ) from error
        return Answer(
            task=self.task.name,
            said=answer.said,
            label=answer.label,
            labels=answer.labels,
            value=answer.value,
            probabilities=answer.probabilities,
            spans=answer.spans,
            retrieved=retrieved,
            unread=self._unread(feature, text),
            without_knowledge=readings[1].said,
            influence=round(support[0] - support[1], 4),
            links=tuple(links),
            reasons=tuple(sorted(reasons, key=lambda reason: -abs(reason.influence))),
            unmeasured=len(read) - len(measured),
            words=explained,
        )

    def _check(self, second: str, choices: Sequence[str], words: bool) -> None:
        objective, kind = self.objective, self.task.kind
        if "second" in objective.needs and not second:
            raise UserError(f"A task of the kind {kind} is asked of a text and a second: the hypothesis, the question.")
        if second and not objective.reads_second():
            raise UserError(f"A task of the kind {kind} reads one text; leave second out.")
        if ("choices" in objective.needs) != bool(choices):
            do = "name some" if not choices else "leave them out"
            raise UserError(f"The choices are {list(choices)}, which a task of the kind {kind} cannot use: {do}.")
        if words and not objective.explains_words:
            raise UserError(f"What each word did is not told of the kind {kind}; ask without words.")

    def _linked(self, example: Example, runs: Variants) -> tuple[list[Link], dict[str, Any]]:
        """The links of a text and what is put to it, and what the model reads of both."""
        linker, objective, text = self.encoder.linker, self.objective, example.text
        if self.task.kind == "relation_classification":
            marked = spans_of_marks(text)
            links = linker.link_spans(text, [(start + 2, end - 2) for start, end in marked])  # less mark and blank
            whole = [replace(link, start=start, end=end) for link, (start, end) in zip(links, marked, strict=True)]
            feature = self.encoder.encode_linked(text, whole)
            return links, {**feature, PAIR: pair_positions(marked, feature["offsets"])}
        of_text, of_second, *of_choices = linker.link_batch([text, example.second, *example.choices])
        behind = len(text) + 1
        links = [*of_text, *shifted(of_second, behind)]
        if example.choices:
            feature = encode_choices(example, [of_text, of_second, *of_choices], self.encoder)
            behind += len(example.second) + bool(example.second)
            return [*links, *(link for found in of_choices for link in shifted(found, behind))], feature
        if isinstance(objective, ExtractiveSummary):
            return links, {PARTS: objective.passages(text, links, self.encoder)}
        if isinstance(objective, Seq2SeqGeneration):
            return links, objective.source(example, links, self.encoder)
        if isinstance(objective, TokenClassification):
            windows = self.encoder.encode_windows(text, links)
            return links, windows[0] if len(windows) == 1 else {PARTS: windows}
        if not objective.pairs:
            return links, self.encoder.encode_linked(text, links)
        if not isinstance(objective, QuestionAnswering):
            return links, self.encoder.encode_pair(text, example.second, links)[0]
        windows = self.encoder.encode_pair(text, example.second, links, windows=True)
        if len(windows) == 1:
            return links, windows[0]
        outputs = [row for batch in runs.batches(windows) for row in objective.predict(self.model, batch, self.collate)]
        return links, objective.best_window(outputs, windows, text)

    def _unread(self, feature: Mapping[str, Any], text: str) -> int:
        """Code points that are left behind the last one of the text that a token stands for."""
        parts = parts_of(feature)
        if self.objective.windowed or all(len(part["input_ids"]) < self.encoder.max_length for part in parts):
            return 0
        read = min(max((end for _, end in part["offsets"] if end <= len(text)), default=0) for part in parts)
        return max(len(text.rstrip()) - read, 0)

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
                model = KINDS[task.kind].kgbert_class.from_pretrained(folder)
                model.set_table(table)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                folder, f"holds a model that cannot be loaded ({reason}); remove it and run again"
            ) from error
        encoder = KnowledgeEncoder(load_tokenizer(str(folder)), linker, table, max_length=task.training.max_length)
        memory = Memory.load(folder) if task.retrieve else None
        predictors[task.name] = Predictor(model, encoder, task, bans=bans, memory=memory)
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
