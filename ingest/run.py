"""One load from beginning to end: read, map, keep the lossless copy, write the difference, account for everything."""

from collections.abc import Sequence
from pathlib import Path

from ingest.load import load
from ingest.rdf import keep
from ingest.report import Report, cpu_seconds_of
from ingest.sources import NAMED, OPTIONS, READERS
from kg.errors import ConfigError
from kg.local_server import LocalServer
from kg.schema import KINDS, source_label
from kg.settings import Settings
from kg.store import open_store


def load_source(
    source: str,
    paths: Sequence[Path],
    *,
    source_id: str | None = None,
    prefix: str | None = None,
    release: str | None = None,
    **options: Sequence[str],
) -> Report:
    """Load ``paths`` with the reader ``source`` into the store that the environment names.

    Args:
        options: what to select, for the sources that OPTIONS lists; an empty one selects nothing.

    Raises:
        InputError: the input cannot be read; the graph is as it was.
        StoreUnavailable: no Neo4j.
    """
    settings = Settings.from_env()
    if not paths:
        raise ConfigError("No input; name the files or folders to load.")
    if source not in READERS:
        raise ConfigError(f"Unknown source {source!r}; expected one of: {', '.join(READERS)}")
    chosen = {name: tuple(values) for name, values in options.items() if values}
    unknown = sorted(chosen.keys() - set(OPTIONS.get(source, ())))
    if unknown:
        raise ConfigError(f"The source {source} has no option --{unknown[0]}.")
    source_id = source_id or (source if source in NAMED else paths[0].name.split(".")[0].lower())
    if source_label(source_id) in {"", "Entity", "Source", *KINDS}:
        raise ConfigError(f"The data set cannot be called {source_id!r} in the graph; name it with --source-id.")
    report = Report(source_id)
    reading = READERS[source](paths, source_id, report, prefix or source_id, **chosen)
    items = list(reading.items)
    report.release, report.licence = release or reading.release, reading.licence
    if reading.statements is not None:
        keep(reading.statements, settings.home / "canonical" / source_id / f"{report.release or 'unnamed'}.parquet")
    with open_store(settings) as store:
        server = None if settings.neo4j_uri else LocalServer(settings.home).status().get("pid")
        before = cpu_seconds_of(server)
        load(store, source_id, items, report)
        report.server_cpu_seconds = cpu_seconds_of(server) - before
    if not report.balances:
        raise AssertionError(f"the report does not balance: {report.as_json()}")
    return report
