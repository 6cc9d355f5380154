"""A release into the empty local graph by Neo4j's own importer: a new store is built, and takes the place of the old.

The graph is the one that ``ingest.load`` writes. What the importer's columns cannot say is set afterwards: rare
property keys, since it looks at every column for every row, and empty strings, which it takes for no value.
"""

import errno
import json
import re
import shutil
import subprocess
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, TextIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.progress import Progress

from ingest.load import BATCH, RECORD_SOURCE, batches, progress_bars
from ingest.release import Release
from ingest.report import Report, cpu_seconds_of
from ingest.vocabulary import RESERVED
from kg import neo4j_process
from kg.errors import StoreFailed, StoreUnavailable
from kg.local_server import Address, LocalServer
from kg.schema import ensure_schema, source_label
from kg.settings import Settings
from kg.store import GraphStore, connect

Columns: TypeAlias = Mapping[str, str]
"""Property keys that get a column, each with the Python type that its values have most often."""

MAX_COLUMNS = 256
HEAP_MB = 1024
OFF_HEAP_MB = 1024
"""Relationships are linked type by type where this is short: at 512 MB, 450 types took as long as all the rest."""
BRIEF = 1_500_000
"""Rows up to which Java's optimising compiler costs more than it saves: 7 of 18 CPU-s at 0.45M, nothing at 1.76M."""
TYPES = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "list": pa.list_(pa.string()),
}
TEXTS = ("name", "definition")
LISTS = ("names", "name_kinds", "name_origins", "definitions", "tail")
OWN_KEYS = {
    "nodes": RESERVED - {"relation"},
    "edges": frozenset({"sid", "sources"}),
}
"""Keys whose values are not the source's; a property of such a name is not kept, here as in ``ingest.load``."""
PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""A key that the importer takes for nothing but a key."""

ANYTHING = "MATCH (n) WHERE NOT n:Format RETURN 1 AS one LIMIT 1"
COUNTS = """
CALL () { MATCH (e:Entity) RETURN count(e) AS nodes }
CALL () { MATCH ()-[r]->() RETURN count(r) AS edges }
RETURN nodes, edges
"""
SET_REST = {
    "nodes": "UNWIND $rows AS row MATCH (e:Entity {id: row.id}) SET e += row.properties",
    "edges": """
