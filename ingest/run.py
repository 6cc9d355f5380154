"""One load or refresh from beginning to end: read, map, write the difference, account for everything."""

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ingest.bulk import bulk_load, bulk_possible
from ingest.difference import Difference, find_difference, read_sources, rows_where
from ingest.load import BATCH, READ_NODES, batches, load
from ingest.rdf import keep
from ingest.release import STUB, Release, write_release
from ingest.report import Report, cpu_seconds_of, writing
from ingest.sources import NAMED, OPTIONS, READERS
from kg.errors import ConfigError, InputError
from kg.local_server import LocalServer
from kg.parallel import Engine
from kg.schema import KINDS, ensure_schema, source_label
from kg.settings import Settings
from kg.snapshot import build_snapshot, latest_snapshot
from kg.store import GraphStore, open_store

BULK_FROM = 4_000_000
"""Statements from which on Neo4j's importer, whose start costs seconds, is the better way into an empty graph."""
MAX_LOSS = 0.2
"""Share of its entities that a source may lose from one release to the next; a refresh refuses more unless forced."""
CANONICAL = "canonical.parquet"
"""The lossless copy in the folder of a release, until the graph holds it."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """What to read, and how."""

    source: str
    paths: Sequence[Path]
    source_id: str | None = None
    prefix: str | None = None
    release: str | None = None
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What to select, for the sources that OPTIONS lists; an empty one selects nothing."""

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("No input; name the files or folders to load.")
        if self.source not in READERS:
            raise ConfigError(f"Unknown source {self.source!r}; expected one of: {', '.join(READERS)}")
        unknown = sorted(self.chosen.keys() - set(OPTIONS.get(self.source, ())))
        if unknown:
            raise ConfigError(f"The source {self.source} has no option --{unknown[0]}.")
        if self.source_id and not re.fullmatch(r"[A-Za-z0-9][\w .-]{0,99}", self.source_id):  # it names folders, too
            raise ConfigError(
                f"--source-id is {self.source_id[:100]!r}; expected a name of letters and digits, such as wiki-2024."
            )
        if source_label(self.name) in {"", "Entity", "Source", "Format", *KINDS}:
            raise ConfigError(f"The data set cannot be called {self.name!r} in the graph; name it with --source-id.")

    @classmethod
    def of(
        cls,
        source: str,
        paths: Sequence[Path],
        *,
        source_id: str | None = None,
        prefix: str | None = None,
        release: str | None = None,
        **options: Sequence[str],
    ) -> "Input":
        """With each option by its name."""
        return cls(source=source, paths=paths, source_id=source_id, prefix=prefix, release=release, options=options)

    @property
    def chosen(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(values) for name, values in self.options.items() if values}

    @property
    def name(self) -> str:
        """Of the data set in the graph."""
        own = self.source if self.source in NAMED else self.paths[0].name.split(".")[0].lower()
        return self.source_id or own


def load_source(
    source: str,
    paths: Sequence[Path],
    *,
    bulk: bool | None = None,
    max_bad: int | None = None,
    quarantine: Path | None = None,
    engine: Engine = "local",
    **how: Any,
) -> Report:
    """Load into the store that the environment names; what an earlier release said and this one does not stays.

    Args:
        bulk: build a new store with Neo4j's importer, or write through transactions; None for the first where the
            graph is empty and the input has BULK_FROM statements or more.
        max_bad: stop when more lines than so many are unreadable.
        quarantine: file for the unreadable lines; default one below KGFUSE_HOME.
        engine: where RDF is parsed, see ``kg.parallel``.
        how: the other fields of ``Input``, and its options.

    Raises:
        InputError: the input cannot be read; the graph is as it was.
        ConfigError: an option is wrong, or ``bulk`` is asked for and not possible.
        StoreUnavailable: no Neo4j, or somebody else is importing.
    """
    wanted, settings = Input.of(source, paths, **how), Settings.from_env()
    report = _report(wanted, settings, max_bad, quarantine, engine)
    with reading(wanted, settings, report) as release:
        if bulk or (bulk is None and report.read >= BULK_FROM):
            with open_store(settings) as store:
                obstacle = bulk_possible(settings, store)
            if bulk and obstacle:
                raise ConfigError(f"The bulk path cannot be taken: {obstacle}. Load without --bulk.")
            if not obstacle:
                bulk_load(settings, release, report)
                _settle(settings, release)
                return report
        with _importing(settings, report) as store:
            load(store, release, report, previous=_previous(settings, store, wanted.name))
            _settle(settings, release)
    return report


