"""A dictionary from an older one and what has changed since, in a fraction of the time that building takes.

The files of names stay; a key whose aliases changed is looked up in ``changes`` alone, with all that bears it now, and
entities are called what they are now. All is as in a dictionary that is built anew, but for two statistics, which stay
those of the older one until a twentieth of the keys has changed: how rare an n-gram is, and which words stand for each
other. In ``changes``:

``names.marisa`` and so on   of the keys that changed; a key without a name is gone
``moved.npy``        what each entity of the older files is called now, -1 where it is gone
``frequency.json``   of words that occur in more or fewer entities now
"""

import json
import os
import re
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kg.errors import InputError
from kg.linking.coherence import surroundings
from kg.linking.compile import (
    Aliases,
    aliases_of,
    save,
    texts_of,
    word_frequency,
    write_entities,
    write_names,
)
from kg.linking.namefiles import NameFiles, open_arrays, open_trie
from kg.snapshot import Snapshot, file_sha256

FORMAT = 4  # to be raised with every change of the files of a dictionary or of the rules behind them
MAX_SHARE = 0.05
"""Of the keys; with more changes a dictionary is built anew."""
KEPT = re.compile(
    r"names\.marisa|words\.marisa|substitutes\.json|(offsets|entity|prior|flags|written|folded|frequency|gram_\w+)\.npy"
)
"""Files that are the older dictionary's."""


class Changes:
    """The changes of a dictionary, opened."""

    def __init__(self, folder: Path) -> None:
        self.names = NameFiles(folder)
        (self.moved,) = open_arrays(folder, "moved")
        self.frequency: dict[str, int] = json.loads((folder / "frequency.json").read_text(encoding="utf-8"))


def older_dictionary(snapshot: Snapshot) -> Snapshot | None:
    """The newest of the whole earlier versions beside a snapshot ``vN`` that have a dictionary."""
    match = re.fullmatch(r"v(\d+)", snapshot.path.name)
    for number in range(int(match[1]) - 1 if match else 0, 0, -1):
        folder = snapshot.path.with_name(f"v{number}")
        if (folder / "dictionary" / "manifest.json").is_file():
            with suppress(InputError):
                older = Snapshot.load(folder)
                if is_complete(folder / "dictionary", older.hash):
                    return older
    return None


def compile_changes(snapshot: Snapshot, older: Snapshot, folder: Path) -> bool:
    """Write the files of ``snapshot`` into the existing, empty ``folder``; False where too much has changed."""
    source = older.path / "dictionary"
    before = Changes(source / "changes") if (source / "changes").is_dir() else None
    base = NameFiles(source)
    moved = pc.fill_null(pc.index_in(older.entities["id"], value_set=snapshot.entities["id"].combine_chunks()), -1)
    moved = moved.to_numpy().astype(np.int32)
    gone, new = _changed_rows(older.aliases, snapshot.aliases, moved)
    if len(gone) + len(new) > 2 * MAX_SHARE * len(base):
        return False
    lost, gained = aliases_of(older, gone), aliases_of(snapshot, new)
    keys = {*lost.keys, *gained.keys, *(before.names.trie if before else ())}
    if len(keys) > MAX_SHARE * len(base):
        return False
    (folder / "changes").mkdir()
    write_names(_borne(snapshot, keys, moved, base, before, gained), folder / "changes", idf=base.fuzzy.idf)
    chained = moved if before is None else np.where(before.moved >= 0, moved[before.moved], -1).astype(np.int32)
    save(folder / "changes", {"moved": chained})
    frequency = _frequency_now(snapshot, older, moved, source, before)
    (folder / "changes" / "frequency.json").write_text(json.dumps(frequency, sort_keys=True), encoding="utf-8")
    for file in source.iterdir():
        if KEPT.fullmatch(file.name):
            _share(file, folder / file.name)
    write_entities(snapshot, folder)
    if np.array_equal(older.triples, snapshot.triples) and np.array_equal(moved, np.arange(snapshot.num_entities)):
        for name in ("near_offsets", "near_entities", "near_weights", "degree"):
            _share(source / f"{name}.npy", folder / f"{name}.npy")
    else:
        save(folder, surroundings(snapshot.triples, snapshot.num_entities))
    return True


