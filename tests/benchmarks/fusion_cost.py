"""What fusion costs: training steps and inference of the fused model beside the plain one, turn by turn in one process.

    python tests/benchmarks/fusion_cost.py --json tests/benchmarks/results/fusion_cost.json

Random tokens, two linked mentions a text; CPU seconds of one thread, medians over ``--turns``.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch
from measuring import machine
from rich.console import Console
from rich.table import Table
from torch import nn

from models.base import fast_bf16, load_base
from models.batch import PAIR
from models.classifiers import RelationClassifier
from models.entity_table import FIRST, NULL, EntityTable
from models.fusion import KNOWLEDGE_KEYS
from models.kgbert import KGBertForRelationClassification

LABELS = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = EntityTable.random(num_entities=10_000, dim=128)
    models: dict[str, nn.Module] = {
        "plain": load_base("minilm", RelationClassifier, num_labels=LABELS),
        "fused": KGBertForRelationClassification.from_base("minilm", table, num_labels=LABELS),
    }
    batch = texts(asked.batch, asked.tokens, len(table.ids))
    plain = {name: value for name, value in batch.items() if name not in KNOWLEDGE_KEYS}
    given = {"plain": plain, "fused": batch}
    spent: dict[str, dict[str, list[float]]] = {}
    for turn in range(asked.turns + 2):
        for name, model in models.items():
            for kind, work in (("training step", step), ("inference", infer)):
                seconds = timed(work, model, given[name])
                if turn > 1:  # the first turns warm up
                    spent.setdefault(kind, {}).setdefault(name, []).append(seconds)
    rows = {
        kind: {name: statistics.median(seconds) for name, seconds in by_model.items()}
        for kind, by_model in spent.items()
    }
    table_ = Table(title=f"CPU-s for {asked.batch} texts of {asked.tokens} tokens, bfloat16 {fast_bf16()}")
    for column in ("", "plain", "fused", "ratio"):
        table_.add_column(column)
    for kind, row in rows.items():
        row["ratio"] = row["fused"] / row["plain"]
        table_.add_row(kind, f"{row['plain']:.3f}", f"{row['fused']:.3f}", f"{row['ratio']:.2f}")
    Console().print(table_)
    if asked.json:
        content = {"rows": rows, "batch": asked.batch, "tokens": asked.tokens, "turns": asked.turns}
        text = json.dumps({**content, "measured": machine(names=("torch", "transformers"))}, indent=1)
        asked.json.write_text(text + "\n", encoding="utf-8")


def texts(batch: int, tokens: int, num_entities: int) -> dict[str, torch.Tensor]:
    """Random words; mentions of four tokens, each with NULL and one candidate."""
    entities = torch.randint(FIRST, FIRST + num_entities, (batch, 2, 1))
    mentions = torch.zeros(batch, tokens, dtype=torch.long)
    mentions[:, 4:8], mentions[:, 20:24] = 1, 2
    knowledge = (torch.cat([torch.full_like(entities, NULL), entities], dim=2), torch.zeros(batch, 2, 2), mentions)
    return {
        "input_ids": torch.randint(1000, 30_000, (batch, tokens)),
        "attention_mask": torch.ones(batch, tokens, dtype=torch.long),
        PAIR: torch.tensor([[4, 20]] * batch),
        "labels": torch.randint(LABELS, (batch,)),
        **dict(zip(KNOWLEDGE_KEYS, knowledge, strict=True)),
    }


def timed(work: Callable[..., None], model: nn.Module, batch: dict[str, Any]) -> float:
    started = time.process_time()
    work(model, batch)
    return time.process_time() - started


def step(model: nn.Module, batch: dict[str, Any]) -> None:
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        loss = model(**batch).loss
    loss.backward()
    with torch.no_grad():  # plain gradient descent: an optimizer's states are no part of the model
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-6)
                parameter.grad = None


def infer(model: nn.Module, batch: dict[str, Any]) -> None:
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        model(**batch)


if __name__ == "__main__":
    main()
