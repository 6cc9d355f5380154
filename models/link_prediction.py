"""Training of the entity encoder by link prediction.

1-N scoring with cross-entropy and N3 regularisation as in "Canonical Tensor Decomposition for Knowledge Base
Completion" (arXiv 1806.07297).
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from kg.errors import KGError
from models.gnn import DECODERS, EntityEncoder, GNNConfig, relabelled
from models.graph import Data, Split, split_edges, with_inverses
from models.propagation import Edges, sample_neighbours
from models.ranking import Pairs, rank_report

SAMPLED_ABOVE = 50_000
"""Entities from which on a batch is scored against a shared sample of them, not all."""
WHOLE_GRAPH_EDGES = 1_000_000
"""With inverses; a graph with more is not encoded whole in each step, but what a sample of neighbours shows of it."""


def train_gnn(
    graph: Data, features: Tensor, config: GNNConfig, folder: Path, *, split: Split | None = None
) -> tuple[EntityEncoder, dict[str, Any]]:
    """Train on the graph less its held-out edges; go on from ``folder/checkpoint.pt`` where there is one.

    Args:
        split: the graph's edges; 5 % for validation and 5 % for the test, at random, when None.

    Returns:
        The encoder with the best validation MRR, and its metrics on the test edges; none where no edge can be spared.

    Raises:
        KGError: the loss is no number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_relations, num_nodes = int(graph.num_relations), len(features)
    if not config.epochs:
        silent = EntityEncoder(
            num_nodes=num_nodes, num_relations=num_relations, text_dim=features.shape[1], config=config
        )
        for value in silent.parameters():
            nn.init.zeros_(value)
        _write(folder, silent.state_dict(), config)
        return silent.eval(), {"epochs": 0, "losses": []}
    split = split_edges(graph, seed=config.seed) if split is None else split
    train = with_inverses(split.train, num_relations)
    edges, degrees = Edges(train, num_nodes), torch.bincount(train[:, 2], minlength=num_nodes)
    torch.manual_seed(config.seed)
    encoder = EntityEncoder(num_nodes=num_nodes, num_relations=num_relations, text_dim=features.shape[1], config=config)
    optimizer = make_optimizer(encoder)
    pairs = Pairs(train, num_relations=2 * num_relations)
    everything = with_inverses(torch.cat([split.train, split.valid, split.test]), num_relations)
    known = Pairs(everything, num_relations=2 * num_relations)
    checkpoint = folder / "checkpoint.pt"
    state: dict[str, Any] = {"epoch": 0, "best": -1.0, "bad": 0, "losses": []}
    best = {name: value.clone() for name, value in encoder.state_dict().items()}
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        encoder.load_state_dict(saved["encoder"])
        optimizer.load_state_dict(saved["optimizer"])
        state, best = saved["state"], saved["best"]
    console = Console(stderr=True)
    scored = "all" if num_nodes <= SAMPLED_ABOVE else f"{config.num_negatives:,} shared samples of the"
    heard = "the whole graph" if _whole(edges) else f"samples of {config.fan_out} neighbours a node"
    console.print(f"Encoding {heard} of {len(train):,} edges a step, scoring {scored} {num_nodes:,} entities.")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("link prediction", total=config.epochs, completed=state["epoch"])
        while state["epoch"] < config.epochs and state["bad"] < config.patience:
            for group in optimizer.param_groups:
                if config.optimizer == "adagrad":
                    group["lr"] = group["first_lr"] * (1 - state["epoch"] / config.epochs)
            state["epoch"] += 1
            # every epoch has a random state of its own, so a resumed training is the uninterrupted one
            torch.manual_seed(config.seed * 100_003 + state["epoch"])
            loss = run_steps(encoder, optimizer, edges, pairs, features)
            if not math.isfinite(loss):  # ranks of scores that are no numbers would all be first
                epoch = state["epoch"]
                raise KGError(f"The entity encoder's loss is {loss} in epoch {epoch}; lower gnn.learning_rate.")
            state["losses"].append(loss)
            if state["epoch"] % config.evaluate_every == 0 or state["epoch"] == config.epochs:
                mrr = 0.0
                if len(split.valid):
                    mrr = evaluate(encoder, edges, features, split.valid, known, degrees=degrees)["mrr"]
                state["bad"] = 0 if mrr > state["best"] else state["bad"] + 1
                if mrr > state["best"]:
                    state["best"] = mrr
                    best = {name: value.clone() for name, value in encoder.state_dict().items()}
                _save(checkpoint, encoder, optimizer, state, best)
                progress.update(bar, description=f"link prediction, validation MRR {mrr:.3f}")
            progress.update(bar, completed=state["epoch"])
    encoder.load_state_dict(best)
    metrics = evaluate(encoder, edges, features, split.test, known, degrees=degrees) if len(split.test) else {}
    _write(folder, best, config)
    checkpoint.unlink(missing_ok=True)
    valid = {"valid_mrr": state["best"]} if len(split.valid) else {}
    return encoder.eval(), {**metrics, **valid, "epochs": state["epoch"], "losses": state["losses"]}