def _changed_rows(
    older: pa.Table, newer: pa.Table, moved: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the older aliases that are not among the newer ones, and the other way round."""
    texts = pa.chunked_array([*older["alias"].chunks, *newer["alias"].chunks]).combine_chunks().dictionary_encode()
    kinds = pa.chunked_array([*older["kind"].chunks, *newer["kind"].chunks]).combine_chunks().dictionary_encode()
    entities = np.concatenate([moved[older["entity"].to_numpy()], newer["entity"].to_numpy()])
    priors = np.concatenate([older["prior"].to_numpy(), newer["prior"].to_numpy()]).view(np.uint32)
    rows = np.zeros(len(entities), [("text", np.int32), ("entity", np.int32), ("prior", np.uint32), ("kind", np.int32)])
    rows["text"], rows["entity"], rows["prior"] = texts.indices.to_numpy(), entities, priors
    rows["kind"] = kinds.indices.to_numpy()
    packed = (rows["text"].astype(np.uint64) << np.uint64(32)) | rows["entity"].astype(np.uint32).astype(np.uint64)
    packed ^= (rows["prior"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) + rows["kind"].astype(np.uint64)
    then, now = packed[: len(older)], packed[len(older) :]
    return _not_in(then, now), _not_in(now, then)


def _not_in(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Places of the values that are not among others; ``numpy.isin`` takes five times as long."""
    if not len(others):
        return np.arange(len(some))
    others = np.sort(others)
    return np.flatnonzero(others[np.minimum(np.searchsorted(others, some), len(others) - 1)] != some)


def _borne(
    snapshot: Snapshot,
    keys: set[str],
    moved: NDArray[np.int32],
    base: NameFiles,
    before: Changes | None,
    gained: Aliases,
) -> Aliases:
    """All names that have one of the keys now; entity -1 for a key that none has."""
    entities = set(gained.columns["entity"].tolist())
    for key in keys:
        names = before.names if before and before.names.find(key) is not None else base
        number = names.find(key)
        if number is not None:
            then = (entity for entity, _, _ in names.bearers(number))
            if names is base and before is not None:
                then = (int(before.moved[entity]) for entity in then)
            entities.update(int(moved[entity]) for entity in then if entity >= 0)
    rows = np.flatnonzero(np.isin(snapshot.aliases["entity"].to_numpy(), list(entities)))
    found = aliases_of(snapshot, rows)
    wanted = np.array([key in keys for key in found.keys], bool)
    kept = [key for key in found.keys if key in keys]
    none = sorted(keys - set(kept))
    columns = {
        name: np.concatenate([column[wanted], np.full(len(none), -1 if name == "entity" else 0, column.dtype)])
        for name, column in found.columns.items()
    }
    return Aliases([*kept, *none], columns)


def _frequency_now(
    snapshot: Snapshot, older: Snapshot, moved: NDArray[np.int32], source: Path, before: Changes | None
) -> dict[str, int]:
    """How many entities have a word, of words for which that is not what the older files say."""
    stays = moved >= 0
    then = older.entities.filter(pa.array(stays))
    now = snapshot.entities.take(pa.array(moved[stays]))
    differs = np.zeros(len(then), bool)
    for column in ("name", "definition"):
        one, other = pc.fill_null(then[column], ""), pc.fill_null(now[column], "")
        differs |= pc.not_equal(one, other).to_numpy()
    new = np.ones(snapshot.num_entities, bool)
    new[moved[stays]] = False
    lost = [*texts_of(older.entities.filter(pa.array(~stays))), *texts_of(then.filter(pa.array(differs)))]
    gained = [*texts_of(snapshot.entities.filter(pa.array(new))), *texts_of(now.filter(pa.array(differs)))]
    change: Counter[str] = word_frequency(gained)
    change.subtract(word_frequency(lost))
    words = open_trie(source / "words.marisa")
    (counts,) = open_arrays(source, "frequency")
    frequency: dict[str, int] = dict(before.frequency) if before else {}
    for word, by in change.items():
        if by:
            number = words.get(word)
            known = frequency.get(word, 0 if number is None else int(counts[number]))
            frequency[word] = known + by
    return frequency


def _share(file: Path, target: Path) -> None:
    """Have a file in a second place, as the same bytes on disk where that can be."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def write_manifest(folder: Path, snapshot_hash: str) -> None:
    files = {str(file.relative_to(folder)): file_sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    manifest = {"format": FORMAT, "snapshot": snapshot_hash, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def is_complete(folder: Path, snapshot_hash: str) -> bool:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if (manifest["format"], manifest["snapshot"]) != (FORMAT, snapshot_hash):
            return False
        return all(file_sha256(folder / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
