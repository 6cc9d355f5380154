"""First stage: graph into Neo4j, snapshot, coverage, entity encoder, entity table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor

from kg.linking import Linker
from kg.settings import Settings
from kg.snapshot import Snapshot
from kg.store import open_store
from models.bans import Bans, find_bans
from models.data import read_task
from models.entity_table import FIRST, EntityTable
from models.examples import Example, Splits
from models.graph import Data, load_graph, text_features, triples_of
from models.link_prediction import train_gnn
from models.objectives import with_entities
from models.recipe import Recipe, Task, resolve_path
from models.reduction import Reduction, build_table, signature_counts
from models.reembed import save_features
from models.run import Run, aside, child_process, data_hash, licence_of, write_json
from models.stages.arms import GROUPS, TABLES

console = Console(stderr=True)


def run_stage(run: Run, settings: Settings) -> None:
    """Leave ``snapshots/vN``, ``gnn/`` and ``table/`` in the run folder."""
    recipe = run.recipe
    snapshot = Snapshot.load(make_snapshot(run, settings))
    linker = Linker.load(snapshot)
    tasks = [(task, read_linked(task, settings, linker)) for task in recipe.tasks]
    show_coverage(run, snapshot, linker, tasks)
    if run.done("gnn"):
        return
    console.rule("gnn: entity encoder and table")
    features = text_features(snapshot, recipe.base, settings.home / "cache")
    graph = load_graph(snapshot, ban_relations=recipe.graph.ban_relations)
    bans = bans_of(recipe, snapshot, tasks)
    show_bans(bans)
    graph = bans.applied(graph, snapshot)
    encoder, metrics = train_gnn(graph, features, recipe.gnn, run.path / "gnn")
    table, reduction = build_table(encoder, graph, features, snapshot, recipe.base)
    with aside(run.path / "table") as folder:
        table.save(folder)
        reduction.save(folder)
        save_features(features, folder)
        bans.save(folder)
        save_file({"groups": alike(snapshot, graph, recipe.graph.type_relations)}, folder / GROUPS)
    write_json(run.path / "gnn" / "metrics.json", metrics)
    console.print(
        f"Held-out edges: MRR {metrics['mrr']:.3f}, Hits@10 {metrics['hits@10']:.3f} (filtered, realistic ranks)"
        if "mrr" in metrics
        else "The graph has no edge to spare, so the entity encoder is not measured."
    )
    run.finish("gnn", {"metrics": metrics, "bans": list(bans.audit)})


def make_tables(run: Run, settings: Settings) -> None:
    """Tables of the arms that do not read the run's own; each is made once."""
    recipe = run.recipe
    snapshot = Snapshot.load(run.path / str(run.manifest["snapshot"]["path"]))
    wanted = [arm for arm in TABLES if arm in recipe.arms and not (run.path / "tables" / TABLES[arm]).is_dir()]
    if not wanted:
        return
    features = text_features(snapshot, recipe.base, settings.home / "cache")
    for arm in wanted:
        console.print(f"Table of the arm {arm}")
        if arm == "unbanned":
            graph = load_graph(snapshot)
            encoder, _ = train_gnn(graph, features, recipe.gnn, run.path / "gnn-unbanned")
            table, _ = build_table(encoder, graph, features, snapshot, recipe.base)
        else:
            table = partial_table(run, snapshot, features, types=arm == "types")
        with aside(run.path / "tables" / TABLES[arm]) as folder:
            table.save(folder)


def partial_table(run: Run, snapshot: Snapshot, features: Tensor, *, types: bool) -> EntityTable:
    """Rows made of the entities' types alone, or of their texts alone; as long as the run's own."""
    own = EntityTable.load(run.path / "table")
    graph = Bans.load(run.path / "table").applied(load_graph(snapshot), snapshot)
    told = torch.tensor([types and name in run.recipe.graph.type_relations for name in snapshot.relations])
    kept = told[graph.edge_type] if len(told) else torch.zeros(0, dtype=torch.bool)
    graph.edge_index, graph.edge_type = graph.edge_index[:, kept], graph.edge_type[kept]
    counts = signature_counts(graph, np.arange(len(features)))
    features = torch.zeros_like(features) if types else features
    nothing = torch.zeros(len(features), own.dim)
    norm = float(own.vectors[FIRST:].norm(dim=1).median())
    rows = Reduction.fit(nothing, counts, features, dim=own.dim, norm=norm).rows(nothing, counts, features)
    name = f"{own.encoder_hash}-{'types' if types else 'descriptions'}"
    return EntityTable(own.ids, torch.cat([own.vectors[:FIRST], rows]), own.snapshot_hash, name)


def read_linked(task: Task, settings: Settings, linker: Linker) -> Splits:
    """The examples of a task with the pairs linked that models are asked about."""
    splits = read_task(task.reader, resolve_path(task.path, settings.data), task.columns)
    parts = [getattr(splits, part) for part in Splits.PARTS]
    linked = iter(with_entities([*chain.from_iterable(parts)], linker))
    return Splits(**{name: tuple(islice(linked, len(part))) for name, part in zip(Splits.PARTS, parts, strict=True)})


