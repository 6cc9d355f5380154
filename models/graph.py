"""A snapshot as tensors: edges in both directions, splits for link prediction, frozen text features."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from kg.errors import ConfigError
from kg.snapshot import Snapshot
from models.base import fast_bf16, load_base, load_tokenizer, mean_pooled, weights_of

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)  # torch-geometric compiles nothing here
    from torch_geometric.data import Data as Data

MAX_TOKENS = 64
"""Of a node's text: FIBO's definitions fit in it nearly always, and cost grows with length."""


def load_graph(
    snapshot: Snapshot, *, ban_relations: Sequence[str] = (), relations: Sequence[str] | None = None
) -> Data:
    """All triples as edges, without those of ``ban_relations``.

    Args:
        relations: what ``edge_type`` counts in, for an encoder that was trained on another snapshot; edges of
            relations that are not among them are left out. The snapshot's own when None.

    Returns:
        ``edge_index`` ``[2, edges]`` (head, tail), ``edge_type`` ``[edges]``, ``num_nodes`` and ``num_relations``;
        inverse edges are added by ``with_inverses`` where a model wants them.

    Raises:
        ConfigError: a banned relation is not in the graph (most likely misspelt).
    """
    relations = snapshot.relations if relations is None else relations
    unknown = sorted(set(ban_relations) - set(relations))
    if unknown:
        raise ConfigError(f"ban_relations names {', '.join(unknown)}, which the graph does not have.")
    number = {name: index for index, name in enumerate(relations) if name not in ban_relations}
    numbers = np.array([number.get(name, -1) for name in snapshot.relations], dtype=np.int64)
    kept = snapshot.triples.astype(np.int64)
    kept[:, 1] = numbers[kept[:, 1]]
    kept = kept[kept[:, 1] >= 0]
    return Data(
        edge_index=torch.from_numpy(kept[:, [0, 2]].T.copy()),
        edge_type=torch.from_numpy(kept[:, 1].copy()),
        num_nodes=snapshot.num_entities,
        num_relations=len(relations),
    )


@dataclass(frozen=True)
class Split:
    """Triples ``[n, 3]`` (head, relation, tail) for link prediction."""

    train: Tensor
    valid: Tensor
    test: Tensor


def split_edges(data: Data, *, seed: int, valid: float = 0.05, test: float = 0.05) -> Split:
    """Hold edges out at random; an entity or relation whose only edge is drawn keeps it in training."""
    triples = triples_of(data)
    generator = torch.Generator().manual_seed(seed)
    wanted = round(len(triples) * (valid + test))
    degree = torch.bincount(torch.cat([triples[:, 0], triples[:, 2]]), minlength=int(data.num_nodes or 0))
    frequency = torch.bincount(triples[:, 1], minlength=int(data.num_relations))
    held: list[int] = []
    for index in torch.randperm(len(triples), generator=generator).tolist():
        head, relation, tail = triples[index].tolist()
        if len(held) == wanted:
            break
        if degree[head] > 1 and degree[tail] > 1 and frequency[relation] > 1:
            degree[head] -= 1
            degree[tail] -= 1
            frequency[relation] -= 1
            held.append(index)
    cut = round(len(held) * valid / (valid + test)) if held else 0
    mask = torch.ones(len(triples), dtype=torch.bool)
    mask[held] = False
    return Split(train=triples[mask], valid=triples[held[:cut]], test=triples[held[cut:]])


def triples_of(data: Data) -> Tensor:
    """``[edges, 3]``: head, relation, tail."""
    return torch.stack([data.edge_index[0], data.edge_type, data.edge_index[1]], dim=1)


def with_inverses(triples: Tensor, num_relations: int) -> Tensor:
    """Each triple also the other way, as relation ``r + num_relations``."""
    inverse = torch.stack([triples[:, 2], triples[:, 1] + num_relations, triples[:, 0]], dim=1)
    return torch.cat([triples, inverse])


def entity_texts(snapshot: Snapshot) -> list[str]:
    """``name: definition`` of each entity, what there is of it."""
    definitions = snapshot.entities["definition"].to_pylist()
    return [f"{name}: {said}" if said else name for name, said in zip(snapshot.names, definitions, strict=True)]


def text_features(snapshot: Snapshot, base: str, cache: Path) -> Tensor:
    """Frozen embedding of each entity's text ``[entities, hidden]``, kept on disk by model and texts."""
    return embed_texts(entity_texts(snapshot), base, cache)


def embed_texts(texts: Sequence[str], base: str, cache: Path, *, batch_size: int = 64) -> Tensor:
    """Mean-pooled last states of the base model, of an encoder-decoder its encoder's ``[texts, hidden]``."""
    digest = hashlib.sha256("\x1e".join([weights_of(base), str(MAX_TOKENS), *texts]).encode("utf-8", "replace"))
    file = cache / f"text-{digest.hexdigest()[:32]}.safetensors"
    if file.is_file():
        return load_file(file)["features"]
    tokenizer, model = load_tokenizer(base), load_base(base, AutoModel).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    tokens = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    order = sorted(range(len(texts)), key=lambda index: len(tokens[index]))
    features = torch.zeros(len(texts), model.config.hidden_size)
    starts = range(0, len(order), batch_size)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        for start in track(starts, "embedding names and definitions", console=Console(stderr=True)):
            batch = order[start : start + batch_size]
            padded = tokenizer.pad({"input_ids": [tokens[index] for index in batch]}, return_tensors="pt")
            features[batch] = mean_pooled(model(**padded).last_hidden_state.float(), padded["attention_mask"])
    cache.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({"features": features}, part)
    part.rename(file)
    return features
