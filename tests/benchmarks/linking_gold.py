"""The knowledge bases and gold links that linking is judged by, made from the public tables in the data folder."""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kg.columns import aliases_with_priors
from kg.snapshot import Snapshot, write_snapshot
from models.rerank.gold import GoldText

Names: TypeAlias = list[tuple[str, str, str]]
"""Entity, name, P for preferred."""
Edges: TypeAlias = list[tuple[str, str, str]]
"""Head, relation, tail."""
DEVELOPMENT = 6
"""Of MedMentions every so many texts are kept for testing, since only its training part is there."""


@dataclass(frozen=True)
class Task:
    """A data set with its knowledge base."""

    name: str
    snapshot: Snapshot
    train: list[GoldText]
    test: list[GoldText]
    types: dict[tuple[str, int, int], str]
    """Type of each gold mention, by text, start and end."""
    equals: dict[str, str]
    """Ids that stand for the same thing, to one of them."""
    kinds: dict[str, str]
    """What an entity is, in the words of ``types``; empty where that is not asked."""


def bc5cdr(data: Path, folder: Path) -> Task:
    """Chemicals and diseases; MeSH's trees C, D and F03 and all supplementary records."""
    mesh = _Mesh(data, ("C", "D", "F03"))
    names = mesh.descriptors + mesh.supplementary
    snapshot = _written(folder, names, mesh.edges)
    return _task("BC5CDR", snapshot, data / "bc5cdr/docs.jsonl", _mesh_or_omim, kinds=mesh.kinds())


def ncbi(data: Path, folder: Path) -> Task:
    """Diseases; MeSH's trees C and F03, supplementary records of those, and OMIM by the names that MONDO has."""
    mesh = _Mesh(data, ("C", "F03"))
    chosen = {entity for entity, _, _ in mesh.descriptors}
    below = {head for head, relation, tail in mesh.edges if relation == "mapped_to" and tail in chosen}
    names = mesh.descriptors + [row for row in mesh.supplementary if row[0] in below]
    known = chosen | below
    edges = [(head, relation, tail) for head, relation, tail in mesh.edges if head in known and tail in known]
    mondo: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for entity, name, kind, *_ in _rows(data / "kb/mondo/names.tsv"):
        mondo[entity].append((name, kind))
    edges += [(h, "SUBCLASS_OF", t) for h, t, r in _rows(data / "kb/mondo/edges.tsv") if r == "is_a"]
    same: dict[str, list[str]] = defaultdict(list)
    for entity, vocabulary, code, *_ in _rows(data / "kb/mondo/xrefs.tsv"):
        id = {"OMIM": f"omim:{code}", "MESH": f"mesh:{code}"}.get(vocabulary)
        if vocabulary == "OMIM":
            names += [(f"omim:{code}", name, kind) for name, kind in mondo[entity]]
        if id is not None and (vocabulary == "OMIM" or id in known):
            edges.append((id, "SAME_AS", entity))
            same[entity].append(id)
    equals = {}
    for ids in same.values():
        equals.update(dict.fromkeys(ids, min(ids)))
        edges += [(one, "SAME_AS", other) for one in ids for other in ids if one < other]
    snapshot = _written(folder, list(dict.fromkeys(names)), edges)
    return _task("NCBI-disease", snapshot, data / "ncbi_disease/docs.jsonl", _mesh_or_omim, equals=equals)


def medmentions(data: Path, folder: Path) -> Task:
    """Concepts of the UMLS, as far as open vocabularies name them; MONDO's hierarchy."""
    names = [(f"umls:{entity}", name, kind) for entity, name, kind, *_ in _rows(data / "kb/umls_xref_open/names.tsv")]
    edges = [(h, "SUBCLASS_OF", t) for h, t, r in _rows(data / "kb/mondo/edges.tsv") if r == "is_a"]
    xrefs = _rows(data / "kb/mondo/xrefs.tsv")
    edges += [(f"umls:{code}", "SAME_AS", entity) for entity, vocabulary, code, *_ in xrefs if vocabulary == "UMLS"]
    known = {entity for entity, _, _ in names}
    file = data / "medmentions_st21pv/docs_train.jsonl.gz"
    asked = {f"umls:{id}" for row in _lines(file) for mention in row["mentions"] for id in mention["ids"]}
    names += [(id, id, "P") for id in sorted(asked - known)]  # a concept without an open name can be learned still
    snapshot = _written(folder, list(dict.fromkeys(names)), edges)
    return _task("MedMentions", snapshot, file, lambda id: f"umls:{id}")


