"""What an exported model costs and loses: PyTorch plain and fused, ONNX fused as floats and as 8-bit integers.

    python tests/benchmarks/export.py RUN --data DATA --json tests/benchmarks/results/export.json

RUN holds a snapshot and a table (``models.train_kgbert gnn``); the fused model of its recipe's first task is trained in
WORK where there is none yet. CPU seconds of one thread; latency of one text is from its features to its logits.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import numpy as np
import torch
from measuring import machine
from rich.console import Console
from rich.table import Table

from models.base import load_base, load_tokenizer
from models.batch import KnowledgeCollator
from models.classifiers import SequenceClassifier
from models.export import FULL, INT8, OnnxPredictor, export_model
from models.kgbert import KGBertForSequenceClassification
from models.objectives.objective import predict_raw
from models.recipe import load_recipe
from models.stages.finetune import train_task
from models.stages.taskdata import prepared

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--recipe", default="finance")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--texts", type=int, default=200, help="asked one by one")
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(asked.recipe)
    task, snapshot = recipe.tasks[0], json.loads((asked.run / "manifest.json").read_text())["snapshot"]["path"]
    path = asked.data / task.path
    if not (asked.work / "model" / "config.json").is_file():
        options = {"recipe": recipe, "snapshot": snapshot, "task": task, "path": path, "arm": "fused", "seed": 0}
        train_task(asked.run, asked.work, lambda share: None, **options)
    data = prepared(asked.run, recipe.base, snapshot, task, path, facts=False)
    objective, examples = data.objective, [data.examples[at] for at in data.division.test]
    fused = KGBertForSequenceClassification.from_pretrained(asked.work / "model").eval()
    tokenizer = load_tokenizer(str(asked.work / "model"))
    if not (asked.work / "onnx" / INT8).is_file():
        export_model(fused, tokenizer, asked.work / "onnx", kind=task.kind, int8=True, task=task.name)
    plain = load_base(recipe.base, SequenceClassifier, num_labels=len(objective.labels)).eval()
    told, untold = (KnowledgeCollator(tokenizer=tokenizer, with_knowledge=given) for given in (True, False))
    systems: dict[str, tuple[Any, KnowledgeCollator]] = {
        "torch plain": (plain, untold),
        "torch fused": (fused, told),
        "onnx fused": (OnnxPredictor(asked.work / "onnx", threads=1), told),
        "onnx int8 fused": (OnnxPredictor(asked.work / "onnx", int8=True, threads=1), told),
    }
    test = data.of(data.division.test)
    rows: dict[str, dict[str, Any]] = {}
    answers = {}
    for name, (model, collate) in systems.items():
        answers[name] = predict_raw(model, test, collate)  # warms up, too
        if name != "torch plain":  # its head is not trained: it is here for its speed
            rows[name] = dict(objective.score(objective.answers(answers[name], test, examples), examples).metrics)
    exact = np.stack(answers["torch fused"])
    for name in ("onnx fused", "onnx int8 fused"):
        rows[name]["furthest_logit"] = float(np.abs(np.stack(answers[name]) - exact).max())
        rows[name]["same_answers"] = float((np.stack(answers[name]).argmax(1) == exact.argmax(1)).mean())
    for name in systems:
        rows.setdefault(name, {}).update({"one_text_ms": [], "texts_per_cpu_s": []})
    for turn in range(asked.turns):  # turn by turn: what else the machine does hits all alike
        for name, (model, collate) in systems.items():
            some = [test[(turn * asked.texts + i) % len(test)] for i in range(asked.texts)]
            rows[name]["one_text_ms"] += [1000 * cpu(answer, model, collate, one) for one in some]
            spent = cpu(partial(predict_raw, batch_size=BATCH), model, test, collate)
            rows[name]["texts_per_cpu_s"].append(len(test) / spent)
    shown = Table(title=f"{task.name}: {len(test)} test texts, one thread, CPU time")
    for column in ("", "p50 ms", "p99 ms", f"texts/CPU-s, batches of {BATCH}", "accuracy", "same answers"):
        shown.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        times = row.pop("one_text_ms")
        row |= {f"p{q}_ms": float(np.percentile(times, q)) for q in (50, 99)}
        row["texts_per_cpu_s"] = float(np.median(row["texts_per_cpu_s"]))
        same, right = row.get("same_answers"), row.get("accuracy")
        shown.add_row(
            name,
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['texts_per_cpu_s']:.0f}",
            "" if right is None else f"{100 * right:.2f}",
            "" if same is None else f"{100 * same:.2f} %",
        )
    Console().print(shown)
    sizes = {file: round((asked.work / "onnx" / file).stat().st_size / 1e6, 1) for file in (FULL, INT8)}
    if asked.json:
        names = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript")
        about = {"task": task.name, "test_texts": len(test), "batch": BATCH, "turns": asked.turns, "megabytes": sizes}
        text = json.dumps({**about, "rows": rows, "measured": machine(names=names)}, indent=1)
        asked.json.write_text(text + "\n", encoding="utf-8")


def answer(model: Any, collate: KnowledgeCollator, feature: dict[str, Any]) -> None:
    batch = collate([feature])
    batch.pop("labels")
    model(**batch)


def cpu(work: Callable[..., Any], *arguments: Any) -> float:
    """CPU seconds of this process; without gradients."""
    with torch.inference_mode():
        started = time.process_time()
        work(*arguments)
        return time.process_time() - started


if __name__ == "__main__":
    main()
