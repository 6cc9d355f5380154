"""Plain tables: ``names.tsv`` (id, name, kind P/S/T, source) and ``edges.tsv`` (head, tail, relation), also ``.gz``."""

import gzip
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from ingest.names import upper_snake
from ingest.report import Report
from ingest.sources.reading import Reading
from kg.errors import InputError
from kg.types import Entity, Name, Triple

KINDS = {"P": "pref", "S": "syn", "T": "syn"}
"""P preferred, S synonym, T entry term of a thesaurus."""

SPACES = {"wd": "http://www.wikidata.org/entity/", "umls": "https://uts.nlm.nih.gov/uts/umls/concept/"}
"""Prefixes whose ids are those of another source, so that both speak of the same node."""


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """Folders that hold the two files, or the files themselves; ids become ``prefix:id``.

    Raises:
        InputError: no names file, or every line of it is bad (a single bad line is quarantined).
    """
    names: dict[str, dict[Name, None]] = defaultdict(dict)
    triples: dict[str, Triple] = {}
    files = sorted(_files(paths))
    if not any(kind == "names" for kind, _ in files):
        raise InputError(paths[0], "holds no names.tsv or names.tsv.gz")
    for kind, file in files:
        for row in _rows(file, report, width=3 if kind == "edges" else 2):
            if kind == "names":
                entity_id = f"{prefix}:{row[0]}"
                said = KINDS.get(row[2], "syn") if len(row) > 2 else "pref"
                names[entity_id][Name(text=row[1], kind=said, language="")] = None
                report.keep("name")
            else:
                triple = _triple(f"{prefix}:{row[0]}", f"{prefix}:{row[1]}", row[2], source_id)
                report.keep("relationship") if triple.sid not in triples else report.skip("stated more than once")
                triples[triple.sid] = triple
    if not names:
        raise InputError(files[-1][1], "no line of it has an id and a name, parted by a tab")
    entities = {id_: _entity(id_, list(said), source_id) for id_, said in names.items()}
    for triple in triples.values():
        for end in (triple.head, triple.tail):
            if end not in entities:
                entities[end] = Entity(id=end, iri=_iri(end), source=source_id, kinds=("Stub",))
    items: list[Entity | Triple] = [
        *sorted(entities.values(), key=lambda e: e.id),
        *sorted(triples.values(), key=lambda t: t.sid),
    ]
    return Reading(release="", items=items)


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder")
        for file in sorted(path.rglob("*.tsv*")) if path.is_dir() else [path]:
            for kind in ("names", "edges"):
                if kind in file.name:
                    yield kind, file


def _rows(file: Path, report: Report, *, width: int) -> Iterator[list[str]]:
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                row = line.rstrip("\r\n").split("\t")
                if number == 1 and row[0] in ("id", "head"):
                    continue
                report.read += 1
                if len(row) < width or not all(row[:width]):
                    report.quarantine(file, number, f"expected {width} columns or more, got {len(row)}")
                else:
                    yield row
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(file, f"cannot be read: {error}") from error


def _entity(entity_id: str, names: list[Name], source: str) -> Entity:
    preferred = next((name.text for name in names if name.kind == "pref"), names[0].text)
    return Entity(id=entity_id, iri=_iri(entity_id), source=source, kinds=("Item",), name=preferred, names=tuple(names))


def _triple(head: str, tail: str, relation: str, source: str) -> Triple:
    type_ = relation if relation[:1] == "P" and relation[1:].isdigit() else upper_snake(relation)
    sid = blake2b(f"{head} {type_} {tail}".encode(), digest_size=16).hexdigest()
    return Triple(head=head, relation=type_, tail=tail, source=source, sid=sid)


def _iri(entity_id: str) -> str:
    prefix, _, rest = entity_id.partition(":")
    return SPACES.get(prefix, f"urn:{prefix}:") + rest
