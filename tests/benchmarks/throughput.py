"""Tokens a CPU second of our training beside plain ``Trainer`` code, as in ``run_mlm.py`` and ``run_glue.py``.

    python tests/benchmarks/throughput.py --data DATA --json tests/benchmarks/results/throughput.json

Both train the same model on the same texts in batches of the same size, turn by turn in one process, with one thread;
tokens are those of the texts, without padding. The plain code has a tokenized data set, the collators of transformers
(padding to the longest of a batch, which is kinder than the scripts' own default) and AdamW. Ours is
``models.trainer.fit`` with the same weights trained; the other rows are what it does by default (embeddings frozen) and
with knowledge.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch
from measuring import machine
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from models.base import fast_bf16, load_base, load_tokenizer, quiet
from models.batch import KnowledgeCollator
from models.data import read_task
from models.entity_table import FIRST, NULL, EntityTable
from models.kgbert import KGBertForMaskedLM, KGBertForSequenceClassification
from models.masking import Masker, predict_masked_only
from models.stages.arms import is_fresh
from models.trainer import fit
from models.training import Training

TABLE = EntityTable.random(num_entities=10_000, dim=128)
LABELS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=480)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    task = read_task("phrasebank", asked.data / "tasks/finance/phrasebank/Sentences_AllAgree.txt")
    examples = task.train[: asked.texts]
    tokenizer = load_tokenizer("minilm")
    encoded = tokenizer([example.text for example in examples], truncation=True, max_length=128)["input_ids"]
    names = sorted({str(example.label) for example in task.train})
    features = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": names.index(str(example.label))}
        for ids, example in zip(encoded, examples, strict=True)
    ]
    linked = [with_mentions(feature, number) for number, feature in enumerate(features)]
    tokens = sum(map(len, encoded))
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(asked.turns + 1):
        for stage, systems in stages(tokenizer, features, linked, asked.batch).items():
            for name, work in systems.items():
                with tempfile.TemporaryDirectory() as folder:
                    spent = work(Path(folder))
                if turn:  # the first one warms up
                    rates.setdefault(stage, {}).setdefault(name, []).append(tokens / spent)
    table = Table(
        title=f"tokens per CPU second, {asked.texts} texts of {tokens / asked.texts:.0f} tokens, batch {asked.batch}"
    )
    for column in ("stage", "system", "tokens/CPU-s", "of plain Trainer", "of it, by turn"):
        table.add_column(column)
    rows: dict[str, dict[str, Any]] = {}
    for stage, by_system in rates.items():
        for name, found in by_system.items():
            ratios = [one / other for one, other in zip(found, by_system["plain Trainer"], strict=True)]
            row = {"tokens_per_cpu_s": statistics.median(found), "ratio": statistics.median(ratios), "ratios": ratios}
            rows.setdefault(stage, {})[name] = row
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            table.add_row(stage, name, f"{row['tokens_per_cpu_s']:,.0f}", f"{row['ratio']:.2f}", spread)
    Console().print(table)
    if asked.json:
        about = {
            "texts": asked.texts,
            "tokens": tokens,
            "batch": asked.batch,
            "turns": asked.turns,
            "bf16": fast_bf16(),
        }
        measured = machine(names=("torch", "transformers", "accelerate"))
        asked.json.write_text(
            json.dumps({**about, "rows": rows, "measured": measured}, indent=1) + "\n", encoding="utf-8"
        )


def with_mentions(feature: dict[str, Any], number: int) -> dict[str, Any]:
    """Two mentions of two tokens, each with NULL and one candidate."""
    places = [0] * len(feature["input_ids"])
    places[1:3], places[4:6] = [1, 1], [2, 2]
    entities = [[NULL, FIRST + number], [NULL, FIRST + 5000 + number]]
    knowledge = {"mention_entities": entities, "mention_priors": [[0.0, -0.5]] * 2, "mention_links": [0, 1]}
    return {**feature, **knowledge, "token_mentions": places[: len(feature["input_ids"])]}


def stages(
    tokenizer: Any, features: list[dict[str, Any]], linked: list[dict[str, Any]], batch: int
) -> dict[str, dict[str, Callable[[Path], float]]]:
    """By stage and system: what trains a fresh model in a folder for one epoch, and says how long the training took."""
    masker = Masker(tokenizer=tokenizer, mask_probability=0.15, mention_probability=0.3)
    unlabelled = [{key: value for key, value in feature.items() if key != "labels"} for feature in features]

    def ours(build: Callable[[], nn.Module], given: Sequence[Any], *, frozen: bool, **options: Any) -> Any:
        def work(folder: Path) -> float:
            model = build()
            if frozen:
                model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
            collate = KnowledgeCollator(tokenizer=tokenizer, with_knowledge="mention_entities" in given[0])
            training = Training(epochs=1, batch_size=batch, save_steps=10**6)
            started = time.process_time()
            fit(model, given, collate, training, seed=0, folder=folder, is_fresh=is_fresh, **options)
            return time.process_time() - started

        return work

    def plain(build: Callable[[], nn.Module], given: Sequence[Any], collate: Any) -> Callable[[Path], float]:
        def work(folder: Path) -> float:
            model = build()
            arguments = TrainingArguments(
                output_dir=str(folder),
                num_train_epochs=1,
                per_device_train_batch_size=batch,
                learning_rate=1e-4,
                bf16=fast_bf16(),
                use_cpu=True,
                report_to="none",
                save_strategy="epoch",
                disable_tqdm=True,
                logging_strategy="no",
            )
            started = time.process_time()
            with quiet():
                trainer = Trainer(model=model, args=arguments, train_dataset=list(given), data_collator=collate)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
            return time.process_time() - started

        return work

    def classifier() -> nn.Module:
        return load_base("minilm", AutoModelForSequenceClassification, num_labels=LABELS)

    def fused_classifier() -> nn.Module:
        return KGBertForSequenceClassification.from_base("minilm", TABLE, num_labels=LABELS)

    def language_model() -> nn.Module:
        return load_base("minilm", AutoModelForMaskedLM)

    def our_language_model() -> nn.Module:
        model = language_model()
        predict_masked_only(model)
        return model

    def fused_language_model() -> nn.Module:
        model = KGBertForMaskedLM.from_base("minilm", TABLE)
        predict_masked_only(model)
        return model

    return {
        "pretrain": {
            "plain Trainer": plain(
                language_model, unlabelled, DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
            ),
            "ours": ours(our_language_model, unlabelled, frozen=False, prepare=masker),
            "ours, embeddings frozen": ours(our_language_model, unlabelled, frozen=True, prepare=masker),
            "ours, fused, embeddings frozen": ours(fused_language_model, linked, frozen=True, prepare=masker),
        },
        "finetune": {
            "plain Trainer": plain(classifier, features, DataCollatorWithPadding(tokenizer)),
            "ours": ours(classifier, features, frozen=False),
            "ours, embeddings frozen": ours(classifier, features, frozen=True),
            "ours, fused, embeddings frozen": ours(fused_classifier, linked, frozen=True),
        },
    }


if __name__ == "__main__":
    main()
