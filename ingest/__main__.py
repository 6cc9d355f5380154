"""``python -m ingest``: sources into Neo4j."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from kg import cli

if TYPE_CHECKING:
    from ingest.report import Report

SHOWN = 5
"""Rename candidates that are printed."""


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """The options of all commands that read a source."""

    source: tyro.conf.Positional[str]
    """Which reader understands the input: fibo, umls, wikidata, rdf, obo, table, openstax, cuad or cpc."""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Files or folders; of obo and cpc, files."""
    source_id: str | None = None
    """Name of the data set in the graph; default what the source is called, or the name of the first path."""
    prefix: str | None = None
    """Prefix of the ids of a table; default the source id."""
    release: str | None = None
    """Release that is loaded; default what the input says of itself."""
    sab: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of umls, only this source vocabulary (SNOMEDCT_US, MSH …); may be given again."""
    languages: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only names in this language, best first; may be given again. Default: all of umls, en of wikidata (or all)."""
    attributes: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of umls, this attribute (ATN of MRSAT) or all; may be given again. Default: ids in other registers."""
    also: tyro.conf.UseAppendAction[tuple[Literal["suppressible", "siblings", "qualifiers", "self-loops"], ...]] = ()
    """Of umls, rows that are skipped otherwise; may be given again."""
    classes: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of wikidata, only items of this class (Q5 …) and of its subclasses; may be given again."""
    properties: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of wikidata, only statements of this property (P17 …), and P31 and P279; may be given again."""
    ids: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of wikidata, only the entities in this file, an id a line, and what they refer to; may be given again."""
    max_bad: int | None = None
    """Stop when more lines than so many are unreadable; default: read on, whatever comes."""
    quarantine: Path | None = None
    """File for unreadable lines (file, line, reason, text); default quarantine/SOURCE.jsonl below KGFUSE_HOME."""
    engine: Literal["local", "ray"] = "local"
    """Where RDF is parsed: in processes of this machine, or on a Ray cluster (RAY_ADDRESS)."""
    report: Path | None = None
    """Write the load report to this file, too."""

    def how(self) -> dict[str, Any]:
        """The options as ``ingest.run`` takes them; a report that could not be saved is refused before the work."""
        from ingest.report import writing

        if self.report is not None:
            with writing(self.report, "--report"):
                pass
        selecting = ("sab", "languages", "attributes", "also", "classes", "properties", "ids")
        names = ("source_id", "prefix", "release", "max_bad", "quarantine", "engine", *selecting)
        return {name: getattr(self, name) for name in names}

    def show(self, report: "Report") -> None:
        """Print what a load did, and save it where ``--report`` says."""
        from ingest.report import writing

        said = report.as_json()
        kept = ", ".join(f"{count:,} {what}" for what, count in sorted(said["kept"].items(), key=lambda kv: -kv[1]))
        name = f"{report.source} {report.release}".strip()
        print(f"{name}: read {report.read:,} statements ({report.path})")
        print(f"  kept: {kept}")
        for reason, count in said["skipped"].items():
            print(f"  skipped {count:,}: {reason}")
        if report.num_quarantined:
            first = report.quarantined[0]
            print(
                f"  quarantined {report.num_quarantined:,}; first: {first['file']}:{first['line']}: {first['reason']}"
            )
            print(f"  all of them: {report.quarantine_file}")
        if report.licence:
            print(f"  licence: {report.licence}")
        for note in report.notes:
            print(f"  note: {note if len(note) < 300 else note[:300] + ' …'}")
        for what, counts in report.changes.items():
            if what == "rename_candidates":
                for pair in counts[:SHOWN]:
                    print(f"  renamed? {pair['name']}: {pair['iri']} → {pair['new_iri']}")
                if len(counts) > SHOWN:
                    print(f"  renamed? {len(counts) - SHOWN:,} more (all of them in --report)")
            else:
                print(f"  {what}: {', '.join(f'{number:,} {how}' for how, number in counts.items())}")
        written = ", ".join(f"{count:,} {what}" for what, count in said["written"].items())
        removed = "".join(f", {count:,} {what} removed" for what, count in said["removed"].items() if count)
        print(
            f"  written: {written}{removed}; {said['seconds']} s, {said['cpu_seconds']} CPU-s, {said['peak_rss_mb']} MB"
        )
        if report.snapshot:
            print(f"  snapshot: {report.snapshot}")
        if self.report is not None:
            with writing(self.report, "--report"):
                report.save(self.report)


