"""All names of a snapshot, compiled: a trie from normalised name to the entities that bear it, memory-mapped.

Files in ``<snapshot>/dictionary``:

``names.marisa``      normalised names and their variants; gives each a key
``row.npy``           row of each key, ``~row`` for a variant
``offsets.npy``       first alias of each row; the rest is by alias:
``entity.npy``, ``prior.npy``, ``flags.npy``, ``surface.npy`` (CRC-32 of the alias as written)
``words.marisa``, ``frequency.npy``   in how many entities' texts a word occurs, for the context score

Everything is derived: where it is absent, damaged or of another snapshot, it is built anew.
"""

import json
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import marisa_trie
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from kg.linking.names import (
    MAX_NAME,
    Flag,
    case_allows,
    context_words,
    flags_of,
    is_nameable,
    surface_hash,
    variants,
)
from kg.normalise import normalise_name
from kg.snapshot import Snapshot, file_sha256

FORMAT = 1  # to be raised with every change of these files or of the rules in kg.linking.names
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One alias of one entity under a key of the dictionary."""

    entity: int
    prior: float
    flags: Flag
    surface: int
    """CRC-32 of the alias as written."""
    variant: bool
    """Reached through a plural or possessive of the alias, not the alias itself."""


class Dictionary:
    """Names of one snapshot; safe to share between threads and, through the page cache, between processes."""

    def __init__(self, folder: Path, *, keep: object = None) -> None:
        self.folder, self._keep = folder, keep
        self._names = _open_trie(folder / "names.marisa")
        self._words = _open_trie(folder / "words.marisa")
        self._row, self._offsets, self._entity, self._prior, self._flags, self._surface, self._frequency = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray) for name in ARRAYS
        )

    @classmethod
    def open(cls, snapshot: Snapshot) -> "Dictionary":
        """The dictionary of ``snapshot``, built when there is none.

        It lives in the snapshot's folder, or in a temporary one where that cannot be written.
        """
        folder = snapshot.path / "dictionary"
        if _is_complete(folder, snapshot):
            return cls(folder)
        try:
            aside = Path(tempfile.mkdtemp(prefix=".dictionary-", dir=snapshot.path))
        except OSError as error:
            log.warning("%s: %s; the name dictionary goes to a temporary folder", snapshot.path, error.strerror)
            temporary = tempfile.TemporaryDirectory(prefix="kgfuse-dictionary-")
            build_dictionary(snapshot, Path(temporary.name))
            return cls(Path(temporary.name), keep=temporary)
        try:
            build_dictionary(snapshot, aside)
            aside.chmod(0o755)
            try:
                if not _is_complete(folder, snapshot):  # or another process was first, with the same bytes
                    shutil.rmtree(folder, ignore_errors=True)
                    aside.rename(folder)
            except OSError:
                if not _is_complete(folder, snapshot):
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return cls(folder)

    def __len__(self) -> int:
        return len(self._row)

    def prefixes(self, text: str, start: int) -> list[tuple[int, int]]:
        """Keys that ``text`` has at ``start``: (end, key), token boundaries not looked at."""
        found = self._names.iter_prefixes_with_ids(text[start : start + MAX_NAME])
        return [(start + len(name), key) for name, key in found]

    def find(self, name: str) -> int | None:
        """Key of a normalised name."""
        key: int | None = self._names.get(name)
        return key

    def entries(self, key: int, surface: str) -> list[Entry]:
        """Aliases under ``key`` that the case rules let ``surface``, the mention as written, stand for."""
        row = int(self._row[key])
        variant, row = (True, ~row) if row < 0 else (False, row)
        found = []
        for i in range(int(self._offsets[row]), int(self._offsets[row + 1])):
            flags, crc = Flag(int(self._flags[i])), int(self._surface[i])
            if case_allows(flags, crc, surface, variant):
                found.append(Entry(int(self._entity[i]), float(self._prior[i]), flags, crc, variant))
        return found

    def word_frequency(self, word: str) -> int:
        """In how many entities' names and definitions a normalised word occurs; 1 stands for unseen words too."""
        key = self._words.get(word)
        return 1 if key is None else int(self._frequency[key])


