"""The sources: each a module with one function ``read(paths, source_id, report, prefix)``; this table is their list."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ingest.report import Report
from ingest.sources import fibo, obo, rdf, table
from ingest.sources.reading import Reading

Reader: TypeAlias = Callable[[Sequence[Path], str, Report, str], Reading]
READERS: Mapping[str, Reader] = {"fibo": fibo.read, "rdf": rdf.read, "obo": obo.read, "table": table.read}
"""Adding a source is a module here and a line in this table."""
