"""OBO 1.2 and 1.4 flat files: terms, synonyms, definitions, is_a and relationships, obsolete and merged terms.

Format: the OBO Flat File Format 1.4 guide (owlcollab.github.io/oboformat).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from ingest.compression import MAX_LINE, TOO_LONG, numbered
from ingest.names import upper_snake
from ingest.report import Report
from ingest.sources.reading import Reading
from kg.errors import InputError
from kg.types import Entity, Name, Triple

SCOPES: Mapping[str, str] = {"EXACT": "syn", "BROAD": "broad", "NARROW": "narrow", "RELATED": "related"}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(.*)')
_PURL = re.compile(r"http://purl\.obolibrary\.org/obo/([A-Za-z]+)_(\w+)")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "W": " "}
Stanza = list[tuple[str, str, int]]


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """The ``.obo`` files of ``paths`` as one release; the release is the files' ``data-version``."""
    releases: list[str] = []
    entities: dict[str, Entity] = {}
    triples: dict[str, Triple] = {}
    spelt: dict[str, str] = {}
    for path in paths:
        for name, stanza in stanzas(path, report):
            if not name:
                releases += [value for tag, value, _ in stanza if tag == "data-version"]
                report.keep("header", len(stanza))
            elif name in ("Term", "Typedef"):
                if any(tag == "id" and curie(value, spelt) in entities for tag, value, _ in stanza):
                    report.skip("stanza of an id that was described before", len(stanza))
                    continue
                entity, edges = _term(name, stanza, source_id, path, report, spelt)
                if entity is not None:
                    entities[entity.id] = entity
                    triples.update((edge.sid, edge) for edge in edges)
            else:
                report.skip(f"stanza [{name}]", len(stanza))
    for triple in triples.values():
        for end in (triple.head, triple.tail):
            if end not in entities:
                entities[end] = Entity(id=end, iri=_iri(end, spelt), source=source_id, kinds=("Stub",))
    items: list[Entity | Triple] = [
        *sorted(entities.values(), key=lambda e: e.id),
        *sorted(triples.values(), key=lambda t: t.sid),
    ]
    return Reading(release=max(releases, default=""), items=items)


def stanzas(path: Path, report: Report) -> Iterator[tuple[str, Stanza]]:
    """(stanza name, its tag-value clauses with line numbers); the header comes first, with an empty name."""
    name, stanza = "", Stanza()
    for number, raw in numbered(path):
        if len(raw) == MAX_LINE:
            report.read += 1
            report.quarantine(path, number, TOO_LONG)
            continue
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            report.read += 1
            report.quarantine(path, number, f"not UTF-8: {error.reason}")
            continue
        if not line or line.startswith("!"):
            continue
        if line.startswith("[") and line.endswith("]"):
            yield name, stanza
            name, stanza = line[1:-1], []
            continue
        report.read += 1
        tag, colon, value = line.partition(":")
        if not colon or not tag:
            report.quarantine(path, number, "expected tag: value")
        else:
            stanza.append((tag, value.strip(), number))
    if not name:
        raise InputError(path, "no [Term] in it: not an OBO file")
    yield name, stanza


