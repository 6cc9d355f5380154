"""Link prediction by the entity encoder beside plain embeddings, an encoder that does not hear, and PyKEEN.

``KGFUSE_DATA=DIR python tests/benchmarks/gnn.py --only codex-s unseen``; one thread, CPU seconds, each row in a process
of its own. Rows land in ``results/gnn.json``, where those of other parts stay as they were.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch
from gnn_data import Graph, generated, read_codex, without_some
from gnn_peers import train_pykeen
from linking_peers import peak_mb
from measuring import apart, machine
from rich.console import Console
from rich.table import Table

from kg.settings import Settings
from models import link_prediction
from models.gnn import GNNConfig
from models.graph import with_inverses
from models.link_prediction import evaluate, train_gnn
from models.propagation import Edges
from models.ranking import Pairs

RESULTS = Path(__file__).parent / "results" / "gnn.json"
PACKAGES = ("torch", "torch-geometric", "numba", "numpy", "pykeen")
ADAGRAD = GNNConfig(optimizer="adagrad", learning_rate=0.1, label_smoothing=0.0, regularization=0.01)
BEST = replace(
    ADAGRAD, dim=1024, num_layers=0, dropout=0.0, row_dropout=0.0, batch_size=256, epochs=12, evaluate_every=4
)
GRAPH = replace(ADAGRAD, batch_size=512, epochs=12, evaluate_every=4)
"""On CoDEx-S better than the encoder's defaults (0.384 against 0.356), which are those for FIBO's texts."""
OURS = {
    "plain embeddings": BEST,
    "plain embeddings and text": replace(GRAPH, num_layers=0),
    "no message passing, same size": replace(GRAPH, composition="none"),
    "CompGCN-like": GRAPH,
    "R-GCN-like": replace(GRAPH, composition="rgcn"),
}
LARGE = {
    "plain embeddings": replace(BEST, dim=512, batch_size=512, epochs=10, evaluate_every=5),
    "CompGCN-like": replace(GRAPH, batch_size=1024, epochs=5, evaluate_every=5),
}
UNSEEN = {name: replace(config, row_dropout=0.5) for name, config in OURS.items() if name != "plain embeddings"}
PEERS = (("CompGCN", 64), ("CompGCN", 200), ("ComplEx", 256))
COST = replace(ADAGRAD, dim=64, epochs=1, batch_size=2048)


def our_row(data: Path, size: str, name: str, config: GNNConfig) -> dict[str, Any]:
    graph = read_codex(data, size)
    if name == "plain embeddings":
        graph = replace(graph, features=torch.zeros(graph.num_nodes, 1))
    started = time.process_time()
    _, metrics = _trained(graph, config)
    spent = time.process_time() - started
    return {
        **metrics,
        "train_cpu_s": spent,
        "triples_per_cpu_s": metrics["epochs"] * len(graph.split.train) / spent,
        "config": asdict(config),
    }


def unseen_row(data: Path, name: str, config: GNNConfig) -> dict[str, Any]:
    """Triples with an entity that was removed from training, embedded from its text and its neighbours."""
    split = without_some(read_codex(data, "s"))
    graph, half = split.graph, split.graph.num_relations
    started = time.process_time()
    encoder, metrics = _trained(graph, config)
    spent = time.process_time() - started
    visible = with_inverses(split.visible, half)
    parts = [split.visible, graph.split.valid, graph.split.test, split.valid, split.test]
    known = Pairs(with_inverses(torch.cat(parts), half), num_relations=2 * half)
    learned = torch.arange(graph.num_nodes).masked_fill(split.entities, -1)
    degrees = torch.bincount(visible[:, 2], minlength=graph.num_nodes)

    def ranked(edges: torch.Tensor, triples: torch.Tensor) -> dict[str, Any]:
        heard = Edges(edges, graph.num_nodes)
        return evaluate(encoder, heard, graph.features, triples, known, degrees=degrees, learned=learned)

    return {
        **ranked(visible, split.test),
        "valid_mrr": ranked(visible, split.valid)["mrr"],
        "seen_mrr": metrics["mrr"],
        "without_neighbours_mrr": ranked(with_inverses(graph.split.train, half), split.test)["mrr"],
        "epochs": metrics["epochs"],
        "train_cpu_s": spent,
        "triples_per_cpu_s": metrics["epochs"] * len(graph.split.train) / spent,
        "config": asdict(config),
    }


def peer_row(data: Path, size: str, model: str, dim: int, budget_s: float) -> dict[str, Any]:
    return train_pykeen(read_codex(data, size), model, dim, budget_s)


def cost_row(num_triples: int, sampled: bool) -> dict[str, Any]:
    """One epoch, or of a large graph the share of it that 50 steps are."""
    graph = generated(num_triples)
    link_prediction.WHOLE_GRAPH_EDGES = 0 if sampled else 10**9
    before = peak_mb()
    edges = Edges(with_inverses(graph.split.train, graph.num_relations), graph.num_nodes)
    pairs = Pairs(edges.triples, num_relations=2 * graph.num_relations)
    encoder = link_prediction.EntityEncoder(
        num_nodes=graph.num_nodes, num_relations=graph.num_relations, text_dim=graph.features.shape[1], config=COST
    )
    optimizer = link_prediction.make_optimizer(encoder)
    prepared = peak_mb()
    steps = min(50, -(-len(pairs) // COST.batch_size))
    started = time.process_time()
    link_prediction.run_steps(encoder, optimizer, edges, pairs, graph.features, max_steps=steps)
    spent = time.process_time() - started
    share = min(1.0, steps * COST.batch_size / len(pairs))
    return {
        "train_cpu_s": spent,
        "steps": steps,
        "epoch_cpu_s": spent / share,
        "triples_per_cpu_s": share * num_triples / spent,
        "data_mb": prepared - before,
        "step_mb": peak_mb() - prepared,
    }


def measured(job: str, *args: Any) -> dict[str, Any]:
    """In this new process."""
    torch.set_num_threads(1)
    said: dict[str, Any] = globals()[job](*args)
    said.pop("losses", None)
    return {**said, "peak_mb": peak_mb()}


def _trained(graph: Graph, config: GNNConfig) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return train_gnn(graph.data, graph.features, config, Path(folder), split=graph.split)


def parts(data: Path, budget_s: float) -> Mapping[str, Mapping[str, tuple[Any, ...]]]:
    """Part → row → job with its arguments."""
    peers = {
        size: {f"PyKEEN {model} d {dim}": ("peer_row", data, size, model, dim, budget_s) for model, dim in PEERS}
        for size in ("s", "m")
    }
    costs = {
        f"{10**power:,} triples, {'sampled' if sampled else 'whole graph'}": ("cost_row", 10**power, sampled)
        for power in (4, 5, 6, 7)
        for sampled in (False, True)
        if sampled or power < 6
    }
    return {
        "codex-s": {name: ("our_row", data, "s", name, config) for name, config in OURS.items()},
        "codex-s-peers": peers["s"],
        "unseen": {name: ("unseen_row", data, name, config) for name, config in UNSEEN.items()},
        "codex-m": {name: ("our_row", data, "m", name, config) for name, config in LARGE.items()},
        "codex-m-peers": peers["m"],
        "cost": costs,
    }


def show(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """All rows that there are."""
    for part, of_part in rows.items():
        table = Table(title=part)
        columns = ("mrr", "valid_mrr", "hits@1", "hits@3", "hits@10", "seen_mrr", "without_neighbours_mrr", "epochs")
        columns = (*columns, "train_cpu_s", "epoch_cpu_s", "triples_per_cpu_s", "peak_mb", "step_mb")
        shown = [name for name in columns if any(name in row for row in of_part.values())]
        for name in ("", *shown):
            table.add_column(name.replace("_", " "), justify="right" if name else "left")
        for name, row in of_part.items():
            values = [row.get(column, "") for column in shown]
            table.add_row(
                name, *(f"{v:.3f}" if isinstance(v, float) and v < 1 else f"{v:,.0f}" if v else "" for v in values)
            )
        console = Console()
        if not console.is_terminal:
            console.width = 180
        console.print(table)


def main() -> None:
    """Measure what is asked for, and show what is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="where `pip install --target` put PyKEEN")
    parser.add_argument("--only", nargs="*", help="parts; all when left out, none to show the results")
    parser.add_argument("--rows", nargs="*", help="rows of the parts whose name has one of these")
    parser.add_argument("--anew", action="store_true", help="measure also rows that have been measured")
    parser.add_argument("--peer-budget-s", type=float, default=120)
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    data = Settings.from_env().data
    if data is None:
        parser.error("set KGFUSE_DATA to the folder that has kg/codex in it")
    if args.peers:
        sys.path.append(args.peers)
    kept: dict[str, dict[str, Any]] = {}
    if args.json.is_file():
        kept = json.loads(args.json.read_text(encoding="utf-8"))["rows"]
    for part, rows in parts(data / "kg", args.peer_budget_s).items():
        for name, job in rows.items():
            if args.only is not None and part not in args.only:
                continue
            if args.rows and not any(said in name for said in args.rows):
                continue
            if name in kept.get(part, {}) and not args.anew:
                continue
            row = apart(measured, *job)
            kept.setdefault(part, {})[name] = {**row, "measured": machine(names=PACKAGES)}
            text = json.dumps({"threads": 1, "rows": kept}, indent=1, ensure_ascii=False)
            args.json.write_text(text + "\n", encoding="utf-8")
    show(kept)


if __name__ == "__main__":
    main()