def kore50(data: Path, folder: Path) -> Task:
    """Short sentences about Wikidata's items, most called by a part of their name; a ranker learns from other sets.

    Given are the candidates of ReFinED for the mentions that it found. They have no order, so they are sorted by id:
    the lowest are the oldest items. Types in ``names.tsv`` are left alone, since only items that some system answered
    with have one.
    """
    names, edges, definitions = _wikidata(data)
    snapshot = _written(folder, list(dict.fromkeys(names)), list(dict.fromkeys(edges)), definitions)
    found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in _lines(data / "kb/wikidata_elevant/refined_candidates.jsonl"):
        found[row["bench"], row["doc"]].append(row)
    texts = {}  # some are in two sets
    for name in (*KORE50_LEARNS_FROM, "kore50"):
        for number, row in enumerate(_lines(data / f"wikidata_el/{name}.benchmark.jsonl")):
            its = found[name, number]
            mentions = [
                (*mention["span"], tuple(id for id in [mention["gold"]] if id.startswith("Q"))) for mention in its
            ]
            candidates = [tuple(sorted(mention["candidates"], key=lambda id: int(id[1:]))) for mention in its]
            texts[row["text"]] = GoldText(f"{name}-{number}", row["text"], tuple(mentions), tuple(candidates))
    train, test = (
        [text for text in texts.values() if text.id.startswith("kore50") is is_test] for is_test in (False, True)
    )
    return Task("KORE50", snapshot, train, test, {}, {}, {})


KORE50_LEARNS_FROM = (
    *("wiki-fair-v2", "news-fair", "derczynski", "spotlight", "rss-500"),
    *("oke-2015-train", "oke-2015-eval", "oke-2016-train", "oke-2016-eval"),
)


def _wikidata(data: Path) -> tuple[Names, Edges, dict[str, str]]:
    """Names, facts and descriptions of Wikidata's items, as far as small open sets have them."""
    kg, lm = data.parent / "kg", data.parent / "lm"
    freebase = json.loads((kg / "fb15k237_wikidata/FB15k-237/entity2wikidata.json").read_text(encoding="utf-8"))
    rows = [*_rows(data / "kb/wikidata_elevant/names.tsv"), *_rows(lm / "wikidata_facts/names.tsv.gz")]
    names = [(item, name, "P") for item, name, *_ in rows if name != "Unknown"]
    for row in freebase.values():
        names += [(row["wikidata_id"], name, "S") for name in (row["label"], *row["alternatives"]) if name]
    types = json.loads((kg / "codex/types/en/types.json").read_text(encoding="utf-8"))
    names += [(item, row["label"], "S") for item, row in types.items() if row["label"]]
    edges = [(head, relation, tail) for head, tail, relation in _rows(lm / "wikidata_facts/edges.tsv.gz")]
    for part in ("codex-m/train", "codex-m/valid", "codex-m/test", "codex-l/valid", "codex-l/test"):
        edges += [(head, relation, tail) for head, relation, tail in _rows(kg / f"codex/triples/{part}.txt")]
    of_type = json.loads((kg / "codex/types/entity2types.json").read_text(encoding="utf-8"))
    edges += [(item, "P31", kind) for item, kinds in of_type.items() for kind in kinds]
    for part in ("valid", "test"):
        for head, relation, tail in _rows(kg / f"fb15k237_wikidata/FB15k-237/{part}.txt"):
            if head in freebase and tail in freebase:
                edges.append((freebase[head]["wikidata_id"], relation, freebase[tail]["wikidata_id"]))
    for fact in _lines(lm / "knowledgenet/knowledgenet_train_facts.jsonl"):
        ends = fact["subject"]["id"], fact["object"]["id"]
        if all(ends):
            edges.append((ends[0], fact["property"], ends[1]))
    pairs = json.loads((lm / "fewrel/val_wiki.json").read_text(encoding="utf-8"))
    edges += [(row["h"][1], relation, row["t"][1]) for relation, its in pairs.items() for row in its]
    return names, edges, {row["wikidata_id"]: row["description"] for row in freebase.values() if row["description"]}


