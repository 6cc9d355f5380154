"""The snapshot: one versioned folder of Parquet that linker and tensors read, with the same integer index.

``entities.parquet``  id, name, definition, types        row number = entity index, sorted by id
``aliases.parquet``   alias, entity, prior, kind, language   sorted by alias, then entity
``triples.parquet``   head, relation, tail               entity, relation and entity index, sorted
``relations.parquet`` name                               row number = relation index, sorted
``manifest.json``     format, hash, counts, sources, files (sha256 of each)

Rows are sorted and the writer is fixed, so equal graphs give equal bytes. The folder is complete when its
manifest is there: it is written aside and renamed.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kg.aside import folder_aside
from kg.columns import ENTITY_COLUMNS, aliases_with_priors, read_graph, read_sources
from kg.errors import ConfigError, InputError
from kg.settings import Settings

if TYPE_CHECKING:
    from kg.store import GraphStore

FORMAT = 1
SCHEMAS: Mapping[str, pa.Schema] = {
    "entities": ENTITY_COLUMNS,
    "aliases": pa.schema(
        [
            ("alias", pa.string()),
            ("entity", pa.int32()),
            ("prior", pa.float32()),
            ("kind", pa.string()),
            ("language", pa.string()),
        ]
    ),
    "triples": pa.schema([("head", pa.int32()), ("relation", pa.int32()), ("tail", pa.int32())]),
    "relations": pa.schema([("name", pa.string())]),
}


@dataclass(frozen=True)
class Snapshot:
    """A snapshot whose tables are read when they are asked for; ``entity`` is always a row number of ``entities``."""

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> "Snapshot":
        """Open a snapshot folder and check each file against its manifest.

        Raises:
            InputError: the folder is not a snapshot, is of another format, or a file was changed.
        """
        path = Path(path)
        manifest_path = path / "manifest.json"
        if not manifest_path.is_file():
            raise InputError(path, "not a snapshot (no manifest.json); make one with: python -m kg snapshot")
        try:
            manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(manifest_path, f"damaged ({error}); make the snapshot again") from error
        if manifest.get("format") != FORMAT:
            raise InputError(
                manifest_path, f"snapshot format {manifest.get('format')!r}, expected {FORMAT}; make it anew"
            )
        for kind in SCHEMAS:
            file = path / f"{kind}.parquet"
            if not file.is_file() or file_sha256(file) != manifest["files"].get(file.name):
                raise InputError(file, "missing, or not the bytes that its manifest names; make the snapshot again")
        return cls(path, manifest)

    @cached_property
    def entities(self) -> pa.Table:
        return self._table("entities")

    @cached_property
    def aliases(self) -> pa.Table:
        return self._table("aliases")

    @cached_property
    def relations(self) -> tuple[str, ...]:
        return tuple(self._table("relations")["name"].to_pylist())

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        """``[num_triples, 3]``: head, relation, tail."""
        table = self._table("triples")
        return np.stack([table[name].to_numpy() for name in ("head", "relation", "tail")], axis=1)

    def _table(self, kind: str) -> pa.Table:
        return pq.read_table(self.path / f"{kind}.parquet", schema=SCHEMAS[kind], memory_map=True)

    @property
    def hash(self) -> str:
        """Hash of the content, whatever the folder is called."""
        return str(self.manifest["hash"])

    @property
    def num_entities(self) -> int:
        return int(self.manifest["counts"]["entities"])

    @cached_property
    def ids(self) -> list[str]:
        return list(self.entities["id"].to_pylist())

    @cached_property
    def names(self) -> list[str]:
        """Preferred names; the id stands in where an entity has none."""
        return list(pc.coalesce(self.entities["name"], self.entities["id"]).to_pylist())

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Entity index by id."""
        return {entity_id: row for row, entity_id in enumerate(self.ids)}