def bans_of(recipe: Recipe, snapshot: Snapshot, tasks: Iterable[tuple[Task, Splits]]) -> Bans:
    """What the tasks must not be told, as the recipe says."""
    graph = recipe.graph
    examples = []
    for task, splits in tasks:
        stated = {label: relations for label, *relations in task.label_relations}
        for example in (*splits.train, *splits.validation, *splits.test):
            label = str(example.label)
            examples.append((example, (label, *stated.get(label, ()))))
    return find_bans(
        snapshot,
        examples,
        given=graph.ban_relations,
        label_relations=graph.ban_label_relations,
        inverses=graph.ban_inverses,
        gold_edges=graph.drop_gold_edges,
    )


def show_bans(bans: Bans) -> None:
    """The audit: what the models are not told, because it would give labels away."""
    table = Table(title="kept from the models", title_justify="left")
    for column in ("relation", "why", "edges"):
        table.add_column(column, justify="right" if column == "edges" else "left")
    for row in bans.audit:
        table.add_row(row["relation"], row["why"], f"{row['edges']:,}")
    if bans.audit:
        console.print(table)


def alike(snapshot: Snapshot, graph: Data, type_relations: Sequence[str]) -> Tensor:
    """A number for each entity, the same for those of one type and like degree (powers of two)."""
    heads, relations, tails = (column.numpy() for column in triples_of(graph).unbind(1))
    degree = np.bincount(np.concatenate([heads, tails]), minlength=snapshot.num_entities)
    says_type = np.isin(relations, [i for i, name in enumerate(snapshot.relations) if name in type_relations])
    type_of = np.full(snapshot.num_entities, snapshot.num_entities)
    np.minimum.at(type_of, heads[says_type], tails[says_type])
    return torch.from_numpy(type_of * 64 + np.log2(degree + 1).astype(np.int64))


def make_snapshot(run: Run, settings: Settings) -> Path:
    """The run's snapshot; made once, from Neo4j, after loading the recipe's graph into it."""
    if "snapshot" in run.manifest:
        return run.path / str(run.manifest["snapshot"]["path"])
    loads = run.recipe.graph.loads
    paths = [[resolve_path(path, settings.data) for path in load.paths] for load in loads]
    texts = text_paths(run, settings)  # what is missing is said before anything is loaded
    source_ids = [load.source_id for load in loads]
    console.rule(f"graph: {', '.join(source_ids)} into Neo4j")
    with open_store(settings):  # keeps one server up for all steps
        for load, files in zip(loads, paths, strict=True):
            named = ("--source-id", load.source_id)
            child_process("-m", "ingest", "load", load.source, *map(str, files), *named, *load.options)
        printed = child_process("-m", "kg", "snapshot", "--out", str(run.path / "snapshots"), "--sources", *source_ids)
    snapshot = Snapshot.load(printed.strip().splitlines()[-1])
    used = [*chain.from_iterable(paths), *texts]
    run.update_manifest(
        snapshot={
            "path": str(snapshot.path.relative_to(run.path)),
            "hash": snapshot.hash,
            "counts": snapshot.manifest["counts"],
            "sources": snapshot.manifest["sources"],
        },
        data={str(path): data_hash(path) for path in used},
        licences={str(path): licence_of(path) for path in used},
    )
    return snapshot.path


def text_paths(run: Run, settings: Settings) -> list[Path]:
    """Of the tasks and of the pretraining corpora."""
    pretrain = run.recipe.pretrain
    named = (*(task.path for task in run.recipe.tasks), *pretrain.corpus, *pretrain.replay)
    return sorted({resolve_path(path, settings.data) for path in named})


def show_coverage(run: Run, snapshot: Snapshot, linker: Linker, tasks: Iterable[tuple[Task, Splits]]) -> None:
    """Print, before anything is trained, how much of the tasks' texts the graph can speak of: it bounds any gain."""
    degree = Counter(int(entity) for column in (0, 2) for entity in snapshot.triples[:, column])
    coverage = {}
    for task, splits in tasks:
        train, test = (linked_entities(linker, part, snapshot) for part in (splits.train, splits.test))
        mentions = [entity for text in test for entity in text]
        seen = {entity for text in train for entity in text}
        share = coverage[task.name] = {
            "texts": len(test),
            "texts_linked": _share(bool(text) for text in test),
            "mentions": len(mentions),
            "mentions_with_edges": _share(degree[entity] > 0 for entity in mentions),
            "mentions_seen_in_training": _share(entity in seen for entity in mentions),
        }
        console.print(
            f"Coverage of {task.name}: {share['texts_linked']:.0%} of {len(test)} test texts have a linked entity; "
            f"of {len(mentions)} linked mentions {share['mentions_with_edges']:.0%} have edges and "
            f"{share['mentions_seen_in_training']:.0%} were seen in training.",
            soft_wrap=True,
        )
    run.update_manifest(coverage=coverage)


def linked_entities(linker: Linker, examples: Sequence[Example], snapshot: Snapshot) -> list[list[int]]:
    """Entity indices linked in each text: those of the pair that is asked about, or else what the linker finds."""
    if examples and examples[0].pair is not None:
        named = [[mention.entity or "" for mention in example.pair or ()] for example in examples]
        return [[snapshot.index[entity] for entity in pair if entity in snapshot.index] for pair in named]
    links = linker.link_batch([example.text for example in examples])
    return [[snapshot.index[link.id] for link in found if link.id is not None] for found in links]


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