def _term(
    name: str, stanza: Stanza, source: str, path: Path, report: Report, spelt: dict[str, str]
) -> tuple[Entity | None, list[Triple]]:
    ids = [value for tag, value, _ in stanza if tag == "id"]
    if not ids:
        for _, _, number in stanza:
            report.quarantine(path, number, f"a [{name}] without id")
        return None, []
    head = curie(ids[0], spelt)
    kinds = {"Class" if name == "Term" else "ObjectProperty"}
    names: list[Name] = []
    definitions: list[str] = []
    tail: list[str] = []
    edges: list[Triple] = []
    for tag, value, number in stanza:
        if tag in ("name", "synonym"):
            said = _name(tag, value)
            if said is None:
                report.quarantine(path, number, f"expected a quoted synonym, got {value[:60]!r}")
                continue
            names.append(said)
            report.keep("name")
        elif tag == "def":
            quoted = _QUOTED.match(value)
            if quoted is None:
                report.quarantine(path, number, f"expected a quoted definition, got {value[:60]!r}")
                continue
            definitions.append(unescape(quoted[1]))
            tail += [f"def_xref={quoted[2].strip('[] ')}"] if quoted[2].strip("[] ") else []
            report.keep("definition")
        elif tag == "is_obsolete":
            kinds |= {"Deprecated"} if value.startswith("true") else set()
            report.keep("node label")
        elif tag in ("is_a", "replaced_by", "consider", "inverse_of", "relationship", "intersection_of"):
            edge = _edge(head, tag, value, source, spelt)
            if edge is None:
                report.quarantine(path, number, f"expected what {tag} refers to, got {value[:60]!r}")
                continue
            edges.append(edge)
            report.keep("relationship")
        elif tag == "id":
            report.keep("id")
        else:
            tail.append(f"{tag}={unescape(value)}")
            report.keep("tail")
    entity = Entity(
        id=head,
        iri=_iri(head, spelt),
        source=source,
        kinds=tuple(sorted(kinds)),
        name=next((said.text for said in names if said.kind == "pref"), None),
        names=tuple(dict.fromkeys(names)),
        definition=definitions[0] if definitions else None,
        definitions=tuple(definitions),
        properties={"relation": upper_snake(ids[0])} if name == "Typedef" else {},
        tail=tuple(sorted(tail)),
    )
    return entity, list({edge.sid: edge for edge in edges}.values())


def _name(tag: str, value: str) -> Name | None:
    if tag == "name":
        return Name(text=unescape(value), kind="pref", language="en")
    quoted = _QUOTED.match(value)
    if quoted is None:
        return None
    scope = quoted[2].split(" ")[0]
    return Name(text=unescape(quoted[1]), kind=SCOPES.get(scope, "related"), language="en")


def _edge(head: str, tag: str, value: str, source: str, spelt: dict[str, str]) -> Triple | None:
    body = re.split(r"(?:^|\s+)[!{]", value)[0].split()
    if len(body) < (2 if tag == "relationship" else 1):
        return None
    relation = {"is_a": "SUBCLASS_OF", "relationship": upper_snake(body[0])}.get(tag, upper_snake(tag))
    properties: dict[str, bool | str] = {}
    if tag == "intersection_of":
        relation = "SUBCLASS_OF" if len(body) == 1 else upper_snake(body[0])
        properties = {"derived": True, "connective": "intersection"}
    tail = curie(body[-1], spelt)
    canonical = f"{head} {relation} {tail} {sorted(properties)}"
    sid = blake2b(canonical.encode(), digest_size=16).hexdigest()
    return Triple(head=head, relation=relation, tail=tail, source=source, sid=sid, properties=properties)


def curie(identifier: str, spelt: dict[str, str]) -> str:
    """``DOID:0001816``, or its IRI → ``doid:0001816``; an id without a prefix belongs to ``obo``.

    An IRI from elsewhere is its own id.

    Args:
        spelt: prefix → how it is spelt in IRIs, ``fbbt`` → ``FBbt``; gets that of this one if it is new.
    """
    if match := _PURL.fullmatch(identifier):
        prefix, rest = match.groups()
    elif "://" in identifier:
        return identifier
    else:
        prefix, colon, rest = identifier.partition(":")
        if not colon:
            return f"obo:{identifier}"
    spelt.setdefault(prefix.lower(), prefix)
    return f"{prefix.lower()}:{rest}"


def unescape(value: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), value)


def _iri(identifier: str, spelt: Mapping[str, str]) -> str:
    if "://" in identifier:
        return identifier
    prefix, _, rest = identifier.partition(":")
    return f"http://purl.obolibrary.org/obo/{spelt.get(prefix, prefix.upper())}_{rest}"
