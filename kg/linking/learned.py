"""What texts with gold links have taught of names: which entities they denoted, and how often they were mentions."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import marisa_trie
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kg.linking.dictionary import Dictionary
from kg.linking.fuzzy import FuzzyIndex, build_fuzzy
from kg.linking.names import MAX_NAME

LINKS = pa.schema([("key", pa.string()), ("entity", pa.string()), ("count", pa.int32())])
SPANS = pa.schema([("key", pa.string()), ("mentions", pa.int32()), ("others", pa.int32())])

_DIGIT = re.compile("[0-9]")


class LearnedNames:
    """Counts by key (``kg.linking.tokens``); of entities that the dictionary still has."""

    def __init__(self, folder: Path, dictionary: Dictionary, *, keep: object = None) -> None:
        self._keep = keep
        self._links: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self.entity_counts = np.zeros(dictionary.num_entities, np.float32)
        """How often each entity was denoted ``[num_entities]``."""
        index: dict[str, int | None] = {}
        table = pq.read_table(folder / "links.parquet", schema=LINKS).to_pydict()
        for key, entity_id, count in zip(table["key"], table["entity"], table["count"], strict=True):
            if entity_id not in index:
                index[entity_id] = dictionary.index_of(entity_id)
            entity = index[entity_id]
            if entity is not None:
                self._links[key][entity] = count
                self.entity_counts[entity] += count
        self._shapes: Counter[str] = Counter()
        for entity_id, count in zip(table["entity"], table["count"], strict=True):
            self._shapes[_shape(entity_id)] += count
        self._num_links = sum(table["count"])
        spans = pq.read_table(folder / "spans.parquet", schema=SPANS).to_pydict()
        counts = zip(spans["mentions"], spans["others"], strict=True)
        self._spans: dict[str, tuple[int, int]] = dict(zip(spans["key"], counts, strict=True))
        self._keys: list[str] = sorted(set(table["key"]))
        self.fuzzy = FuzzyIndex(folder, len(self._keys))
        self._trie: Any = marisa_trie.Trie(key for key in self._links if len(key) <= MAX_NAME)

    def links(self, key: str) -> Mapping[int, int]:
        """How often mentions with this key denoted each entity."""
        return self._links.get(key, {})

    def vocabulary_share(self, entity_id: str) -> float:
        """Log of the share of links to ids of this shape, ``omim:000000`` or ``mesh:D000000``: those who made the gold
        links used some vocabularies and not others."""
        return math.log((self._shapes[_shape(entity_id)] + 1) / (self._num_links + 10))

    def spans(self, key: str) -> tuple[int, int]:
        """How often a name was a mention, and how often it stood in a text and was none."""
        return self._spans.get(key, (0, 0))

    def key(self, number: int) -> str:
        """A key by its number in ``fuzzy``."""
        return self._keys[number]

    def ends(self, text: str, start: int) -> list[int]:
        """Where the keys that begin at ``start`` end, word boundaries not looked at."""
        return [start + len(key) for key in self._trie.iter_prefixes(text[start : start + MAX_NAME])]


def write_links(folder: Path, links: Mapping[tuple[str, str], int]) -> None:
    """Write how often a key denoted an entity, by key and id, and the index of the keys, for ``LearnedNames``."""
    rows = sorted(links.items())
    columns = {
        "key": [key for (key, _), _ in rows],
        "entity": [entity for (_, entity), _ in rows],
        "count": [count for _, count in rows],
    }
    pq.write_table(pa.table(columns, schema=LINKS), folder / "links.parquet", compression="zstd")
    build_fuzzy(sorted({key for key, _ in links}), folder)


def write_spans(folder: Path, spans: Mapping[str, tuple[int, int]]) -> None:
    """Write how often a key was a mention, and how often it was none, for ``LearnedNames``."""
    counted = sorted(spans.items())
    columns = {
        "key": [key for key, _ in counted],
        "mentions": [mentions for _, (mentions, _) in counted],
        "others": [others for _, (_, others) in counted],
    }
    pq.write_table(pa.table(columns, schema=SPANS), folder / "spans.parquet", compression="zstd")


def _shape(entity_id: str) -> str:
    return _DIGIT.sub("0", entity_id)
