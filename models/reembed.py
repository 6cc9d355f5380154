"""A newer snapshot into a trained run, without training: only the rows that it changes are computed anew."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kg.errors import InputError, SnapshotMismatch
from kg.snapshot import Snapshot
from models.bans import Bans
from models.entity_table import FIRST, EntityTable
from models.gnn import affected_nodes, embed, load_encoder
from models.graph import Data, embed_texts, entity_texts, load_graph, triples_of, with_inverses
from models.recipe import load_recipe
from models.reduction import Reduction, encoder_hash, signature_counts
from models.run import Run, aside, current_knowledge, hold, read_manifest

FEATURES = "text_features.safetensors"
"""Beside a table: text features of its entities, in the order of its rows. Most of the time would go into them."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a newer snapshot brought, in entities, and what was done about it."""

    before: str
    """Hash of the snapshot that the run answered with."""
    after: str
    kept: int
    """Same text, same edges."""
    changed: int
    """Other text or other edges."""
    added: int
    removed: int
    recomputed: int
    """Rows that were computed anew, out of ``total``."""
    total: int
    ignored: Mapping[str, int]
    """Edges of each relation that the run was not trained with: nothing was learned of it, so they are left out."""
    seconds: float

    def as_lines(self) -> str:
        """For a terminal."""
        lines = [
            f"Snapshot {self.before[:8]} → {self.after[:8]}: {self.kept:,} entities as they were, "
            f"{self.changed:,} changed, {self.added:,} added, {self.removed:,} removed",
            f"Recomputed {self.recomputed:,} of {self.total:,} rows in {self.seconds:.1f} s; nothing was trained",
        ]
        lines += [
            f"  ignored {edges:,} edges of {relation}, a relation that the run was not trained with"
            for relation, edges in sorted(self.ignored.items())
        ]
        return "\n".join(lines)


def reembed(run_path: Path, newer: Snapshot, *, cache: Path) -> Update:
    """Let the models of a run answer with ``newer``; rows of entities that it does not touch stay to the bit.

    What the run was trained with is left alone, so that a training that is added later compares like with like. All
    is written aside: the manifest, replaced last and in one step, says which table and snapshot the models read.

    Args:
        cache: where text features are kept.

    Raises:
        InputError: the folder is no run, its encoder is not trained yet, or one of its files is missing or broken.
        SnapshotMismatch: the snapshot is of another graph altogether.
        ConfigError: another process is at work in the run.
    """
    started = time.monotonic()
    manifest, recipe = read_manifest(run_path), load_recipe(str(run_path / "config.toml"))
    if "gnn" not in manifest.get("stages", {}):
        raise InputError(
            run_path, f"has no entity table yet; run: python -m models.train_kgbert gnn {recipe.name} --run {run_path}"
        )
    hold(run_path)
    now = current_knowledge(manifest)
    trained, older = (Snapshot.load(run_path / part["snapshot"]["path"]) for part in (manifest, now))
    table, reduction = EntityTable.load(run_path / now["table"]), Reduction.load(run_path / "table")
    table.check(older)
    encoder = load_encoder(run_path / "gnn")
    if encoder_hash(encoder) != table.encoder_hash:
        raise InputError(run_path / "gnn", "is not the encoder that the run's table was made with; train the run anew")
    bans = Bans.load(run_path / "table")
    old_graph, graph = (
        bans.applied(load_graph(one, relations=trained.relations), one, trained.relations) for one in (older, newer)
    )
    before, after = _positions(newer, older), _positions(older, newer)
    if not (before >= 0).any():
        raise SnapshotMismatch(
            f"{newer.path} shares no entity with {older.path}; expected a newer snapshot of the run's graph: name it "
            "with --snapshot."
        )
    old_texts, texts = entity_texts(older), entity_texts(newer)
    restated = torch.tensor(
        [row < 0 or old_texts[row] != text for row, text in zip(before.tolist(), texts, strict=True)]
    )
    rewired = rewired_nodes(old_graph, graph, after)
    affected = affected_nodes(
        with_inverses(triples_of(graph), encoder.num_relations),
        restated=restated,
        rewired=rewired,
        hops=len(encoder.layers),
    )
    nodes, known = affected.nonzero()[:, 0], before >= 0

    old_features = _load_features(run_path / now["table"], len(table.ids))
    features = torch.zeros(newer.num_entities, old_features.shape[1])
    features[known] = old_features[before[known]]
    if restated.any():
        features[restated] = embed_texts([texts[row] for row in restated.nonzero()[:, 0]], recipe.base, cache)
    learned = _positions(newer, trained)
    vectors = torch.zeros(newer.num_entities + FIRST, table.dim)
    vectors[:FIRST] = table.vectors[:FIRST]
    vectors[FIRST:][known] = table.vectors[FIRST:][before[known]]
    vectors[FIRST + nodes] = reduction.rows(
        embed(encoder, graph, features, learned=learned, nodes=nodes),
        signature_counts(graph, learned.numpy())[nodes.numpy()],
        features[nodes],
    )

    changed = int((known & (restated | rewired)).sum())
    unlearned = Counter(newer.relations[relation] for relation in newer.triples[:, 1])
    update = Update(
        before=older.hash,
        after=newer.hash,
        kept=int(known.sum()) - changed,
        changed=changed,
        added=int((~known).sum()),
        removed=int((after < 0).sum()),
        recomputed=len(nodes),
        total=newer.num_entities,
        ignored={name: count for name, count in unlearned.items() if name not in trained.relations},
        seconds=round(time.monotonic() - started, 2),
    )
    if newer.hash != older.hash:
        made = EntityTable(tuple(newer.ids), vectors, newer.hash, table.encoder_hash)
        _take(Run(run_path, recipe), newer, made, features, update)
    return update