@dataclass(frozen=True, kw_only=True)
class Load(_Reading):
    """Read a source and bring the graph to hold it; loading the same again changes nothing."""

    bulk: bool = False
    """Build a new store with Neo4j's own importer; the graph must be empty, and Neo4j the local one."""
    transactional: bool = False
    """Write through transactions. Without either, large inputs into an empty local graph go in bulk."""

    def run(self) -> None:
        from ingest.run import load_source
        from kg.errors import ConfigError

        if self.bulk and self.transactional:
            raise ConfigError("--bulk and --transactional exclude each other; give one of them, or neither.")
        bulk = True if self.bulk else False if self.transactional else None
        self.show(load_source(self.source, self.paths, bulk=bulk, **self.how()))


@dataclass(frozen=True, kw_only=True)
class Refresh(_Reading):
    """Bring the graph to the next release of a source, as if that alone had been loaded, and make a new snapshot.

    Entities that are gone become tombstones: deprecated, without relationships, in no snapshot.
    """

    dry_run: bool = False
    """Say what would change and change nothing."""
    prune: bool = False
    """Delete what is gone, and the tombstones of earlier releases."""
    force: bool = False
    """Take a release that has lost more than a fifth of its entities."""

    def run(self) -> None:
        from ingest.run import refresh_source

        own = {"dry_run": self.dry_run, "prune": self.prune, "force": self.force}
        self.show(refresh_source(self.source, self.paths, **(self.how() | own)))


@dataclass(frozen=True, kw_only=True)
class Status:
    """List the sources in the graph with their releases."""

    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from ingest.difference import read_sources
        from kg.settings import Settings
        from kg.store import open_store

        with open_store(Settings.from_env()) as store:
            sources = [row for _, row in sorted(read_sources(store).items())]
        if self.json:
            print(json.dumps(sources))
            return
        for row in sources:
            print(f"{row['id']:16} {row['release'] or '-':12} loaded {row['loaded_at']}  {row['sha256'][:16]}")
        if not sources:
            print("nothing is loaded; see: python -m ingest load --help")


@dataclass(frozen=True, kw_only=True)
class Mine:
    """Build a starter graph from texts: terms by C-value, relations by patterns and co-occurrence, with their evidence.

    Load it with: python -m ingest load table DIR --source-id NAME
    """

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Texts: .txt, or .jsonl with the key text, plain or packed, or folders of them."""
    out: Path
    """Folder for names.tsv and edges.tsv."""
    terms: int = 2000
    """At most so many terms."""
    min_count: int = 3
    """Least number of times that a term, and the meeting of two terms, occurs."""
    spacy: str | None = None
    """Take noun chunks of this spaCy pipeline (en_core_web_sm) as candidates, not runs between stop words."""

    def run(self) -> None:
        from ingest.mining.write import mine
        from kg.errors import ConfigError

        if not self.paths or self.terms < 1 or self.min_count < 1:
            raise ConfigError("Name texts to mine; --terms and --min-count are 1 or more.")
        limits = {"limit": self.terms, "min_count": self.min_count}
        num_terms, num_edges = mine(self.paths, self.out, spacy_model=self.spacy, **limits)
        print(f"{num_terms:,} terms and {num_edges:,} relations, all of them mined, none checked: {self.out}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run("python -m ingest", [Load, Refresh, Status, Mine], argv)


if __name__ == "__main__":
    sys.exit(main())