UNWIND $rows AS row MATCH (:Entity {id: row.head})-[r]->() WHERE r.sid = row.sid SET r += row.properties
""",
}

MIN_FREE_BYTES = 64 * 1024
PATIENCE_S = 10


def bulk_possible(settings: Settings, store: GraphStore) -> str | None:
    """None when ``bulk_load`` can be used; else the reason why not."""
    if settings.neo4j_uri is not None:
        return "NEO4J_URI is set, and only the local Neo4j can be filled in bulk"
    if store.read(ANYTHING):
        return "the graph is not empty"
    return None


def bulk_load(settings: Settings, release: Release, report: Report) -> None:
    """Fill the empty local graph with ``release``; after a failure or a kill the graph is empty as before.

    Nobody may use the local server meanwhile, this process included.

    Raises:
        StoreUnavailable: another process uses the server, or has written something into the graph.
        StoreFailed: the importer gave up, for example since the disk is full.
    """
    server = LocalServer(settings.home)
    made: Counter[str] = Counter()
    rest: dict[str, TextIO] = {}
    used = cpu_seconds_of(server.status().get("pid"))
    report.path = "bulk"

    def build(home: Path) -> None:
        for name in ("nodes", "edges"):
            rest[name] = stack.enter_context((home / f"{name}.jsonl").open("w+", encoding="utf-8"))
        files = {name: _write_files(release, name, home, rest[name], progress) for name in rest}
        brief = release.num_nodes + release.num_edges < BRIEF
        made.update(_import(home, files, progress, brief=brief))

    def may(address: Address) -> None:
        with connect(address) as store:
            if store.read(ANYTHING):
                raise StoreUnavailable("Something was written into the graph meanwhile; run the command again.")
        report.server_cpu_seconds += cpu_seconds_of(server.status().get("pid")) - used

    def check(address: Address) -> None:
        bar = progress.add_task("indexes", total=None)
        with connect(address) as store:
            ensure_schema(store)
            progress.update(bar, total=1, completed=1)
            for name, file in rest.items():
                made["properties"] += _set_rest(store, name, file)
            found = store.read(COUNTS)[0]
            if (found["nodes"], found["edges"]) != (release.num_nodes, release.num_edges):
                raise StoreFailed(
                    f"The importer made {found['nodes']} nodes and {found['edges']} relationships of "
                    f"{release.num_nodes} and {release.num_edges}; the graph is empty as before."
                )
            store.write(
                RECORD_SOURCE,
                id=release.source,
                release=release.manifest.get("release", ""),
                sha256=release.sha256,
                licence=release.manifest.get("licence") or None,
                exact=True,
                loaded_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        report.server_cpu_seconds += cpu_seconds_of(server.status().get("pid"))

    try:
        with (
            progress_bars() as progress,
            ExitStack() as stack,
        ):
            server.replace_store(build, may=may, check=check)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(server.folder) from error
        raise
    report.written.update(made)


def _write_files(release: Release, name: str, folder: Path, rest: TextIO, progress: Progress) -> list[Path]:
    """Write the importer's Parquet files: rows without properties are many, and need no columns for them."""
    total = release.num_nodes if name == "nodes" else release.num_edges
    columns = _choose_columns(release, name)
    writers: dict[Path, pq.ParquetWriter] = {}
    bar = progress.add_task(name, total=total)
    with ExitStack() as stack:
        for batch in release.nodes() if name == "nodes" else release.edges():
            has_properties = pc.not_equal(batch["properties"], "{}")
            for kind, rows in (
                ("rich", batch.filter(has_properties)),
                ("plain", batch.filter(pc.invert(has_properties))),
            ):
                if not len(rows):
                    continue
                table, left = (
                    _node_table(rows, release.source) if name == "nodes" else _edge_table(rows, release.source)
                )
                if kind == "rich":
                    typed, more = _typed_columns(rows["properties"], columns, OWN_KEYS[name])
                    table.update(typed)
                    for row, properties in more.items():
                        left.setdefault(row, {}).update(properties)
                part = pa.table(table)
                file = folder / f"{name}-{kind}.parquet"
                if file not in writers:
                    writer = pq.ParquetWriter(file, part.schema, compression="snappy")
                    writers[file] = stack.enter_context(writer)
                writers[file].write_table(part)
                _write_rest(rest, rows, left)
            progress.advance(bar, len(batch))
    return list(writers)


def _choose_columns(release: Release, name: str) -> Columns:
    """The keys that most rows have, each with its most frequent type."""
    counts: Counter[tuple[str, str]] = Counter()
    for batch in release.nodes("properties") if name == "nodes" else release.edges("properties"):
        for text in batch.filter(pc.not_equal(batch["properties"], "{}"))["properties"].to_pylist():
            counts.update((key, type(value).__name__) for key, value in json.loads(text).items())
    chosen: dict[str, str] = {}
    for (key, kind), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen) == MAX_COLUMNS:
            break
        if kind in TYPES and PLAIN_KEY.fullmatch(key) and key not in OWN_KEYS[name]:
            chosen.setdefault(key, kind)
    return chosen


def _node_table(rows: pa.RecordBatch, source: str) -> tuple[dict[str, pa.Array], dict[int, dict[str, Any]]]:
    """Columns of the importer, and by row what is to be set afterwards."""
    left: dict[int, dict[str, Any]] = {}
    for key in TEXTS:
        for row in pc.indices_nonzero(pc.equal(rows[key], "")).to_pylist():
            left.setdefault(row, {})[key] = ""
    kinds = pc.binary_join(rows["kinds"], ";")
    columns = {
        "id:ID": rows["id"],
        ":LABEL": pc.binary_join_element_wise(f"Entity;{source_label(source)}", kinds, ";"),
        "iri": rows["iri"],
        **{key: rows[key] for key in TEXTS},
        **{key: _without_empty(rows[key]) for key in LISTS},
        "sources": _alone(pa.array([source] * len(rows))),
        "hashes": _alone(rows["hash"]),
    }
    return columns, left


def _edge_table(rows: pa.RecordBatch, source: str) -> tuple[dict[str, pa.Array], dict[int, dict[str, Any]]]:
    columns = {
        ":START_ID": rows["head"],
        ":END_ID": rows["tail"],
        ":TYPE": rows["relation"],
        "sid": rows["sid"],
        "sources": _alone(pa.array([source] * len(rows))),
    }
    return columns, {}


