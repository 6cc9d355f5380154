"""Names with the entities that bear them, memory-mapped: those of a whole dictionary, or of a change to one."""

from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import marisa_trie
import numpy as np
from numpy.typing import NDArray

from kg.linking.coherence import ranges
from kg.linking.compile import ARRAYS
from kg.linking.fuzzy import FuzzyIndex
from kg.linking.names import MAX_NAME, Flag, case_allows, spelling


class Entry(NamedTuple):
    """One alias of one entity under a key of the dictionary."""

    entity: int
    prior: float
    fit: float
    """How well the mention's spelling fits the alias, beyond having the same key; 1 when it is written the same."""
    preferred: bool


Bearer: TypeAlias = tuple[int, float, int]
"""Entity, prior and flags (``kg.linking.names.Flag``) of an alias."""


class NameFiles:
    """What ``kg.linking.compile.write_names`` wrote; keys are known by number."""

    def __init__(self, folder: Path, moved: NDArray[np.int32] | None = None) -> None:
        """
        Args:
            moved: what each entity of these files is called now ``[entities then]``; -1 where it is gone.
        """
        self.trie = open_trie(folder / "names.marisa")
        self._offsets, self._entity, self._prior, self._flags, self._written, self._folded = open_arrays(
            folder, *ARRAYS
        )
        self._moved = moved
        self.fuzzy = FuzzyIndex(folder, len(self))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def ends(self, text: str, start: int) -> list[int]:
        """Where the keys that begin at ``start`` end, word boundaries not looked at."""
        return [start + len(key) for key in self.trie.prefixes(text[start : start + MAX_NAME])]

    def find(self, key: str) -> int | None:
        number: int | None = self.trie.get(key)
        return number

    def key(self, number: int) -> str:
        return str(self.trie.restore_key(number))

    def is_borne(self, number: int) -> bool:
        """Whether an entity has a name of this key."""
        return bool(self._offsets[number] < self._offsets[number + 1])

    def entries(self, number: int, surface: str, folded: str) -> list[Entry]:
        """Aliases under a key that the case rules let a mention stand for.

        Args:
            surface: the mention as written.
            folded: its normal form.
        """
        written, normal = spelling(surface), spelling(folded)
        shouted = surface.isupper()
        found = []
        for i in range(int(self._offsets[number]), int(self._offsets[number + 1])):
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
                entity = int(self._entity[i])
                if self._moved is not None:
                    entity = int(self._moved[entity])
                found.append(Entry(entity, float(self._prior[i]), fit, bool(flags & Flag.PREFERRED)))
        return found

    def bearers(self, number: int) -> list[Bearer]:
        """Of each alias under a key."""
        rows = slice(int(self._offsets[number]), int(self._offsets[number + 1]))
        entities = self._entity[rows] if self._moved is None else self._moved[self._entity[rows]]
        return list(zip(entities.tolist(), self._prior[rows].tolist(), self._flags[rows].tolist(), strict=True))

    def bearers_of(self, numbers: NDArray[np.int64]) -> list[list[Bearer]]:
        """Of each of many keys; faster than one by one."""
        firsts = self._offsets[numbers].astype(np.int64)
        counts = self._offsets[numbers + 1] - firsts
        at = ranges(firsts, counts)
        entities = self._entity[at] if self._moved is None else self._moved[self._entity[at]]
        rows = zip(entities.tolist(), self._prior[at].tolist(), self._flags[at].tolist(), strict=True)
        return [list(islice(rows, count)) for count in counts.tolist()]


def open_arrays(folder: Path, *names: str) -> list[NDArray[Any]]:
    return [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray) for name in names]


def open_trie(file: Path) -> Any:
    trie = marisa_trie.Trie()
    trie.mmap(str(file))
    return trie
