"""Any RDF: Turtle, N-Triples, N-Quads, TriG, RDF/XML or JSON-LD, with RDFS, OWL and SKOS understood."""

from collections.abc import Sequence
from pathlib import Path

from ingest.owl import to_graph
from ingest.rdf import find_files, parse
from ingest.report import Report
from ingest.sources.reading import Reading


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """All RDF files below ``paths`` as one release; ``prefix`` is not used, the files declare their own."""
    statements = parse(find_files(paths), report)
    return Reading(release="", items=to_graph(statements, source_id, report), statements=statements)
