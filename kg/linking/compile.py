"""The files of a dictionary, written from a snapshot.

``names.marisa``      keys of all names (``kg.linking.tokens``); gives each its number
``offsets.npy``       first alias of each key; by alias: ``entity``, ``prior``, ``flags``, ``written`` (how it is
                      spelt, 16 bits) and ``folded`` (the same of its normal form)
``gram_*.npy``        spelling index over the keys (``kg.linking.fuzzy``)
``substitutes.json``  words that stand for each other in names of one entity: ``renal``, ``kidney``
``entities.arrow``    id, name, definition of each entity
``near_*.npy``        what surrounds each entity in the graph (``kg.linking.coherence``)
``words.marisa``, ``frequency.npy``   in how many entities' texts a word occurs, for the context score
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import marisa_trie
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from kg.linking.coherence import surroundings
from kg.linking.fuzzy import build_fuzzy
from kg.linking.names import MAX_NAME, Flag, context_words, flags_of, is_nameable, spelling, turned
from kg.linking.tokens import tokens_of
from kg.snapshot import Snapshot

ARRAYS = ("offsets", "entity", "prior", "flags", "written", "folded")
MAX_SUBSTITUTED = 6  # words of a name
MIN_PAIRS = 2
MIN_SHARE = 0.03
MAX_SUBSTITUTES = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Aliases:
    """Names of entities by key; one may have several keys."""

    keys: list[str]
    columns: dict[str, NDArray[Any]]
    """``ARRAYS`` but the offsets, in the order of ``keys``; entity -1 stands for a key that has no name any more."""


def compile_dictionary(snapshot: Snapshot, folder: Path) -> None:
    """Write the files into the existing, empty ``folder``."""
    aliases = aliases_of(snapshot)
    write_names(aliases, folder)
    found = substitutes(aliases.keys, aliases.columns["entity"].tolist())
    (folder / "substitutes.json").write_text(json.dumps(found, sort_keys=True), encoding="utf-8")
    write_entities(snapshot, folder)
    save(folder, surroundings(snapshot.triples, snapshot.num_entities))
    frequency = word_frequency(shown(texts_of(snapshot.entities), "Words"))
    words = marisa_trie.Trie(frequency)
    words.save(str(folder / "words.marisa"))
    counts = np.zeros(len(words), np.int32)
    for word, count in frequency.items():
        counts[words[word]] = count
    save(folder, {"frequency": counts})


def write_names(aliases: Aliases, folder: Path, *, idf: NDArray[np.float32] | None = None) -> None:
    """Write the names of a dictionary, or of a change to one, whose n-grams then weigh what they do in the whole."""
    trie = marisa_trie.Trie(aliases.keys)
    trie.save(str(folder / "names.marisa"))
    numbers = np.fromiter((trie[key] for key in aliases.keys), np.int64, len(aliases.keys))
    real = aliases.columns["entity"] >= 0
    order = np.lexsort((aliases.columns["entity"], numbers))
    order = order[real[order]]
    offsets = np.searchsorted(numbers[order], np.arange(len(trie) + 1)).astype(np.uint32)
    save(folder, {"offsets": offsets, **{name: column[order] for name, column in aliases.columns.items()}})
    named = [""] * len(trie)
    for key, number in zip(aliases.keys, numbers.tolist(), strict=True):
        if offsets[number] < offsets[number + 1]:
            named[number] = key
    build_fuzzy(named, folder, idf=idf)


def write_entities(snapshot: Snapshot, folder: Path) -> None:
    """Write what each entity is called, and whether it has names that text can mention."""
    with pa.OSFile(str(folder / "entities.arrow"), "wb") as sink:
        table = snapshot.entities.select(["id", "name", "definition"]).combine_chunks()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    aliased = np.bincount(snapshot.aliases["entity"].to_numpy(), minlength=snapshot.num_entities) > 0
    save(folder, {"aliased": aliased})


def save(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def aliases_of(snapshot: Snapshot, rows: NDArray[np.int64] | None = None) -> Aliases:
    """The names of a snapshot that can be looked for in text, or those in some rows of its aliases."""
    table = snapshot.aliases if rows is None else snapshot.aliases.take(rows)
    keys: list[str] = []
    found: list[tuple[int, int, int, int]] = []
    kinds = table["kind"].to_pylist()
    for row, alias in enumerate(shown(table["alias"].to_pylist(), "Names")):
        tokens = tokens_of(alias)
        flag = flags_of(alias)
        if not is_nameable(tokens.text, flag):
            continue
        if kinds[row] == "pref":
            flag |= Flag.PREFERRED
        hashes = spelling(alias.strip()), spelling(tokens.normal.text.strip())
        for key, its_flag in (tokens.text, flag), *((key, flag | Flag.TURNED) for key in turned(tokens.text)):
            if len(key) <= MAX_NAME:
                keys.append(key)
                found.append((row, its_flag, *hashes))
    row_of, flags, written, folded = np.array(found, np.int64).reshape(-1, 4).T
    columns = {
        "entity": table["entity"].to_numpy()[row_of].astype(np.int32),
        "prior": table["prior"].to_numpy()[row_of].astype(np.float16),
        "flags": flags.astype(np.uint8),
        "written": written.astype(np.uint16),
        "folded": folded.astype(np.uint16),
    }
    return Aliases(keys, columns)


def substitutes(keys: Sequence[str], entities: Sequence[int]) -> dict[str, list[tuple[str, float]]]:
    """Words that names of one entity exchange, most likely first, with the share of the word's entities that do.

    Names that differ in one word say that the two words can mean the same: ``renal failure``, ``kidney failure``.
    """
    names: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
    for key, entity in zip(keys, entities, strict=True):
        words = tuple(key.split(" "))
        if 2 <= len(words) <= MAX_SUBSTITUTED:
            names[entity].add(words)
    pairs: Counter[tuple[str, str]] = Counter()
    used: Counter[str] = Counter()
    for of_entity in names.values():
        used.update({word for name in of_entity for word in name})
        if len(of_entity) > 1:
            pairs.update(_exchanged(of_entity))
    found: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for (word, other), count in pairs.items():
        if count >= MIN_PAIRS and count / used[word] >= MIN_SHARE:
            found[word].append((other, round(count / used[word], 4)))
    return {word: sorted(others, key=lambda row: (-row[1], row[0]))[:MAX_SUBSTITUTES] for word, others in found.items()}


def _exchanged(names: Iterable[tuple[str, ...]]) -> set[tuple[str, str]]:
    frames: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for name in names:
        for place, word in enumerate(name):
            if word.isalpha() and len(word) > 2:
                frames[(*name[:place], "", *name[place + 1 :])].add(word)
    return {
        (word, other) for words in frames.values() if 1 < len(words) <= 8 for word in words for other in words - {word}
    }


def texts_of(entities: pa.Table) -> list[tuple[str | None, str | None]]:
    """What says something of each entity: its name, or else its id, and its definition."""
    names = pc.coalesce(entities["name"], entities["id"]).to_pylist()
    return list(zip(names, entities["definition"].to_pylist(), strict=True))


def word_frequency(texts: Iterable[tuple[str | None, str | None]]) -> Counter[str]:
    """Words by the number of entities that have them in name or definition."""
    counts: Counter[str] = Counter()
    for name, definition in texts:
        counts.update(context_words(name) | context_words(definition))
    return counts


def shown(items: Sequence[T], what: str) -> Iterator[T]:
    """``items`` with a progress bar where there are many."""
    slow = len(items) > 200_000 and sys.stderr.isatty()
    return iter(
        track(items, f"{what} of the dictionary", console=Console(stderr=True), transient=True) if slow else items
    )
