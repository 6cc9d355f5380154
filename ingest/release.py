"""What one release of a source asserts, as columns on disk: the seam between reading a source and writing the graph.

``nodes.parquet``   a row for each entity, stubs included: what a node of this source alone would hold
``edges.parquet``   a row for each relationship
``manifest.json``   source, release, licence, counts, and ``sha256``, the same for equal content in any order

Rows come in the order in which the source gives them and are written a group at a time, so that a release of any size
takes the same memory. The folder is complete when its manifest is there.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kg.schema import KINDS
from kg.types import Entity, Triple

_STRINGS = pa.list_(pa.string())
NODES = pa.schema(
    [
        ("iri", pa.string()),
        ("id", pa.string()),
        ("kinds", _STRINGS),
        ("name", pa.string()),
        ("names", _STRINGS),
        ("name_kinds", _STRINGS),
        ("name_origins", _STRINGS),
        ("definition", pa.string()),
        ("definitions", _STRINGS),
        ("tail", _STRINGS),
        ("properties", pa.string()),
        ("hash", pa.string()),
    ]
)
"""``name_kinds`` are ``kind@language``, in the order of ``names``; ``properties`` a JSON object; ``hash`` is of all but
the id, which depends on what else there is."""
EDGES = pa.schema(
    [
        ("sid", pa.string()),
        ("head", pa.string()),
        ("relation", pa.string()),
        ("tail", pa.string()),
        ("properties", pa.string()),
    ]
)
"""Ends are ids; ``properties`` a JSON object, which ``sid`` stands for, too."""
GROUP = 20_000
STUB = ("Stub",)


@dataclass(frozen=True)
class Release:
    """A release on disk."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Release | None":
        """The release in ``folder``; None where there is none, or only a part of one."""
        try:
            return cls(folder, json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @property
    def source(self) -> str:
        return str(self.manifest["source"])

    @property
    def sha256(self) -> str:
        return str(self.manifest["sha256"])

    @property
    def num_nodes(self) -> int:
        return int(self.manifest["nodes"])

    @property
    def num_edges(self) -> int:
        return int(self.manifest["edges"])

    def nodes(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """Rows of NODES, a group at a time; all columns when none is named."""
        return self._batches("nodes", columns)

    def edges(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """Rows of EDGES, as ``nodes``."""
        return self._batches("edges", columns)

    def _batches(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.folder / f"{name}.parquet") as file:
            yield from file.iter_batches(GROUP, columns=list(columns) or None)


def write_release(
    folder: Path,
    items: Iterable[Entity | Triple],
    *,
    source: str,
    **about: Any,
) -> Release:
    """Write ``items`` (each id and sid once) to ``folder``, which is made anew.

    Args:
        about: what else the manifest shall say: ``release``, ``licence``.

    Raises:
        ValueError: an entity has a kind outside ``kg.schema.KINDS``: a mistake of the source module.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    total, counts = 0, {"nodes": 0, "edges": 0}
    writers = {
        "nodes": pq.ParquetWriter(folder / "nodes.parquet", NODES, compression="zstd"),
        "edges": pq.ParquetWriter(folder / "edges.parquet", EDGES, compression="zstd"),
    }
    rows: dict[str, list[tuple[Any, ...]]] = {"nodes": [], "edges": []}

    def flush(name: str, schema: pa.Schema) -> None:
        columns = zip(*rows[name], strict=True) if rows[name] else [()] * len(schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        writers[name].write_batch(pa.record_batch(arrays, schema=schema))
        counts[name] += len(rows[name])
        rows[name].clear()

    try:
        for item in items:
            if isinstance(item, Entity):
                row = node_row(item)
                total += int(row[-1], 16)
                rows["nodes"].append(row)
                if len(rows["nodes"]) == GROUP:
                    flush("nodes", NODES)
            else:
                total += int(item.sid, 16)
                rows["edges"].append((item.sid, item.head, item.relation, item.tail, packed(item.properties)))
                if len(rows["edges"]) == GROUP:
                    flush("edges", EDGES)
        flush("nodes", NODES)
        flush("edges", EDGES)
    finally:
        for writer in writers.values():
            writer.close()
    manifest = {"source": source, **counts, **about}
    manifest["sha256"] = hashlib.sha256(f"{total}".encode()).hexdigest()
    part = folder / "manifest.part"
    part.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    part.rename(folder / "manifest.json")
    return Release(folder, manifest)


def node_row(entity: Entity) -> tuple[Any, ...]:
    """One row of NODES."""
    if not KINDS.issuperset(entity.kinds):
        raise ValueError(f"{entity.id}: unknown kinds {sorted(set(entity.kinds) - KINDS)}")
    names = [name.text for name in entity.names]
    name_kinds = [f"{name.kind}@{name.language}" for name in entity.names]
    origins = [name.origin for name in entity.names]
    row = (
        sorted(entity.kinds),
        entity.name,
        names,
        name_kinds,
        origins if any(origins) else [],
        entity.definition,
        list(entity.definitions),
        list(entity.tail),
        packed(entity.properties),
    )
    said = json.dumps((entity.iri, *row), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return entity.iri, entity.id, *row, hashlib.blake2b(said, digest_size=16).hexdigest()


def packed(properties: Mapping[str, Any]) -> str:
    """Properties as JSON, equal for equal ones."""
    return json.dumps(properties, ensure_ascii=False, sort_keys=True, default=list) if properties else "{}"


def unpacked(text: str) -> dict[str, Any]:
    """What ``packed`` has written; most rows have nothing."""
    properties: dict[str, Any] = json.loads(text) if text != "{}" else {}
    return properties
