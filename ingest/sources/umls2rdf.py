"""The Turtle that umls2rdf makes of one source vocabulary: a class for each code, with its CUIs and semantic types.

A class without a CUI is a concept under its code. Where it has several, it is not said which of its names is whose, so
all go to the lowest, which is the oldest, and the others are noted in the tail.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote_plus

from ingest.names import local_name
from ingest.parts import by_subject
from ingest.rdf import Statements, parse
from ingest.report import Report
from ingest.sources.metathesaurus import (
    LICENCE,
    OTHER_LANGUAGE,
    OTHER_SAB,
    RELATIONS,
    Atom,
    Metathesaurus,
    Selection,
)
from ingest.sources.reading import Reading
from ingest.vocabulary import OWL, RDFS, SKOS, TYPE
from kg.errors import ConfigError, InputError

UMLS = "http://bioportal.bioontology.org/ontologies/umls/"
BASE = "http://purl.bioontology.org/ontology/"
TAGS: Mapping[str, str] = {"cz": "cs", "jp": "ja", "sw": "sv", "kr": "ko"}
"""Tags that umls2rdf writes for Czech, Japanese, Swedish and Korean → the right ones."""
LABELS: Mapping[str, tuple[int, str]] = {SKOS + "prefLabel": (0, "pref"), SKOS + "altLabel": (1, "syn")}
Row = tuple[str, str, str, str]


def read(files: Sequence[Path], source_id: str, report: Report, wanted: Selection) -> Reading:
    """The Turtle files as one release; it is the ``owl:versionInfo`` of their ontologies."""
    statements = parse(files, report)
    made = Metathesaurus(source_id, report, wanted)
    keys: dict[str, str] = {}
    present, several = set[str](), 0
    for subject, rows in _about(statements):
        if _is_class(rows):
            vocabulary, keys[subject] = _vocabulary(subject), _key(subject, rows)
            present.add(vocabulary)
            if vocabulary != "STY" and wanted.wants_source(vocabulary):
                several += _names(made, subject, keys[subject], rows)
    if not keys:
        raise InputError(files[0], "has no class with a preferred label: not Turtle of umls2rdf")
    present -= {"STY"}
    unknown = sorted(wanted.sab - present)
    if unknown:
        raise ConfigError(f"No class is of the source vocabulary {unknown[0]}; there are: {', '.join(sorted(present))}")
    releases = [""]
    for subject, rows in _about(statements):
        if _vocabulary(subject) == "STY" and subject in keys:
            _semantic_type(made, subject, rows)
        elif subject in keys and wanted.wants_source(_vocabulary(subject)):
            _statements(made, subject, keys, rows)
        elif subject in keys:
            report.skip(OTHER_SAB, len(rows))
        else:
            releases += [value for predicate, value, _, _ in rows if predicate == OWL + "versionInfo"]
            report.skip("about the ontology or its vocabulary", len(rows))
    report.skip("about an anonymous node", statements.blank.num_rows)
    if several:
        report.notes.append(f"{several} classes have several CUIs; the lowest has their names, the tail the others")
    used = sorted(present & wanted.sab or present)
    licence = f"{LICENCE}; restriction levels: {', '.join(f'{sab} unknown' for sab in used)}"
    return Reading(release=max(releases), items=made.items(), statements=statements, licence=licence)


def _about(statements: Statements) -> Iterator[tuple[str, list[Row]]]:
    """Each subject with what is said of it: predicate, object, kind, language."""
    for subject, rows in by_subject(statements, "predicate", "object", "kind", "language"):
        yield subject, [(predicate, said, kind, language or "") for predicate, said, kind, language in rows]


def _is_class(rows: Sequence[Row]) -> bool:
    return any(row[:2] == (TYPE, OWL + "Class") for row in rows) and any(row[0] in LABELS for row in rows)


def _vocabulary(subject: str) -> str:
    """``DO`` of ``http://purl.bioontology.org/ontology/DO/DOID%3A1``; semantic types are in ``STY``, however spelt."""
    parts = subject.removeprefix(BASE).removeprefix(UMLS).split("/")
    return parts[0].upper() if parts[0] == "sty" else parts[0]


def _key(subject: str, rows: Sequence[Row]) -> str:
    """The lowest CUI, or else the code within its vocabulary."""
    cuis = [value for predicate, value, _, _ in rows if predicate == UMLS + "cui" and value]
    return min(cuis) if cuis else f"{_vocabulary(subject)}/{unquote_plus(local_name(subject))}"


def _names(made: Metathesaurus, subject: str, key: str, rows: Sequence[Row]) -> bool:
    """Make the concept and name it; True when other CUIs claim the class, too."""
    code = next((value for predicate, value, _, _ in rows if predicate == SKOS + "notation"), local_name(subject))
    origin = f"{_vocabulary(subject)}//{code}"
    for predicate, text, _, tag in rows:
        if predicate in LABELS:
            order, kind = LABELS[predicate]
            language = TAGS.get(tag, tag)
            if made.wanted.languages and language not in made.wanted.languages:
                made.report.skip(OTHER_LANGUAGE)
                continue
            concept = made.concept(key, "" if "/" not in key else subject)
            made.name(concept, Atom((made.language_order(language), order, text), text, language, kind, origin))
    return len([row for row in rows if row[0] == UMLS + "cui"]) > 1


def _statements(made: Metathesaurus, subject: str, keys: Mapping[str, str], rows: Sequence[Row]) -> None:
    """All of a class but its names."""
    key, sab = keys[subject], _vocabulary(subject)
    types = {local_name(value) for predicate, value, _, _ in rows if predicate == UMLS + "hasSTY"}
    for predicate, value, kind, _ in rows:
        if predicate in LABELS:
            continue
        if predicate == TYPE:
            made.report.keep("node label")
        elif predicate in (SKOS + "notation", UMLS + "cui") and (predicate != UMLS + "cui" or value == key):
            made.report.keep("id")
        elif predicate == UMLS + "tui" and value in types:
            made.report.skip("says of the semantic type what hasSTY says")
        elif predicate in (UMLS + "hasSTY", UMLS + "tui"):
            made.has_type(key, local_name(value))
        elif predicate == SKOS + "definition":
            made.define(key, value, (value,))
        elif predicate == RDFS + "subClassOf":
            made.relate(key, "isa", keys.get(value, value), sab)
        elif kind == "iri":
            name = local_name(predicate)
            made.relate(key, RELATIONS.get(name, name), keys.get(value, value), sab)
        else:
            is_own = predicate.startswith(UMLS)  # other CUIs, roots: not of the vocabulary, and always kept
            made.attribute(key, local_name(predicate), "umls" if is_own else sab, value, is_wanted=is_own)


def _semantic_type(made: Metathesaurus, subject: str, rows: Sequence[Row]) -> None:
    """A class of the Semantic Network, which umls2rdf writes as a vocabulary of its own."""
    key = local_name(subject)
    name = next(value for predicate, value, _, _ in rows if predicate in LABELS)
    made.describe(key, "SemanticType", name)
    for predicate, value, kind, _ in rows:
        if predicate == RDFS + "subClassOf" and kind == "iri":
            above = local_name(value)
            if f"umls:{above}" not in made.others:
                made.describe(above, "SemanticType", "")
            made.link(f"umls:{key}", "SUBCLASS_OF", f"umls:{above}")
        else:
            made.report.keep("semantic type")