ARRAYS = ("row", "offsets", "entity", "prior", "flags", "surface", "frequency")


def build_dictionary(snapshot: Snapshot, folder: Path) -> None:
    """Compile the aliases of ``snapshot`` into the existing, empty ``folder``; about 6 s per million aliases."""
    table = snapshot.aliases
    keys: list[str] = []
    kept: list[int] = []
    flags: list[int] = []
    surfaces: list[int] = []
    varied: dict[str, str] = {}
    for row, alias in enumerate(_progress(table["alias"].to_pylist(), "Names")):
        key = normalise_name(alias)
        flag = flags_of(alias)
        if not is_nameable(key, flag):
            continue
        kept.append(row)
        keys.append(key)
        flags.append(flag)
        surfaces.append(surface_hash(alias))
        for variant in variants(key):
            varied.setdefault(variant, key)
    bases = set(keys)
    varied = {variant: key for variant, key in varied.items() if variant not in bases and len(variant) <= MAX_NAME}
    trie = marisa_trie.Trie(bases | varied.keys())
    _write_arrays(folder, _compressed_rows(trie, keys, varied, table, kept, flags, surfaces))
    trie.save(str(folder / "names.marisa"))
    frequency = _word_frequency(snapshot)
    word_trie = marisa_trie.Trie(frequency)
    counts = np.zeros(len(word_trie), np.int32)
    for word, count in frequency.items():
        counts[word_trie[word]] = count
    _write_arrays(folder, {"frequency": counts})
    word_trie.save(str(folder / "words.marisa"))
    manifest = {
        "format": FORMAT,
        "snapshot": snapshot.hash,
        "files": {file.name: file_sha256(file) for file in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _compressed_rows(
    trie: Any,
    keys: Sequence[str],
    varied: dict[str, str],
    table: Any,
    kept: Sequence[int],
    flags: Sequence[int],
    surfaces: Sequence[int],
) -> dict[str, NDArray[Any]]:
    key_ids = np.fromiter((trie[key] for key in keys), np.int64, len(keys))
    entity, prior = (table[name].to_numpy()[kept] for name in ("entity", "prior"))
    named, counts = np.unique(key_ids, return_counts=True)  # ids of the keys that are names themselves, one a row
    row = np.zeros(len(trie), np.int32)
    row[named] = np.arange(len(named))
    for variant, key in varied.items():
        row[trie[variant]] = ~row[trie[key]]
    order = np.lexsort((entity, key_ids))
    return {
        "row": row,
        "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32),
        "entity": entity[order].astype(np.int32),
        "prior": prior[order].astype(np.float32),
        "flags": np.array(flags, np.uint8)[order],
        "surface": np.array(surfaces, np.uint32)[order],
    }


def _word_frequency(snapshot: Snapshot) -> Counter[str]:
    """Words by the number of entities that have them in name or definition; those of a single entity are left out."""
    counts: Counter[str] = Counter()
    texts = zip(snapshot.names, snapshot.entities["definition"].to_pylist(), strict=True)
    for name, definition in _progress(list(texts), "Words"):
        counts.update(context_words(name) | context_words(definition))
    return Counter({word: count for word, count in counts.items() if count > 1})


def _is_complete(folder: Path, snapshot: Snapshot) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if (manifest["format"], manifest["snapshot"]) != (FORMAT, snapshot.hash):
            return False
        return all(file_sha256(folder / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_arrays(folder: Path, arrays: dict[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _open_trie(file: Path) -> Any:
    trie = marisa_trie.Trie()
    trie.mmap(str(file))
    return trie


def _progress(items: Sequence[T], what: str) -> Iterable[T]:
    slow = len(items) > 200_000 and sys.stderr.isatty()
    return track(items, f"{what} of the dictionary", console=Console(stderr=True), transient=True) if slow else items
