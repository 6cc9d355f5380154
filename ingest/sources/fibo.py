"""FIBO and the OMG ontologies that it imports: RDF/XML, its release in the version IRIs, imports found on disk only."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from ingest.owl import OWL, to_graph
from ingest.rdf import Statements, find_files, parse
from ingest.report import Report
from ingest.sources.reading import Reading
from kg.errors import InputError


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """The RDF/XML files below ``paths``; an import that is among none of them is reported, and never fetched.

    Raises:
        InputError: there is no ``.rdf`` file.
    """
    files = [file for file in find_files(paths) if file.suffix == ".rdf"]
    if not files:
        raise InputError(paths[0], "holds no .rdf file; expected FIBO in RDF/XML")
    statements = parse(files, report)
    unresolved = unresolved_imports(statements)
    if unresolved:
        report.notes.append(f"{len(unresolved)} imported ontologies are not on disk: {', '.join(unresolved)}")
    return Reading(release=release_of(statements), items=to_graph(statements, source_id, report), statements=statements)


def unresolved_imports(statements: Statements) -> list[str]:
    """Ontology IRIs that are imported and described by no file."""
    table = statements.table
    wanted = table.filter(pc.equal(table["predicate"], OWL + "imports"))["object"].unique()
    declared = table.filter(pc.equal(table["object"], OWL + "Ontology"))["subject"].unique()
    versions = table.filter(pc.equal(table["predicate"], OWL + "versionIRI"))["object"].unique()
    known = {*declared.to_pylist(), *versions.to_pylist()}
    return sorted(set(wanted.to_pylist()) - known)


def release_of(statements: Statements) -> str:
    """Newest date in FIBO's own version IRIs (``…/FBC/20260701/…``), as ``2026-07-01``."""
    table = statements.table
    versions = table.filter(pc.equal(table["predicate"], OWL + "versionIRI"))["object"].to_pylist()
    dates = [match[1] for iri in versions if (match := re.search(r"/(20\d{6})/", iri)) and "/fibo/" in iri]
    newest = max(dates, default="")
    return f"{newest[:4]}-{newest[4:6]}-{newest[6:]}" if newest else ""