MESH_EDGES = (("mesh_descriptors/edges.tsv", "broader"), ("mesh_supplementary/edges.tsv.gz", "mapped_to"))


class _Mesh:
    def __init__(self, data: Path, trees: tuple[str, ...]) -> None:
        self._trees = list(_rows(data / "kb/mesh_descriptors/tree_numbers.tsv"))
        chosen = {descriptor for tree, descriptor in self._trees if tree.startswith(trees)}
        rows = [row[:3] for row in _rows(data / "kb/mesh_descriptors/names.tsv")]
        self.descriptors: Names = [(f"mesh:{entity}", name, kind) for entity, name, kind in rows if entity in chosen]
        more = [row[:3] for row in _rows(data / "kb/mesh_supplementary/names.tsv.gz")]
        self.supplementary: Names = [(f"mesh:{entity}", name, kind) for entity, name, kind in more]
        known = {entity for entity, _, _ in (*rows, *more)}
        self.edges: Edges = [
            (f"mesh:{head}", relation, f"mesh:{tail}")
            for file, relation in MESH_EDGES
            for head, tail, *_ in _rows(data / "kb" / file)
            if head in known and tail in known
        ]

    def kinds(self) -> dict[str, str]:
        """``Disease`` for what is in the trees of diseases or mapped to what is, ``Chemical`` for the rest."""
        kinds = {f"mesh:{d}": "Disease" for tree, d in self._trees if tree.startswith(("C", "F03"))}
        mapped = {head for head, relation, tail in self.edges if relation == "mapped_to" and tail in kinds}
        every = {entity for entity, _, _ in (*self.descriptors, *self.supplementary)}
        return {entity: "Disease" if entity in kinds or entity in mapped else "Chemical" for entity in every}


def _written(folder: Path, names: Names, edges: Edges, definitions: Mapping[str, str] | None = None) -> Snapshot:
    if (folder / "manifest.json").is_file():
        return Snapshot.load(folder)
    preferred: dict[str, str] = {}
    for entity, name, kind in names:
        if kind == "P" or entity not in preferred:
            preferred[entity] = name
    unnamed = {end for head, _, tail in edges for end in (head, tail)} - preferred.keys()
    aliases = aliases_with_priors(
        [
            {"alias": name, "entity": entity, "kind": "pref" if kind == "P" else "syn", "language": ""}
            for entity, name, kind in names
            if name != entity
        ]
    )
    said = definitions or {}
    entities = [
        {"id": id, "name": preferred.get(id), "definition": said.get(id), "types": []}
        for id in [*preferred, *sorted(unnamed)]
    ]
    write_snapshot(folder, entities=entities, aliases=aliases, triples=edges)
    return Snapshot.load(folder)


def _task(
    name: str,
    snapshot: Snapshot,
    file: Path,
    curie: Callable[[str], str],
    *,
    equals: dict[str, str] | None = None,
    kinds: dict[str, str] | None = None,
) -> Task:
    parts: dict[bool, dict[str, GoldText]] = {False: {}, True: {}}
    types = {}
    for number, row in enumerate(_lines(file)):
        mentions = []
        for mention in row["mentions"]:
            start, end = mention["start"], mention["end"]
            if 0 <= start < end:
                mentions.append((start, end, tuple(curie(id) for id in mention["ids"] if id != "-1")))
                types[row["id"], start, end] = mention.get("type", "")
        is_test = row["split"] == "test" if name != "MedMentions" else number % DEVELOPMENT == 0
        parts[is_test].setdefault(row["id"], GoldText(row["id"], row["text"], tuple(mentions)))
    train, test = (list(parts[is_test].values()) for is_test in (False, True))
    return Task(name, snapshot, train, test, types, equals or {}, kinds or {})


def _mesh_or_omim(id: str) -> str:
    id = id.strip().removeprefix("MESH:")
    return f"omim:{id.removeprefix('OMIM:')}" if id.startswith("OMIM:") else f"mesh:{id}"


def _rows(file: Path) -> Iterator[list[str]]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        yield from (line.rstrip("\n").split("\t") for line in lines)


def _lines(file: Path) -> Iterable[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


TASKS: dict[str, Callable[[Path, Path], Task]] = {
    "bc5cdr": bc5cdr,
    "ncbi": ncbi,
    "medmentions": medmentions,
    "kore50": kore50,
}