def rewired_nodes(older: Data, newer: Data, after: Tensor) -> Tensor:
    """True where a node of the newer graph has lost or got an edge ``[nodes]``; relations count alike in both.

    Args:
        after: index of each older node in the newer graph, -1 where it is gone.
    """
    num_nodes, num_relations = int(newer.num_nodes or 0), int(newer.num_relations)
    heads, relations, tails = triples_of(older).unbind(1)
    moved = torch.stack([after[heads], relations, after[tails]], dim=1)
    lost = (moved < 0).any(dim=1)
    there, here = (
        ((triples[:, 0] * num_relations + triples[:, 1]) * num_nodes + triples[:, 2]).numpy()
        for triples in (moved[~lost], triples_of(newer))
    )
    differing = torch.from_numpy(np.setxor1d(there, here))
    ends = torch.cat(
        [differing // (num_relations * num_nodes), differing % num_nodes, moved[lost][:, [0, 2]].flatten()]
    )
    return torch.zeros(num_nodes, dtype=torch.bool).index_fill(0, ends[ends >= 0], True)


def save_features(features: Tensor, folder: Path) -> None:
    """Keep them beside the table that was made of them."""
    save_file({"features": features.contiguous()}, folder / FEATURES)


def _load_features(folder: Path, count: int) -> Tensor:
    try:
        features = load_file(folder / FEATURES)["features"]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(
            folder / FEATURES, f"missing or broken ({error}); train the run anew in another folder"
        ) from error
    if len(features) != count:
        raise InputError(folder / FEATURES, f"holds {len(features)} rows, expected {count}")
    return features


def _positions(entities: Snapshot, among: Snapshot) -> Tensor:
    """Index of each entity in another snapshot, -1 where it has none ``[entities]``."""
    index = among.index
    return torch.tensor([index.get(entity_id, -1) for entity_id in entities.ids], dtype=torch.long)


def _take(run: Run, snapshot: Snapshot, table: EntityTable, features: Tensor, update: Update) -> None:
    """Write all of a snapshot's into one folder, let the manifest name it, and only then let the older one go."""
    everything = run.path / "knowledge"
    folder = everything / snapshot.hash[:16]
    with aside(folder) as part:
        (part / "snapshot").mkdir()
        for name in (*snapshot.manifest["files"], "manifest.json"):
            shutil.copy(snapshot.path / name, part / "snapshot" / name)
        table.save(part)
        save_features(features, part)
    path = folder.relative_to(run.path)
    run.update_manifest(
        knowledge={
            "snapshot": {
                "path": str(path / "snapshot"),
                "hash": snapshot.hash,
                "counts": snapshot.manifest["counts"],
                "sources": snapshot.manifest["sources"],
            },
            "table": str(path),
            "ignored_relations": sorted(update.ignored),
            "update": asdict(update),
        }
    )
    for other in everything.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
