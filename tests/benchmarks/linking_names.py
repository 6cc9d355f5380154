"""The names and texts that linkers are timed with: MeSH, more names made of its pieces, abstracts of BC5CDR."""

import gzip
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from kg.columns import ENTITY_COLUMNS, aliases_with_priors
from kg.normalise import normalise_name
from kg.snapshot import write_snapshot

TREES = ("C", "D", "F03")
"""Of MeSH's descriptors: diseases, chemicals and mental disorders. Supplementary records are of these kinds anyway."""
KINDS = {"P": "pref", "S": "syn"}
SEED = 1
PART = 250_000
"""Names that get their priors at a time: rows of Python take 20 times the memory of columns."""
ALIASES = pa.schema(
    [("alias", pa.string()), ("entity", pa.string()), ("kind", pa.string()), ("language", pa.string())]
).append(pa.field("prior", pa.float32()))
Name: TypeAlias = tuple[str, str, str]
"""Entity, name, kind."""


def mesh_names(kb: Path) -> list[Name]:
    """Those of descriptors, then those of supplementary records; the preferred name of an entity is its first one."""
    with (kb / "mesh_descriptors/tree_numbers.tsv").open() as lines:
        chosen = {descriptor for tree, descriptor in _rows(lines) if tree.startswith(TREES)}
    with (kb / "mesh_descriptors/names.tsv").open(encoding="utf-8") as lines:
        names = [(f"mesh:{entity}", name, KINDS[kind]) for entity, name, kind in _rows(lines) if entity in chosen]
    with gzip.open(kb / "mesh_supplementary/names.tsv.gz", "rt", encoding="utf-8") as lines:
        return names + [(f"mesh:{entity}", name, KINDS[kind]) for entity, name, kind in _rows(lines)]


def made_up(names: Sequence[Name]) -> Iterator[str]:
    """Names without end: the first half of one and the second half of another, cut between words where there are."""
    heads, tails = [], []
    for _, name, _ in names:
        cut = max(name.find(" ", len(name) // 2), name.find("-", len(name) // 2)) + 1 or len(name) // 2
        heads.append(name[:cut])
        tails.append(name[cut:])
    rng = random.Random(SEED)
    while True:
        for head, tail in zip(rng.choices(heads, k=PART), rng.choices(tails, k=PART), strict=True):
            if len(head) + len(tail) > 2:
                yield (head + tail).strip()


def write_names(folder: Path, kb: Path, number: int) -> int:
    """``names.tsv`` with so many names, those of MeSH first, and ``edges.tsv``, MeSH's hierarchy; how many are real."""
    folder.mkdir(parents=True)
    names = mesh_names(kb)
    # Two names an entity, as in MeSH.
    more = ((f"made:{i // 2}", name, "syn" if i % 2 else "pref") for i, name in enumerate(made_up(names)))
    with (folder / "names.tsv").open("w", encoding="utf-8") as out:
        out.writelines("\t".join(row) + "\n" for row in islice(chain(names, more), number))
    with (
        (kb / "mesh_descriptors/edges.tsv").open() as tree,
        gzip.open(kb / "mesh_supplementary/edges.tsv.gz", "rt") as mapped,
        (folder / "edges.tsv").open("w") as out,
    ):
        for head, tail, relation in chain(_rows(tree), _rows(mapped)):
            out.write(f"mesh:{head}\t{relation.upper()}\tmesh:{tail}\n")
    return min(number, len(names))


def change_names(folder: Path, target: Path, number: int) -> list[tuple[str, str]]:
    """``folder`` again with so many synonyms replaced, evenly spread; (entity, new name) of each."""
    target.mkdir(parents=True)
    (target / "edges.tsv").symlink_to(folder / "edges.tsv")
    with (folder / "names.tsv").open(encoding="utf-8") as lines:
        rows = list(_rows(lines))
    synonyms = [row for row, (_, _, kind) in enumerate(rows) if kind == "syn"]
    new = made_up([(entity, name, kind) for entity, name, kind in rows])
    changed = []
    for row in synonyms[:: max(len(synonyms) // number, 1)][:number]:
        entity, _, kind = rows[row]
        rows[row] = [entity, f"{next(new)} reloaded", kind]
        changed.append((entity, rows[row][1]))
    with (target / "names.tsv").open("w", encoding="utf-8") as out:
        out.writelines("\t".join(row) + "\n" for row in rows)
    return changed


def write_names_snapshot(source: Path, folder: Path) -> None:
    """A snapshot of ``names.tsv`` and ``edges.tsv``; memory beyond their columns does not grow with their number."""
    names = _columns(source / "names.tsv", ["entity", "alias", "kind"])
    names = names.append_column("language", pa.repeat("en", len(names)))
    parts = len(names) // PART + 1
    # Names of one normal form share their prior, so they are of one part.
    strings = (name for chunk in names["alias"].chunks for name in chunk.to_pylist())
    part = pa.array(np.fromiter((zlib.crc32(normalise_name(name).encode()) % parts for name in strings), np.uint32))
    aliases = pa.concat_tables(
        pa.Table.from_pylist(aliases_with_priors(names.filter(pc.equal(part, number)).to_pylist()), ALIASES)
        for number in range(parts)
    )
    preferred = names.filter(pc.equal(names["kind"], "pref")).group_by("entity", use_threads=False)
    entities = preferred.aggregate([("alias", "first")]).rename_columns(["id", "name"])
    types = pa.ListArray.from_arrays(np.arange(len(entities) + 1, dtype=np.int32), pa.repeat("Concept", len(entities)))
    entities = entities.append_column("definition", pa.nulls(len(entities), pa.string())).append_column("types", types)
    edges = _columns(source / "edges.tsv", ["head", "relation", "tail"])
    known = entities["id"].combine_chunks()
    edges = edges.filter(pc.and_(*(pc.is_in(edges[end], value_set=known) for end in ("head", "tail"))))
    write_snapshot(
        folder,
        entities=entities.select(ENTITY_COLUMNS.names),
        aliases=aliases,
        triples=edges,
        sources=[{"id": "mesh"}],
    )


def write_texts(folder: Path, corpus: Path, names: Path) -> None:
    """``train.jsonl`` and ``test.jsonl``; ``unseen.jsonl``: mentions of the test part that are none of ``names``."""
    folder.mkdir(parents=True)
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    with corpus.open(encoding="utf-8") as lines:
        for doc in map(json.loads, lines):
            parts[doc["split"]].append(doc)
    with names.open(encoding="utf-8") as lines:
        known = {name.lower() for _, name, _ in _rows(lines)}
    unseen: dict[str, set[str]] = {}
    for doc in parts["test"]:
        for mention in doc["mentions"]:
            if mention["text"].lower() not in known and mention["ids"]:
                unseen.setdefault(mention["text"], set()).update(f"mesh:{entity}" for entity in mention["ids"])
    for name in ("train", "test"):
        docs = [{"text": doc["text"], "mentions": [m["text"] for m in doc["mentions"]]} for doc in parts[name]]
        _write_lines(folder / f"{name}.jsonl", docs)
    _write_lines(folder / "unseen.jsonl", [{"text": text, "gold": sorted(gold)} for text, gold in unseen.items()])


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    return (line.rstrip("\n").split("\t") for line in lines)


def _columns(file: Path, names: Sequence[str]) -> pa.Table:
    return csv.read_csv(
        file,
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _write_lines(file: Path, rows: Sequence[Any]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