def make_optimizer(encoder: EntityEncoder) -> torch.optim.Optimizer:
    """As the encoder's configuration says; a group of Adagrad knows the learning rate that it began with."""
    config = encoder.config
    if config.optimizer == "adam":
        return torch.optim.Adam(encoder.parameters(), lr=config.learning_rate)
    own, shared = [encoder.rows, encoder.relations], [encoder.text, encoder.layers]
    groups = [
        {"params": [value for module in modules for value in module.parameters()], "lr": rate, "first_lr": rate}
        for modules, rate in ((own, config.learning_rate), (shared, config.matrix_learning_rate))
    ]
    return torch.optim.Adagrad(groups)


def evaluate(
    encoder: EntityEncoder,
    edges: Edges,
    features: Tensor,
    triples: Tensor,
    known: Pairs,
    *,
    degrees: Tensor,
    learned: Tensor | None = None,
) -> dict[str, Any]:
    """See ``rank_report``; the encoder may look at ``edges``, ``learned`` is as in ``EntityEncoder.forward``."""
    encoder.eval()
    with torch.inference_mode():
        entities = encoder(edges, features, learned=learned)
    return rank_report(
        lambda heads, relations: encoder.score(entities, heads, relations), triples, known, degrees=degrees
    )


def _whole(edges: Edges) -> bool:
    return len(edges.triples) <= WHOLE_GRAPH_EDGES


def run_steps(
    encoder: EntityEncoder,
    optimizer: torch.optim.Optimizer,
    edges: Edges,
    pairs: Pairs,
    features: Tensor,
    *,
    max_steps: int | None = None,
) -> float:
    """Train for an epoch, or for fewer steps; the mean loss."""
    encoder.train()
    config, total = encoder.config, 0.0
    batches = torch.randperm(len(pairs)).split(config.batch_size)[:max_steps]
    for batch in batches:
        heads, relations = pairs.heads(batch), pairs.relations(batch)
        rows, tails = pairs.tails_of(batch)
        nodes = torch.arange(len(features))
        candidates = nodes
        if len(features) > SAMPLED_ABOVE:
            candidates = torch.cat([tails, torch.randint(len(features), (config.num_negatives,))]).unique()
        if _whole(edges):
            entities = encoder(edges.without(_hidden(encoder, edges.triples, batch, pairs)), features)
        else:
            nodes, heard = sample_neighbours(
                edges, torch.cat([heads, candidates]), hops=config.num_layers, fan_out=config.fan_out
            )
            heard = heard[~_hidden(encoder, heard, batch, pairs)]
            local = Edges(relabelled(heard, nodes), len(nodes))
            entities = encoder(local, features[nodes], learned=nodes)
        here, asked = torch.searchsorted(nodes, heads), torch.searchsorted(nodes, candidates)
        scores = encoder.score(entities, here, relations, asked if len(candidates) < len(nodes) else None, nodes=nodes)
        right = torch.searchsorted(candidates, tails)
        loss = one_to_n_loss(scores, rows, right, config.label_smoothing, by_pair=config.optimizer == "adam")
        if config.regularization:
            modulus = DECODERS[config.decoder].modulus
            size, relation_size = (modulus(values).pow(3).sum(1) for values in (entities, encoder.relations.weight))
            cubes = size[here][rows] + relation_size[relations][rows] + size[torch.searchsorted(nodes, tails)]
            loss = loss + config.regularization * cubes.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # a sample's rows have gradients, others none
            optimizer.step()
        total += float(loss.detach())
    return total / len(batches)


def _hidden(encoder: EntityEncoder, triples: Tensor, batch: Tensor, pairs: Pairs) -> Tensor:
    """True for edges that are not to be seen in a step ``[edges]``.

    Those that are asked for, in either direction: nothing like them is there at the test; and others at random.
    """
    heads, relations, tails = triples.unbind(1)
    half = encoder.num_relations
    asked = pairs.keys[batch].sort().values

    def among(keys: Tensor) -> Tensor:
        found: Tensor = asked[torch.searchsorted(asked, keys).clamp(max=len(asked) - 1)] == keys
        return found

    answers = pairs.keys_of(tails, (relations + half) % (2 * half))
    dropped = torch.rand(len(triples)) < encoder.config.edge_dropout
    return among(pairs.keys_of(heads, relations)) | among(answers) | dropped


def one_to_n_loss(scores: Tensor, rows: Tensor, tails: Tensor, smoothing: float, *, by_pair: bool) -> Tensor:
    """Mean of the cross-entropy of ``scores[row]`` ``[pairs, candidates]`` over all (row, tail), or over the rows."""
    elsewhere = scores.logsumexp(dim=1) - smoothing * scores.mean(dim=1)
    losses = elsewhere[rows] - (1 - smoothing) * scores[rows, tails]
    if not by_pair:
        return losses.mean()
    counts = torch.bincount(rows, minlength=len(scores)).clamp(min=1)
    return (losses / counts[rows]).sum() / len(scores)


def _write(folder: Path, weights: dict[str, Tensor], config: GNNConfig) -> None:
    save_file(weights, folder / "encoder.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")


def _save(file: Path, encoder: EntityEncoder, optimizer: torch.optim.Optimizer, state: Any, best: Any) -> None:
    part = file.with_suffix(".part")
    everything = {"encoder": encoder.state_dict(), "optimizer": optimizer.state_dict(), "state": state, "best": best}
    torch.save(everything, part)
    part.rename(file)
