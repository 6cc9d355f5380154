"""What of the graph must be kept from a model, or it would be told the answers: relations and single edges."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from kg.errors import InputError
from kg.snapshot import Snapshot
from models.examples import Example
from models.graph import Data, triples_of
from models.run import write_json

FILE = "bans.json"
INVERSE_OVERLAP = 0.2
"""A relation that shares this part of the smaller one's pairs with a banned relation says nearly the same."""
LEAST_SHARED = 3
"""Pairs; below it an overlap is chance."""

Pairs: TypeAlias = set[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Bans:
    """Relations and pairs of entities that no model of a comparison may have read."""

    relations: tuple[str, ...]
    pairs: frozenset[tuple[str, str]]
    """Entity ids, either way round; every edge between the two is dropped."""
    audit: tuple[Mapping[str, Any], ...]
    """What was removed: ``relation``, ``why``, ``edges``."""

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, {"relations": self.relations, "pairs": sorted(self.pairs), "audit": list(self.audit)})

    @classmethod
    def load(cls, folder: Path) -> "Bans":
        """Read what ``save`` wrote.

        Raises:
            InputError: it is not there, or it is broken.
        """
        try:
            said = json.loads((folder / FILE).read_text(encoding="utf-8"))
            pairs = frozenset((head, tail) for head, tail in said["pairs"])
            return cls(relations=tuple(said["relations"]), pairs=pairs, audit=tuple(said["audit"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                folder / FILE, f"missing or broken ({error}); train the run anew in another folder"
            ) from error

    def applied(self, graph: Data, snapshot: Snapshot, relations: Sequence[str] | None = None) -> Data:
        """``graph`` without what is banned; ``relations`` are what ``edge_type`` counts in, else the snapshot's."""
        kept = torch.from_numpy(self.kept(triples_of(graph).numpy(), snapshot, relations))
        left = graph.clone()
        left.edge_index, left.edge_type = graph.edge_index[:, kept].contiguous(), graph.edge_type[kept]
        return left

    def kept(
        self, triples: NDArray[np.integer[Any]], snapshot: Snapshot, relations: Sequence[str] | None = None
    ) -> NDArray[np.bool_]:
        """True for the ``triples`` ``[edges, 3]`` that are not banned ``[edges]``."""
        names = snapshot.relations if relations is None else relations
        banned = np.array([name in self.relations for name in names], dtype=bool)
        index = snapshot.index
        known = [(index[head], index[tail]) for head, tail in self.pairs if head in index and tail in index]
        gold = _keys(np.array([*known, *((tail, head) for head, tail in known)], dtype=np.int64).reshape(-1, 2))
        free: NDArray[np.bool_] = ~np.isin(_keys(triples[:, [0, 2]]), gold) & ~banned[triples[:, 1]]
        return free


def find_bans(
    snapshot: Snapshot,
    examples: Iterable[tuple[Example, tuple[str, ...]]],
    *,
    given: Sequence[str] = (),
    label_relations: bool,
    inverses: bool,
    gold_edges: bool,
) -> Bans:
    """Find what would give the labels away, and count what goes with it.

    Args:
        examples: every example of the tasks, test ones too, with the relations that state its label.
        given: relations that the user bans.
        label_relations: ban the relations that labels stand for.
        inverses: ban the relations that share ``INVERSE_OVERLAP`` of the smaller one's pairs with a banned one or with
            the pairs of the examples of its label, in the same direction or the other.
        gold_edges: drop all edges between head and tail of an example.
    """
    gold: dict[str, Pairs] = defaultdict(set)
    index = snapshot.index
    for example, stated in examples:
        if example.pair is None:
            continue
        head, tail = (index.get(mention.entity or "") for mention in example.pair)
        for relation in stated:
            gold[relation].update([] if head is None or tail is None else [(head, tail)])
    asked = set[tuple[int, int]]().union(*gold.values()) if gold_edges else set()
    edges: dict[str, Pairs] = defaultdict(set)
    for head, relation, tail in snapshot.triples.tolist():
        edges[snapshot.relations[relation]].add((head, tail))
    why = dict.fromkeys(given, "named by the recipe")
    if label_relations:
        why |= {relation: "states a label" for relation in gold if relation in snapshot.relations}
    if inverses:
        # a label whose own relation the graph lacks may still have one like it there
        why = {**_alike(edges, [*why, *(gold if label_relations else ())], gold), **why}
    audit = [
        {"relation": relation, "why": reason, "edges": len(edges.get(relation, ()))}
        for relation, reason in sorted(why.items())
    ]
    if asked:
        either_way = asked | {(tail, head) for head, tail in asked}
        dropped = sum(len(either_way & found) for relation, found in edges.items() if relation not in why)
        audit.append({"relation": "any", "why": f"joins one of {len(asked):,} pairs asked about", "edges": dropped})
    pairs = frozenset((snapshot.ids[head], snapshot.ids[tail]) for head, tail in asked)
    return Bans(relations=tuple(sorted(why)), pairs=pairs, audit=tuple(audit))


def _alike(edges: Mapping[str, Pairs], banned: Iterable[str], gold: Mapping[str, Pairs]) -> dict[str, str]:
    """Relations that say nearly what a banned one says, with the reason."""
    found: dict[str, str] = {}
    for relation in banned:
        for stated in (edges.get(relation, set()), gold.get(relation, set())):
            turned = {(tail, head) for head, tail in stated}
            for other, pairs in edges.items():
                for way, compared in (("like", stated), ("the inverse of", turned)):
                    shared = len(pairs & compared)
                    if shared >= LEAST_SHARED and shared >= INVERSE_OVERLAP * min(len(pairs), len(compared)):
                        share = shared / min(len(pairs), len(compared))
                        found.setdefault(other, f"{way} {relation} for {share:.0%} of the pairs")
    return found


def _keys(pairs: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = (pairs[:, 0].astype(np.int64) << 32) + pairs[:, 1]
    return keys
