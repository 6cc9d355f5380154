"""How right links are: of mentions that are given, and end to end; trained, without the graph, and by dictionary alone.

    KGFUSE_DATA=… python tests/benchmarks/linking.py [--only ncbi,bc5cdr] [--work DIR] [--json FILE]

A ranker is trained on the training and development parts and never sees the test part. Published figures beside these
are in README, "Linking". ``--work`` keeps snapshots and rankers for another run.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linking_gold import TASKS, Task
from rich.console import Console
from rich.table import Table

from kg.linking import Linker
from kg.types import Link
from models.rerank.confidence import calibration_error
from models.rerank.gold import GoldText, Mention
from models.rerank.training import train_ranker

RESAMPLES = 2000
KEPT = 64  # candidates
GIVEN = ("r@1", "r@5", "r@64", "r@1 same", "ece", "at 80 %", "mentions/CPU-s")
WHOLE = ("f1", "precision", "recall", "document f1", "texts/CPU-s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="ncbi,bc5cdr", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ["KGFUSE_DATA"]) / "linking"
    with tempfile.TemporaryDirectory(prefix="kgfuse-linking-") as temporary:
        work = options.work or Path(temporary)
        results = {}
        for name in options.only.split(","):
            results[name] = measured(TASKS[name](data, work / name / "v1"), work / name / "ranker")
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")
            show(name, results[name])


def measured(task: Task, ranker: Path) -> dict[str, Any]:
    began = time.process_time()
    if not (ranker / "manifest.json").is_file():
        train_ranker(task.snapshot, task.train, ranker)
    result: dict[str, Any] = {
        "names": task.snapshot.aliases.num_rows,
        "entities": task.snapshot.num_entities,
        "texts": {"train": len(task.train), "test": len(task.test)},
        "training_cpu_s": round(time.process_time() - began, 1),
        "crosswise": json.loads((ranker / "manifest.json").read_text())["report"],
        "given": {},
        "whole": {},
    }
    systems: dict[str, Callable[[], Linker]] = {
        "dictionary": lambda: Linker.load(task.snapshot, max_candidates=KEPT),
        "trained, no graph": lambda: Linker.load(task.snapshot, ranker=ranker, max_candidates=KEPT, graph=False),
        "trained": lambda: Linker.load(task.snapshot, ranker=ranker, max_candidates=KEPT),
    }
    right: dict[str, list[tuple[int, int]]] = {}
    for name, load in systems.items():
        linker = load()
        result["given"][name], right[name] = _given(linker, task)
        result["whole"][name] = _whole(linker, task)
    if all(text.candidates for text in task.test):
        result["first of those given"] = _first(task)
    result["graph"] = difference(right["trained"], right["trained, no graph"])
    return result


def _given(linker: Linker, task: Task) -> tuple[dict[str, float], list[tuple[int, int]]]:
    """Figures for mentions that are given, and by text how many are right and how many there are."""
    known = set(task.snapshot.ids)
    hits = {1: 0, 5: 0, KEPT: 0}
    same = total = reachable = 0
    judged: list[tuple[float, bool]] = []
    by_text = []
    began = time.process_time()
    for text in task.test:
        mentions, candidates = _asked(text)
        links = linker.link_spans(text.text, [mention[:2] for mention in mentions], candidates=candidates)
        right = 0
        for (_, _, ids), link in zip(mentions, links, strict=True):
            found = [candidate.id for candidate in link.candidates]
            ranks = [rank for rank, id in enumerate(found) if id in ids]
            for most in hits:
                hits[most] += bool(ranks) and ranks[0] < most
            wanted = {task.equals.get(id, id) for id in ids}
            same += bool(found) and task.equals.get(found[0], found[0]) in wanted
            judged.append((link.confidence, bool(ranks) and ranks[0] == 0))
            right += judged[-1][1]
            reachable += not known.isdisjoint(ids)
        by_text.append((right, len(mentions)))
        total += len(mentions)
    seconds = time.process_time() - began
    straight = np.linspace(0, 1, 2, dtype=np.float32)
    surest = sorted(judged, reverse=True)[: round(0.8 * total)]
    figures = {
        "mentions": total,
        "reachable": reachable / total,
        "r@1": hits[1] / total,
        "r@5": hits[5] / total,
        "r@64": hits[KEPT] / total,
        "r@1 same": same / total,
        "ece": calibration_error(judged, (straight, straight)),
        "at 80 %": float(np.mean([is_right for _, is_right in surest])),
        "mentions/CPU-s": round(total / seconds),
    }
    return figures, by_text


def _asked(text: GoldText) -> tuple[list[Mention], list[tuple[str, ...] | None]]:
    """Mentions that are linked, and the candidates of each where these are given."""
    rows = zip(text.mentions, text.candidates or [None] * len(text.mentions), strict=True)
    linked = [(mention, candidates) for mention, candidates in rows if mention[2]]
    return [mention for mention, _ in linked], [candidates for _, candidates in linked]


def _first(task: Task) -> float:
    """The share of mentions of which the first candidate that is given is right."""
    right = [
        bool(candidates) and candidates[0] in ids
        for text in task.test
        for (_, _, ids), candidates in zip(*_asked(text), strict=True)
    ]
    return float(np.mean(right))


def _whole(linker: Linker, task: Task) -> dict[str, Any]:
    """Figures end to end: span and entity right, and the set of entities of each text."""
    began = time.process_time()
    links = [[link for link in linker.link(text.text) if link.id is not None] for text in task.test]
    seconds = time.process_time() - began
    right = given = wanted = 0
    for text, found in zip(task.test, links, strict=True):
        gold = {(start, end): ids for start, end, ids in text.mentions if ids}
        right += sum(link.id in gold.get((link.start, link.end), ()) for link in found)
        given, wanted = given + len(found), wanted + len(gold)
    by_type = {kind: _document_f1(task, links, kind) for kind in sorted(set(task.kinds.values()))}
    return {
        "f1": 2 * right / (given + wanted),
        "precision": right / max(given, 1),
        "recall": right / wanted,
        "document f1": _document_f1(task, links, None),
        "document f1 by type": by_type,
        "texts/CPU-s": round(len(task.test) / seconds),
    }


def _document_f1(task: Task, links: Sequence[Sequence[Link]], kind: str | None) -> float:
    """F1 of the entities of each text, or of those of one kind."""
    right = given = wanted = 0
    for text, found in zip(task.test, links, strict=True):
        gold = {
            id
            for start, end, ids in text.mentions
            for id in ids
            if kind is None or task.types[text.id, start, end] == kind
        }
        ids = {link.id for link in found if kind is None or task.kinds.get(link.id) == kind}
        right, given, wanted = right + len(gold & ids), given + len(ids), wanted + len(gold)
    return 2 * right / max(given + wanted, 1)


def difference(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Points of r@1 that one has more than the other, with a 95 % interval by resampling texts."""
    rows = np.array([(a - b, n) for (a, n), (b, _) in zip(one, other, strict=True)], float)
    draw = np.random.default_rng(0)
    sums = np.array([rows[draw.integers(len(rows), size=len(rows))].sum(axis=0) for _ in range(RESAMPLES)])
    interval = np.percentile(100 * sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return {"points": float(100 * rows[:, 0].sum() / rows[:, 1].sum()), "interval": interval.tolist()}


def show(name: str, result: Mapping[str, Any]) -> None:
    texts = result["texts"]
    title = f"{name}: {result['names']:,} names, {texts['test']} test texts, trained on {texts['train']}"
    table = Table("", *GIVEN, *WHOLE, title=title)
    for system, given in result["given"].items():
        figures = {**given, **result["whole"][system]}
        cells = (figures[column] for column in (*GIVEN, *WHOLE))
        table.add_row(system, *(f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}" for cell in cells))
    Console(width=170).print(table)
    for kind, f1 in result["whole"]["trained"]["document f1 by type"].items():
        print(f"Document F1 of {kind}, trained: {f1:.3f}")
    if "first of those given" in result:
        print(f"The first of the candidates that are given is right for {result['first of those given']:.3f}.")
    low, high = result["graph"]["interval"]
    print(f"The graph adds {result['graph']['points']:+.2f} points of r@1 (95 % interval {low:+.2f} to {high:+.2f}).")


if __name__ == "__main__":
    main()
