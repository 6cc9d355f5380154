"""First stage: graph into Neo4j, snapshot, coverage, entity encoder, entity table."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from kg.linking import Linker
from kg.settings import Settings
from kg.snapshot import Snapshot
from kg.store import open_store
from models.data import read_task
from models.graph import load_graph, text_features
from models.link_prediction import train_gnn
from models.recipe import resolve_path
from models.reduction import build_table
from models.reembed import save_features
from models.run import Run, aside, child_process, data_hash, write_json

console = Console(stderr=True)


def run_stage(run: Run, settings: Settings) -> None:
    """Leave ``snapshots/vN``, ``gnn/`` and ``table/`` in the run folder."""
    recipe = run.recipe
    snapshot = Snapshot.load(make_snapshot(run, settings))
    show_coverage(run, settings, snapshot)
    if run.done("gnn"):
        return
    console.rule("gnn: entity encoder and table")
    features = text_features(snapshot, recipe.base, settings.home / "cache")
    graph = load_graph(snapshot, ban_relations=recipe.graph.ban_relations)
    encoder, metrics = train_gnn(graph, features, recipe.gnn, run.path / "gnn")
    table, reduction = build_table(encoder, graph, features, snapshot, recipe.base)
    with aside(run.path / "table") as folder:
        table.save(folder)
        reduction.save(folder)
        save_features(features, folder)
    write_json(run.path / "gnn" / "metrics.json", metrics)
    console.print(
        f"Held-out edges: MRR {metrics['mrr']:.3f}, Hits@10 {metrics['hits@10']:.3f} (filtered, realistic ranks)"
        if "mrr" in metrics
        else "The graph has no edge to spare, so the entity encoder is not measured."
    )
    run.finish("gnn", {"metrics": metrics})


def make_snapshot(run: Run, settings: Settings) -> Path:
    """The run's snapshot; made once, from Neo4j, after loading the recipe's graph into it."""
    if "snapshot" in run.manifest:
        return run.path / str(run.manifest["snapshot"]["path"])
    graph = run.recipe.graph
    paths = [resolve_path(path, settings.data) for path in graph.paths]
    texts = text_paths(run, settings)  # what is missing is said before anything is loaded
    console.rule(f"graph: {graph.source_id} into Neo4j")
    with open_store(settings):  # keeps one server up for both steps
        child_process("-m", "ingest", "load", graph.source, *map(str, paths), *graph.options)
        printed = child_process(
            "-m", "kg", "snapshot", "--out", str(run.path / "snapshots"), "--sources", graph.source_id
        )
    snapshot = Snapshot.load(printed.strip().splitlines()[-1])
    run.update_manifest(
        snapshot={
            "path": str(snapshot.path.relative_to(run.path)),
            "hash": snapshot.hash,
            "counts": snapshot.manifest["counts"],
            "sources": snapshot.manifest["sources"],
        },
        data={str(path): data_hash(path) for path in [*paths, *texts]},
    )
    return snapshot.path


def text_paths(run: Run, settings: Settings) -> list[Path]:
    """Of the tasks and of the pretraining corpora."""
    named = (*(task.path for task in run.recipe.tasks), *run.recipe.pretrain.corpus)
    return sorted({resolve_path(path, settings.data) for path in named})


def show_coverage(run: Run, settings: Settings, snapshot: Snapshot) -> None:
    """Print, before anything is trained, how much of the tasks' texts the graph can speak of: it bounds any gain."""
    linker = Linker.load(snapshot)
    degree = Counter(int(entity) for column in (0, 2) for entity in snapshot.triples[:, column])
    coverage = {}
    for task in run.recipe.tasks:
        splits = read_task(task.reader, resolve_path(task.path, settings.data))
        train = linked_entities(linker, [example.text for example in splits.train], snapshot)
        test = linked_entities(linker, [example.text for example in splits.test], snapshot)
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


def linked_entities(linker: Linker, texts: list[str], snapshot: Snapshot) -> list[list[int]]:
    """Entity indices linked in each text."""
    return [[snapshot.index[link.id] for link in links if link.id is not None] for links in linker.link_batch(texts)]


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