def _typed_columns(
    packed: pa.Array, columns: Columns, own_keys: frozenset[str]
) -> tuple[dict[str, pa.Array], dict[int, dict[str, Any]]]:
    """A column for each of ``columns``, and by row the values that fit in none."""
    values: dict[str, list[Any]] = {key: [None] * len(packed) for key in columns}
    left: dict[int, dict[str, Any]] = {}
    for row, text in enumerate(packed.to_pylist()):
        for key, value in json.loads(text).items():
            if value in (None, []) or key in own_keys:
                continue
            if value != "" and columns.get(key) == type(value).__name__:
                values[key][row] = value
            else:
                left.setdefault(row, {})[key] = value
    return {key: pa.array(column, TYPES[columns[key]]) for key, column in values.items()}, left


def _without_empty(lists: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.list_value_length(lists), 0), pa.scalar(None, lists.type), lists)


def _alone(values: pa.Array) -> pa.Array:
    """Each value in a list of its own."""
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)


def _write_rest(file: TextIO, rows: pa.RecordBatch, left: Mapping[int, Mapping[str, Any]]) -> None:
    names = [name for name in ("id", "head", "sid") if name in rows.schema.names]
    for row, properties in left.items():
        key = {name: rows[name][row].as_py() for name in names}
        file.write(json.dumps({**key, "properties": properties}) + "\n")


def _set_rest(store: GraphStore, name: str, file: TextIO) -> int:
    """How many properties were set."""
    file.seek(0)
    parts = ([json.loads(line) for line in lines] for lines in batches(file, BATCH))
    return sum(store.write(SET_REST[name], rows=rows)["properties_set"] for rows in parts)


def _import(home: Path, files: Mapping[str, Sequence[Path]], progress: Progress, *, brief: bool) -> Counter[str]:
    """Run the importer; what it says it made: ``nodes``, ``relationships``, ``properties``."""
    command = ["database", "import", "full", "neo4j", "--input-type=parquet", "--path-pattern-style=none"]
    command += [f"--max-off-heap-memory={OFF_HEAP_MB}m", "--array-delimiter=;", "--bad-tolerance=0"]
    command += [f"--nodes={file}" for file in files["nodes"]] + [f"--relationships={file}" for file in files["edges"]]
    counts: Counter[str] = Counter()
    last: deque[str] = deque(maxlen=100)
    bar = progress.add_task("import", total=400)  # four steps, each told in twentieths
    with (
        neo4j_process.admin_tool(home, *command, heap_mb=HEAP_MB, brief=brief) as tool,
        _ended_on_full_disk(tool, home) as was_full,
    ):
        assert tool.stdout is not None
        for line in tool.stdout:
            if re.match(r"[-. ]+ +\d+% ", line):
                progress.advance(bar, 5)
            elif made := re.fullmatch(r" +(\d+) (nodes|relationships|properties)\n", line):
                counts[made[2]] += int(made[1])
            elif re.search(r"\w", line):
                last.append(line.strip())
    for file in [file for parts in files.values() for file in parts]:
        file.unlink()
    if tool.returncode:
        if was_full.is_set() or any("No space left" in line for line in last):
            raise _disk_full(home.parent)
        known = ("Command Failed", "Error importing", "Full exception details", "Please provide")
        first = last.index(known[0]) if known[0] in last else 0
        said = [line for line in islice(last, first, None) if not line.startswith(known)]
        raise StoreFailed(f"Neo4j's importer gave up, the graph is empty as before: {' '.join(said)[:300]}")
    return counts


@contextmanager
def _ended_on_full_disk(tool: "subprocess.Popen[str]", folder: Path) -> Iterator[Event]:
    """Ends the importer where the disk stays full, which the event then says: it may try to write for ever."""
    was_full, done = Event(), Event()

    def watch() -> None:
        full_for = 0
        while not done.wait(1):
            full_for = full_for + 1 if shutil.disk_usage(folder).free < MIN_FREE_BYTES else 0
            if full_for == PATIENCE_S:
                was_full.set()
                tool.kill()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield was_full
    finally:
        done.set()
        watcher.join()


def _disk_full(folder: Path) -> StoreFailed:
    return StoreFailed(f"The disk of {folder} is full; the graph is empty as before. Free space and run again.")