def write_snapshot(
    folder: Path,
    *,
    entities: Sequence[Mapping[str, Any]] | pa.Table,
    aliases: Sequence[Mapping[str, Any]] | pa.Table,
    triples: Sequence[tuple[str, str, str]] | pa.Table,
    sources: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write ``folder`` from rows in any order; ids in ``aliases`` (column ``entity``) and ``triples`` are CURIEs.

    An alias or triple that names an unknown entity is a ``ConfigError``: the graph that it came from is broken.
    """
    entity_table = _sorted(_table(entities, SCHEMAS["entities"]), ["id"])
    ids = entity_table["id"]
    if pc.count_distinct(ids).as_py() != len(ids):
        raise ConfigError("Two entities of the snapshot have the same id; ids must be unique.")
    alias_schema = SCHEMAS["aliases"].set(1, pa.field("entity", pa.string()))
    alias_table = _table(aliases, alias_schema)
    alias_table = alias_table.set_column(1, SCHEMAS["aliases"].field("entity"), _indices(alias_table["entity"], ids))
    triple_names = triples if isinstance(triples, pa.Table) else _string_columns(triples, SCHEMAS["triples"].names)
    relation_names = pa.array(sorted(pc.unique(triple_names["relation"]).to_pylist()), pa.string())
    triple_table = pa.table(
        {
            "head": _indices(triple_names["head"], ids),
            "relation": _indices(triple_names["relation"], relation_names),
            "tail": _indices(triple_names["tail"], ids),
        },
        schema=SCHEMAS["triples"],
    )
    tables = {
        "entities": entity_table,
        "aliases": _sorted(alias_table, ["alias", "entity", "kind", "language"]),
        "triples": _sorted(
            triple_table.group_by(["head", "relation", "tail"]).aggregate([]), ["head", "relation", "tail"]
        ),
        "relations": pa.table({"name": relation_names}, schema=SCHEMAS["relations"]),
    }
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for kind, table in tables.items():
        pq.write_table(table, aside / f"{kind}.parquet", compression="zstd", version="2.6", store_schema=False)
    files = {file.name: file_sha256(file) for file in sorted(aside.glob("*.parquet"))}
    content = {"files": files, "sources": sorted(sources, key=lambda row: str(row["id"])), "format": FORMAT}
    manifest = {
        **content,
        "hash": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "counts": {kind: table.num_rows for kind, table in tables.items()},
    }
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder


def build_snapshot(store: "GraphStore", folder: Path, *, sources: Sequence[str] = ()) -> Path:
    """Read the graph into ``folder/vN`` and return it; an unchanged graph gives the latest version again.

    Args:
        store: the graph; nothing may be loading into it meanwhile.
        folder: where the versions are.
        sources: only entities that one of these sources asserts; all when empty.

    Raises:
        ConfigError: there is no such entity, or ``folder`` cannot be written.
    """
    entities, names, triples = read_graph(store, sources)
    with folder_aside(folder, "building") as aside:
        made = write_snapshot(
            aside / "snapshot",
            entities=entities,
            aliases=aliases_with_priors(names),
            triples=triples,
            sources=read_sources(store, sources),
        )
        number = 1
        while True:
            latest = latest_snapshot(folder)
            if latest is not None:
                with suppress(InputError):  # a damaged one is made again
                    if Snapshot.load(latest).hash == Snapshot.load(made).hash:
                        return latest
                number = max(number, int(latest.name[1:]) + 1)
            try:
                return made.rename(folder / f"v{number}")
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                number += 1  # another process was first, or something that is no snapshot is there


def latest_snapshot(folder: Path) -> Path | None:
    """The newest complete ``vN`` below ``folder``, or None."""
    versions = [
        (int(match[1]), path)
        for path in folder.glob("v*")
        if (match := re.fullmatch(r"v(\d+)", path.name)) and (path / "manifest.json").is_file()
    ]
    return max(versions)[1] if versions else None


def find_snapshot(folder: Path | None, settings: Settings) -> Path:
    """The snapshot that a command was told to use, or else the latest one of ``KGFUSE_HOME``.

    Raises:
        ConfigError: none was named and none is there.
    """
    found = folder or latest_snapshot(settings.home / "snapshots")
    if found is None:
        raise ConfigError(f"No snapshot in {settings.home / 'snapshots'}; make one with: python -m kg snapshot")
    return found


def _table(rows: Sequence[Mapping[str, Any]] | pa.Table, schema: pa.Schema) -> pa.Table:
    return (
        rows.select(schema.names).cast(schema)
        if isinstance(rows, pa.Table)
        else pa.Table.from_pylist(list(rows), schema)
    )


def _string_columns(rows: Sequence[Sequence[str]], names: Sequence[str]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)})


def _sorted(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    return table.sort_by([(key, "ascending") for key in keys]).combine_chunks()


def _indices(values: pa.Array | pa.ChunkedArray, vocabulary: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    found = pc.index_in(values, value_set=vocabulary)
    if found.null_count:
        missing = values.filter(pc.is_null(found))[0].as_py()
        raise ConfigError(f"{missing!r} is named by an alias or a triple and is no entity of the snapshot.")
    return found


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
