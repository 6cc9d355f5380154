"""All names of a snapshot, compiled (``kg.linking.compile``) and memory-mapped.

The files are in ``<snapshot>/dictionary``. Everything is derived: where it is absent, damaged or of another snapshot,
it is built anew.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import marisa_trie
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kg.linking.coherence import ranges
from kg.linking.compile import ARRAYS, compile_dictionary
from kg.linking.fuzzy import FuzzyIndex
from kg.linking.names import MAX_NAME, Flag, case_allows, spelling
from kg.snapshot import Snapshot, file_sha256

FORMAT = 3  # to be raised with every change of these files or of the rules behind them
log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One alias of one entity under a key of the dictionary."""

    entity: int
    prior: float
    fit: float
    """How well the mention's spelling fits the alias, beyond having the same key; 1 when it is written the same."""
    preferred: bool


class Dictionary:
    """Names of one snapshot; safe to share between threads and, through the page cache, between processes."""

    def __init__(self, folder: Path, *, keep: object = None) -> None:
        self.folder, self._keep = folder, keep
        self._names = _open_trie(folder / "names.marisa")
        self._words = _open_trie(folder / "words.marisa")
        self._offsets, self._entity, self._prior, self._flags, self._written, self._folded = _arrays(folder, *ARRAYS)
        self._frequency, self.degree, self._named = _arrays(folder, "frequency", "degree", "named")
        self._near = _arrays(folder, "near_offsets", "near_entities", "near_weights")
        self.substitutes: dict[str, list[tuple[str, float]]] = json.loads(
            (folder / "substitutes.json").read_text(encoding="utf-8")
        )
        self.fuzzy = FuzzyIndex(folder)
        table = pa.ipc.open_file(pa.memory_map(str(folder / "entities.arrow"))).read_all().combine_chunks()
        self._ids, self._entity_names, self._definitions = (
            table[name].chunk(0) if table.num_rows else pa.array([], pa.string()) for name in table.column_names
        )
        self.num_entities = table.num_rows

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
            _build(snapshot, Path(temporary.name))
            return cls(Path(temporary.name), keep=temporary)
        try:
            _build(snapshot, aside)
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
        return len(self._offsets) - 1

    def prefixes(self, text: str, start: int) -> list[tuple[int, int]]:
        """Keys that begin at ``start``: (end, number of the key), word boundaries not looked at."""
        found = self._names.iter_prefixes_with_ids(text[start : start + MAX_NAME])
        return [(start + len(name), key) for name, key in found]

    def find(self, name: str) -> int | None:
        """Number of a key."""
        key: int | None = self._names.get(name)
        return key

    def key(self, number: int) -> str:
        return str(self._names.restore_key(number))

    def entries(self, key: int, surface: str, folded: str) -> list[Entry]:
        """Aliases under ``key`` that the case rules let a mention stand for.

        Args:
            surface: the mention as written.
            folded: its normal form.
        """
        written, normal = spelling(surface), spelling(folded)
        shouted = surface.isupper()
        found = []
        for i in range(int(self._offsets[key]), int(self._offsets[key + 1])):
            flags = int(self._flags[i])
            if case_allows(flags, int(self._written[i]), surface):
                if self._written[i] == written:
                    fit = 1.0
                elif self._folded[i] != normal:
                    fit = 0.85 if flags & Flag.TURNED else 0.9
                elif flags & Flag.ALL_CAPS:
                    fit = 0.8  # "aids" for "AIDS"
                else:
                    fit = 0.9 if shouted else 0.95
                found.append(Entry(int(self._entity[i]), float(self._prior[i]), fit, bool(flags & Flag.PREFERRED)))
        return found

    def entities_of(self, key: int) -> list[tuple[int, float, int]]:
        """Entity, prior and flags of each alias under ``key``."""
        rows = slice(int(self._offsets[key]), int(self._offsets[key + 1]))
        return list(
            zip(self._entity[rows].tolist(), self._prior[rows].tolist(), self._flags[rows].tolist(), strict=True)
        )

    def entity_id(self, entity: int) -> str:
        return str(self._ids[entity].as_py())

    def entity_name(self, entity: int) -> str:
        """The preferred name; the id stands in where an entity has none."""
        return str(self._entity_names[entity].as_py() or self._ids[entity].as_py())

    def definition(self, entity: int) -> str | None:
        found: str | None = self._definitions[entity].as_py()
        return found

    def index_of(self, entity_id: str) -> int | None:
        """Entity by id; ids are sorted."""
        low, high = 0, self.num_entities
        while low < high:
            middle = (low + high) // 2
            if self.entity_id(middle) < entity_id:
                low = middle + 1
            else:
                high = middle
        return low if low < self.num_entities and self.entity_id(low) == entity_id else None

    def surroundings(self, entities: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float32]]:
        """What surrounds each entity (``kg.linking.coherence``): how many, which, and their weights, on end."""
        offsets, near, weights = self._near
        firsts = offsets[entities].astype(np.int64)
        counts = offsets[entities + 1] - firsts
        at = ranges(firsts, counts)
        scaled: NDArray[np.float32] = weights[at].astype(np.float32) / np.float32(255)
        return counts, near[at], scaled

    def nearest(self, entity: int, limit: int) -> list[int]:
        """Entities with names that are nearest to one in the graph, the nearest first."""
        _, near, weights = self.surroundings(np.array([entity]))
        others = self._named[near] & (near != entity)
        near, weights = near[others], weights[others]
        found: list[int] = near[np.lexsort((near, -weights))[:limit]].tolist()
        return found

    def word_frequency(self, word: str) -> int:
        """In how many entities' names and definitions a normalised word occurs; 1 stands for unseen words too."""
        key = self._words.get(word)
        return 1 if key is None else int(self._frequency[key])


def _build(snapshot: Snapshot, folder: Path) -> None:
    compile_dictionary(snapshot, folder)
    manifest = {
        "format": FORMAT,
        "snapshot": snapshot.hash,
        "files": {file.name: file_sha256(file) for file in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _is_complete(folder: Path, snapshot: Snapshot) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if (manifest["format"], manifest["snapshot"]) != (FORMAT, snapshot.hash):
            return False
        return all(file_sha256(folder / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _arrays(folder: Path, *names: str) -> Sequence[NDArray[Any]]:
    return [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray) for name in names]


def _open_trie(file: Path) -> Any:
    trie = marisa_trie.Trie()
    trie.mmap(str(file))
    return trie
