"""FIBO and the OMG ontologies that it imports: RDF/XML, its release in the version IRIs, imports found on disk only."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.compute as pc

from ingest.owl import to_graph
from ingest.parts import plain
from ingest.rdf import Statements, find_files, parse
from ingest.report import Report
from ingest.sources.catalogs import closure
from ingest.sources.reading import Reading
from ingest.vocabulary import OWL
from kg.errors import InputError


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """The RDF/XML files below ``paths`` and what they import, where a catalog among them or above them knows the file.

    An import that is not found on disk is reported, and never fetched.

    Raises:
        InputError: there is no ``.rdf`` file, or one is hostile.
    """
    given = [file for file in find_files(paths) if file.suffix == ".rdf"]
    if not given:
        raise InputError(paths[0], "holds no .rdf file; expected FIBO in RDF/XML")
    found = closure(paths, given)
    statements = parse(found.files, report)
    if more := len(found.files) - len(given):
        report.notes.append(f"{more} more files were read since they are imported")
    imported, described, versions = _said(statements)
    unresolved = sorted(imported - described - versions)
    if unresolved:
        report.notes.append(f"{len(unresolved)} imported ontologies are not on disk: {', '.join(unresolved)}")
    report.notes += [f"not read: {found.refused[iri]}" for iri in unresolved if iri in found.refused]
    return Reading(release=release_of(versions), items=to_graph(statements, source_id, report), statements=statements)


def _said(statements: Statements) -> tuple[set[str], set[str], set[str]]:
    """IRIs of ontologies that are imported, of those that are described, and of versions."""
    imported, described, versions = set[str](), set[str](), set[str]()
    for part in statements.parts():
        subjects, predicates, objects = (plain(part[name]) for name in ("subject", "predicate", "object"))
        imported.update(objects.filter(pc.equal(predicates, OWL + "imports")).to_pylist())
        described.update(subjects.filter(pc.equal(objects, OWL + "Ontology")).to_pylist())
        versions.update(objects.filter(pc.equal(predicates, OWL + "versionIRI")).to_pylist())
    return imported, described, versions


def release_of(versions: Iterable[str]) -> str:
    """Newest date in FIBO's own version IRIs (``…/FBC/20260701/…``), as ``2026-07-01``."""
    dates = [match[1] for iri in versions if (match := re.search(r"/(20\d{6})/", iri)) and "/fibo/" in iri]
    newest = max(dates, default="")
    return f"{newest[:4]}-{newest[4:6]}-{newest[6:]}" if newest else ""
