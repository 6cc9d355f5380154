"""The same link prediction by PyKEEN, within a budget of CPU seconds.

``pip install --target DIR pykeen``, then ``PYTHONPATH=DIR``.
"""

import time
import warnings
from typing import Any

import torch
from gnn_data import Graph

from models.graph import with_inverses
from models.ranking import Pairs, rank_report

SLICE = 1024
"""Entities that are scored at a time: all of CoDEx-M's at once take ComplEx more than 10 GB."""


def train_pykeen(graph: Graph, model: str, dim: int, budget_s: float) -> dict[str, Any]:
    """Not tuned: sampled negatives, Adam, whole epochs until the budget is spent; ranked as ours is."""
    warnings.simplefilter("ignore")
    from pykeen.models import CompGCN, ComplEx
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory

    split, half = graph.split, graph.num_relations
    triples = split.train
    factory = CoreTriplesFactory(
        triples,
        num_entities=graph.num_nodes,
        num_relations=half,
        create_inverse_triples=model == "CompGCN",
    )
    torch.manual_seed(0)
    made: Any = {"CompGCN": CompGCN, "ComplEx": ComplEx}[model](
        triples_factory=factory, embedding_dim=dim, random_seed=0
    )
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-3 if model == "CompGCN" else 1e-2)
    loop = SLCWATrainingLoop(model=made, triples_factory=factory, optimizer=optimizer)
    started, epochs = time.process_time(), 0
    while not epochs or (time.process_time() - started) * (epochs + 1) / epochs < budget_s:
        epochs += 1
        loop.train(
            triples_factory=factory,
            num_epochs=epochs,
            batch_size=1024,
            use_tqdm=False,
            only_size_probing=False,
            continue_training=epochs > 1,
        )
    spent = time.process_time() - started
    everything = with_inverses(torch.cat([split.train, split.valid, split.test]), half)
    made.eval()

    def score(heads: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
        """An inverse relation asks for heads."""
        out = torch.empty(len(heads), graph.num_nodes)
        forward = relations < half
        if forward.any():
            out[forward] = made.predict_t(torch.stack([heads, relations], 1)[forward], slice_size=SLICE)
        if not forward.all():
            out[~forward] = made.predict_h(torch.stack([relations - half, heads], 1)[~forward], slice_size=SLICE)
        return out

    report = rank_report(
        score,
        split.test,
        Pairs(everything, num_relations=2 * half),
        degrees=torch.bincount(with_inverses(triples, half)[:, 2], minlength=graph.num_nodes),
    )
    return {**report, "epochs": epochs, "train_cpu_s": spent, "triples_per_cpu_s": epochs * len(triples) / spent}