def refresh_source(
    source: str,
    paths: Sequence[Path],
    *,
    dry_run: bool = False,
    prune: bool = False,
    force: bool = False,
    max_bad: int | None = None,
    quarantine: Path | None = None,
    engine: Engine = "local",
    **how: Any,
) -> Report:
    """Bring the graph from the release that it holds to this one, as if this one alone had been loaded.

    Args:
        dry_run: write nothing, say what would be written (``report.changes``).
        prune: delete what is gone, and tombstones of earlier releases, instead of leaving tombstones.
        force: take a release that has lost more than MAX_LOSS of its entities.
        max_bad, quarantine, engine, how: as for ``load_source``.

    Raises:
        InputError: the input cannot be read, is empty, or has lost too much; the graph is as it was.
        StoreUnavailable: no Neo4j, or somebody else is importing.
    """
    wanted, settings = Input.of(source, paths, **how), Settings.from_env()
    report = _report(wanted, settings, max_bad, quarantine, engine)
    with reading(wanted, settings, report) as release, _importing(settings, report, writes=not dry_run) as store:
        difference = find_difference(store, release, _previous(settings, store, wanted.name))
        report.changes = changes(store, difference)
        held = difference.held.nodes.num_rows
        if held and not force and difference.gone.num_rows > MAX_LOSS * held:
            raise InputError(
                wanted.paths[0],
                f"has lost {difference.gone.num_rows:,} of the {held:,} entities of {wanted.name} in the graph; "
                "if that is right, say --force",
            )
        if dry_run:
            return report
        load(store, release, report, difference=difference, remove=True, prune=prune)
        _settle(settings, release)
        folder = settings.home / "snapshots"
        if sum(report.written.values()) + sum(report.removed.values()) or latest_snapshot(folder) is None:
            report.snapshot = str(build_snapshot(store, folder))
    return report


@contextmanager
def reading(wanted: Input, settings: Settings, report: Report) -> Iterator[Release]:
    """Read and map the input into a release on disk; it is gone after the block, unless it was settled.

    The lossless copy of what is RDF is in its folder.

    Raises:
        StoreUnavailable: NEO4J_URI is set and does not answer, which is asked before hours are spent on reading.
    """
    if settings.neo4j_uri is not None:
        with open_store(settings):
            pass
    read = READERS[wanted.source](wanted.paths, wanted.name, report, wanted.prefix or wanted.name, **wanted.chosen)
    report.release, report.licence = wanted.release or read.release, read.licence
    work = settings.home / "work"
    try:
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="release-", dir=work))  # another process may read the same source
    except OSError as error:
        raise _unwritable(settings, error) from error
    try:
        try:
            release = write_release(
                folder, read.items, source=wanted.name, release=report.release, licence=report.licence
            )
            if read.statements is not None:
                keep(read.statements, folder / CANONICAL)
        except OSError as error:
            raise _unwritable(settings, error) from error
        if not report.balances:
            raise AssertionError(f"the report does not balance: {report.as_json()}")
        yield release
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unwritable(settings: Settings, error: OSError) -> ConfigError:
    return ConfigError(
        f"{settings.home} cannot be written ({error.strerror}); free space, or set KGFUSE_HOME to another folder."
    )


