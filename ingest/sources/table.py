"""Plain tables: ``names.tsv`` (id, name, kind P/S/T, source) and ``edges.tsv`` (head, tail, relation), also packed.

More columns of edges that a first line ``head tail relation …`` names are properties of the relationship.

Beside them the files of link-prediction benchmarks (CoDEx, arXiv 2009.07810): ``train.txt``, ``valid.txt`` and
``test.txt`` (head, relation, tail), and ``entity2types.json`` (entity to its types).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ingest.compression import MAX_LINE, TOO_LONG, numbered
from ingest.names import upper_snake
from ingest.report import Report
from ingest.sources.reading import Reading, parse_json, statement_id
from kg.errors import InputError
from kg.types import Entity, Name, Scalar, Triple

KINDS = {"P": "pref", "S": "syn", "T": "syn"}
"""P preferred, S synonym, T entry term of a thesaurus."""

LAYOUTS = {"edges": (0, 2, 1), "benchmark": (0, 1, 2)}
"""Columns of head, relation and tail."""
BENCHMARK_FILES = ("train.txt", "valid.txt", "test.txt")

SPACES = {"wd": "http://www.wikidata.org/entity/", "umls": "https://uts.nlm.nih.gov/uts/umls/concept/"}
"""Prefixes whose ids are those of another source, so that both speak of the same node."""


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """Folders that hold the two files, or the files themselves; ids become ``prefix:id``.

    Raises:
        InputError: no names file, or every line of it is bad (a single bad line is quarantined).
    """
    names: dict[str, list[tuple[str, str]]] = defaultdict(list)
    edges: dict[tuple[str, str, str], dict[str, Scalar]] = {}
    files = sorted(_files(paths))
    if not any(kind == "names" for kind, _ in files):
        raise InputError(paths[0], "holds no names.tsv or names.tsv.gz")
    for kind, file in files:
        if kind == "names":
            for row, _ in _rows(file, report, width=2):
                names[f"{prefix}:{row[0]}"].append((row[1], KINDS.get(row[2], "syn") if len(row) > 2 else "pref"))
                report.keep("name")
            continue
        found = _types(file, report) if kind == "types" else _triples(file, report, LAYOUTS[kind])
        for head, relation, tail, properties in found:
            edge = f"{prefix}:{head}", relation_type(relation), f"{prefix}:{tail}"
            report.skip("stated more than once") if edge in edges else report.keep("relationship")
            edges.setdefault(edge, properties)
    if not names:
        raise InputError(files[-1][1], "no line of it has an id and a name, parted by a tab")
    return Reading(release="", items=_items(names, edges, source_id))


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.name == "entity2types.json":
                yield "types", file
            elif file.name in BENCHMARK_FILES:
                yield "benchmark", file
            elif ".tsv" in file.suffixes:
                yield from ((kind, file) for kind in ("names", "edges") if kind in file.name)


def _triples(file: Path, report: Report, layout: Sequence[int]) -> Iterator[tuple[str, str, str, dict[str, Scalar]]]:
    for row, header in _rows(file, report, width=3):
        head, relation, tail = (row[column] for column in layout)
        yield (
            head,
            relation,
            tail,
            {name: _value(said) for name, said in zip(header[3:], row[3:], strict=False) if said},
        )


def _value(said: str) -> Scalar:
    if said in ("true", "false"):
        return said == "true"
    return (
        int(said) if re.fullmatch(r"-?\d{1,18}", said) else float(said) if re.fullmatch(r"-?\d+\.\d+", said) else said
    )


def _types(file: Path, report: Report) -> Iterator[tuple[str, str, str, dict[str, Scalar]]]:
    try:
        types = parse_json(file.read_bytes())
        for of_it in types.values():
            if not isinstance(of_it, list):
                raise TypeError(f"{str(of_it)[:60]!r} is no list")
        triples = [(entity, "INSTANCE_OF", type_) for entity, of_it in types.items() for type_ in of_it]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(file, f"expected an object of entity to list of types: {error}") from error
    report.read += len(triples)
    for entity, relation, type_ in triples:
        yield entity, relation, type_, {}


def _rows(file: Path, report: Report, *, width: int) -> Iterator[tuple[list[str], list[str]]]:
    """Rows, each with the first line where that names the columns."""
    header = list[str]()
    for number, line in numbered(file):
        try:
            row = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise InputError(file, f"cannot be read: {error}") from error
        if number == 1 and row[0] in ("id", "head"):
            header = [name or f"column_{place}" for place, name in enumerate(row, 1)]
            continue
        report.read += 1
        if len(line) == MAX_LINE:
            report.quarantine(file, number, TOO_LONG)
        elif len(row) < width or not all(row[:width]):
            report.quarantine(file, number, f"expected {width} columns or more, got {len(row)}")
        else:
            yield row, header


def _items(
    names: dict[str, list[tuple[str, str]]], edges: Mapping[tuple[str, str, str], dict[str, Scalar]], source: str
) -> Iterator[Entity | Triple]:
    """Entities, stubs and triples, each made when it is asked for."""
    for entity_id, said in names.items():
        own = [Name(text=text, kind=kind) for text, kind in dict.fromkeys(said)]
        preferred = next((name.text for name in own if name.kind == "pref"), own[0].text)
        yield Entity(
            id=entity_id, iri=_iri(entity_id), source=source, kinds=("Item",), name=preferred, names=tuple(own)
        )
    for end in dict.fromkeys(end for head, _, tail in edges for end in (head, tail) if end not in names):
        yield Entity(id=end, iri=_iri(end), source=source, kinds=("Stub",))
    for (head, relation, tail), properties in edges.items():
        sid = statement_id(head, relation, tail, properties)
        yield Triple(head=head, relation=relation, tail=tail, source=source, sid=sid, properties=properties)


@lru_cache(1 << 12)
def relation_type(relation: str) -> str:
    """``has part`` → ``HAS_PART``; Wikidata's ``P17`` stays."""
    return relation if relation[:1] == "P" and relation[1:].isdigit() else upper_snake(relation)


def _iri(entity_id: str) -> str:
    prefix, _, rest = entity_id.partition(":")
    return SPACES.get(prefix, f"urn:{prefix}:") + rest
