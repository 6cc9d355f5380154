"""The sources: each a module with one function ``read(paths, source_id, report, prefix, …)``; READERS is their list."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ingest.sources import cpc, cuad, fibo, obo, openstax, rdf, table, umls, wikidata
from ingest.sources.reading import Reading

Reader: TypeAlias = Callable[..., Reading]
"""Takes paths, source id, report and prefix; by keyword, the options that OPTIONS lists for it."""
READERS: Mapping[str, Reader] = {
    "fibo": fibo.read,
    "umls": umls.read,
    "wikidata": wikidata.read,
    "rdf": rdf.read,
    "obo": obo.read,
    "table": table.read,
    "openstax": openstax.read,
    "cuad": cuad.read,
    "cpc": cpc.read,
}
"""Adding a source is a module here and a line in this table."""
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "umls": ("sab", "languages", "attributes", "also"),
    "wikidata": ("languages", "classes", "properties", "ids"),
}
"""Options of a load that select from a source; given to any other source, they are a mistake."""
NAMED = frozenset({"fibo", "umls", "wikidata", "openstax", "cuad", "cpc"})
"""Sources that are one data set, and give it their name."""