def changes(store: GraphStore, difference: Difference) -> dict[str, Any]:
    """How a release differs from what the graph holds, in numbers, with what may have been renamed."""
    return {
        "entities": {
            "added": int(difference.added.sum()),
            "changed": int(difference.changed.sum()),
            "removed": difference.gone.num_rows,
        },
        "relationships": {"added": int(difference.added_edges.sum()), "removed": difference.gone_edges.num_rows},
        "rename_candidates": rename_candidates(store, difference),
    }


def rename_candidates(store: GraphStore, difference: Difference) -> list[dict[str, str]]:
    """Entities that are gone, each with the one new entity of the same name and kinds: perhaps the same thing.

    They are reported and not merged; an IRI that changed can mean that the thing did.
    """
    gone: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    label = source_label(difference.release.source)
    for ids in batches(difference.gone["id"].to_pylist(), BATCH):
        for entity_id, labels, properties in store.read(READ_NODES, ids=ids)[0]["rows"]:
            kinds = set(labels) - {"Entity", label}
            if properties.get("name") and kinds != set(STUB):
                gone[properties["name"], *sorted(kinds)].append((entity_id, properties["iri"]))
    new: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    if gone:
        nodes = difference.release.nodes("id", "iri", "name", "kinds")
        for rows in rows_where(nodes, difference.added, BATCH):
            for row in rows:
                new[row["name"], *row["kinds"]].append((row["id"], row["iri"]))
    pairs = [(key[0], gone[key][0], new[key][0]) for key in gone if len(gone[key]) == len(new.get(key, ())) == 1]
    return [
        {"name": name, "id": old[0], "iri": old[1], "new_id": now[0], "new_iri": now[1]}
        for name, old, now in sorted(pairs)
    ]


def _report(wanted: Input, settings: Settings, max_bad: int | None, quarantine: Path | None, engine: Engine) -> Report:
    """An empty report; an earlier load's unreadable lines are forgotten."""
    file = quarantine or settings.home / "quarantine" / f"{wanted.name}.jsonl"
    with writing(file, "--quarantine" if quarantine else "KGFUSE_HOME"):
        file.unlink(missing_ok=True)
    work = settings.home / "work"
    return Report(wanted.name, quarantine_file=file, max_bad=max_bad, engine=engine, work=work)


@contextmanager
def _importing(settings: Settings, report: Report, *, writes: bool = True) -> Iterator[GraphStore]:
    """The store, for this import alone, with its schema if it ``writes``; what the local server works is reported."""
    with open_store(settings) as store:
        server = None if settings.neo4j_uri else LocalServer(settings.home).status().get("pid")
        before = cpu_seconds_of(server)
        if writes:
            ensure_schema(store)
        with store.exclusive():
            yield store
        report.server_cpu_seconds = cpu_seconds_of(server) - before


def _previous(settings: Settings, store: GraphStore, source: str) -> Release | None:
    """The release that the graph says it holds, where it was loaded from this KGFUSE_HOME."""
    said = read_sources(store).get(source)
    return Release.open(settings.home / "releases" / source / str(said["sha256"])[:16]) if said else None


def _settle(settings: Settings, release: Release) -> None:
    """Keep a release that is in the graph now for the next difference, and no older one; of RDF the lossless copy."""
    copy = release.folder / CANONICAL
    if copy.exists():
        place = settings.home / "canonical" / release.source / f"{file_name(release.manifest['release'])}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        copy.rename(place)
    folder = settings.home / "releases" / release.source / release.sha256[:16]
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.parent.mkdir(parents=True)
    release.folder.rename(folder)


def file_name(release: str) -> str:
    """What the lossless copy of a release is called; a hash tells names apart that no file can have."""
    plain = re.sub(r"[^\w.-]+", "_", release, flags=re.ASCII).lstrip(".")[:100]
    if plain != release:
        plain += f"-{blake2b(release.encode(), digest_size=4).hexdigest()}"
    return plain or "unnamed"
