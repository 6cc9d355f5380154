"""All names of a snapshot, compiled (``kg.linking.compile``) and memory-mapped.

The files are in ``<snapshot>/dictionary``. Where little has changed since an older snapshot beside this one, they are
that one's and what changed, in ``changes`` (``kg.linking.changes``). Everything is derived: where it is absent, damaged
or of another snapshot, it is built anew.
"""

import json
import logging
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kg.aside import folder_aside
from kg.errors import ConfigError
from kg.linking.changes import Changes, compile_changes, is_complete, older_dictionary, write_manifest
from kg.linking.coherence import ranges
from kg.linking.compile import compile_dictionary
from kg.linking.namefiles import Bearer, Entry, NameFiles, open_arrays, open_trie
from kg.snapshot import Snapshot

log = logging.getLogger(__name__)


class Dictionary:
    """Names of one snapshot; safe to share between threads and, through the page cache, between processes."""

    def __init__(self, folder: Path, *, keep: object = None) -> None:
        self.folder, self._keep = folder, keep
        changes = Changes(folder / "changes") if (folder / "changes").is_dir() else None
        self._changes = changes
        self._names = NameFiles(folder, changes.moved if changes else None)
        self.ends = self._names.ends if changes is None else self._ends_of_both
        self._words = open_trie(folder / "words.marisa")
        self._frequency, self.degree, self._aliased = open_arrays(folder, "frequency", "degree", "aliased")
        self._near = open_arrays(folder, "near_offsets", "near_entities", "near_weights")
        self.substitutes: dict[str, list[tuple[str, float]]] = json.loads(
            (folder / "substitutes.json").read_text(encoding="utf-8")
        )
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
        if is_complete(folder, snapshot.hash):
            return cls(folder)
        with ExitStack() as stack:
            try:
                aside = stack.enter_context(folder_aside(snapshot.path, "dictionary"))
            except ConfigError:
                log.warning("%s cannot be written; the name dictionary goes to a temporary folder", snapshot.path)
                temporary = tempfile.TemporaryDirectory(prefix="kgfuse-dictionary-")
                _build(snapshot, Path(temporary.name))
                return cls(Path(temporary.name), keep=temporary)
            _build(snapshot, aside)
            aside.chmod(0o755)
            try:
                if not is_complete(folder, snapshot.hash):  # or another process was first, with the same bytes
                    shutil.rmtree(folder, ignore_errors=True)
                    aside.rename(folder)
            except OSError:
                if not is_complete(folder, snapshot.hash):
                    raise
        return cls(folder)

    def _ends_of_both(self, text: str, start: int) -> list[int]:
        assert self._changes is not None
        ends, more = self._names.ends(text, start), self._changes.names.ends(text, start)
        return sorted({*ends, *more}) if more else ends

    def is_name(self, key: str) -> bool:
        found = self._of(key)
        return found is not None and found[0].is_borne(found[1])

    def entries(self, key: str, surface: str, folded: str) -> list[Entry]:
        """Aliases under ``key`` that the case rules let a mention stand for.

        Args:
            surface: the mention as written.
            folded: its normal form.
        """
        found = self._of(key)
        return found[0].entries(found[1], surface, folded) if found else []

    def bearers(self, key: str) -> list[Bearer]:
        """Entity, prior and flags of each alias under ``key``."""
        found = self._of(key)
        return found[0].bearers(found[1]) if found else []

    def similar(self, key: str, limit: int, least: float) -> Iterable[tuple[int, list[Bearer], float]]:
        """Numbers of the keys that are spelt most like ``key``, best first; their bearers, and how like each is."""
        names = self._names
        numbers, scores = names.fuzzy.search(key, limit, least)
        if self._changes is None:
            return zip(numbers.tolist(), names.bearers_of(numbers), scores.tolist(), strict=True)
        changed = self._changes.names
        found = [
            (-score, self.key(number), number) for number, score in zip(numbers.tolist(), scores.tolist(), strict=True)
        ]
        found = [row for row in found if changed.find(row[1]) is None]
        numbers, scores = changed.fuzzy.search(key, limit, least)
        numbers += len(names)
        found += [
            (-score, self.key(number), number) for number, score in zip(numbers.tolist(), scores.tolist(), strict=True)
        ]
        return [(number, self.bearers(name), -score) for score, name, number in sorted(found)[:limit]]

    def key(self, number: int) -> str:
        """A key by the number that ``similar`` gave."""
        names = self._names
        if self._changes is not None and number >= len(names):
            return self._changes.names.key(number - len(names))
        return names.key(number)

    def likeness(self, key: str, other: str) -> float:
        """How alike two keys are spelt, in [0, 1]."""
        return self._names.fuzzy.likeness(key, other)

    def _of(self, key: str) -> tuple[NameFiles, int] | None:
        if self._changes is not None:
            number = self._changes.names.find(key)
            if number is not None:
                return self._changes.names, number
        number = self._names.find(key)
        return None if number is None else (self._names, number)

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
        place = bisect_left(range(self.num_entities), entity_id, key=self.entity_id)
        return place if place < self.num_entities and self.entity_id(place) == entity_id else None

    def surroundings(
        self, entities: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
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
        others = self._aliased[near] & (near != entity)
        near, weights = near[others], weights[others]
        found: list[int] = near[np.lexsort((near, -weights))[:limit]].tolist()
        return found

    def word_frequency(self, word: str) -> int:
        """In how many entities' names and definitions a word occurs; 1 stands for unseen words too."""
        if self._changes is not None and word in self._changes.frequency:
            return max(self._changes.frequency[word], 1)
        number = self._words.get(word)
        return 1 if number is None else int(self._frequency[number])


def _build(snapshot: Snapshot, folder: Path) -> None:
    older = older_dictionary(snapshot)
    if older is None or not compile_changes(snapshot, older, folder):
        compile_dictionary(snapshot, folder)
    write_manifest(folder, snapshot.hash)
