"""``python -m ingest``: sources into Neo4j."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from kg import cli


@dataclass(frozen=True, kw_only=True)
class Load:
    """Read a source and bring the graph to hold it; loading the same again changes nothing."""

    source: tyro.conf.Positional[str]
    """Which reader understands the input: fibo, umls, wikidata, rdf, obo or table."""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Files or folders."""
    source_id: str | None = None
    """Name of the data set in the graph; default fibo, umls or wikidata, or the name of the first path."""
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
    report: Path | None = None
    """Write the load report to this file, too."""
    transactional: bool = True
    """Write through transactions into the running server (the only way so far)."""

    def run(self) -> None:
        from ingest.run import load_source

        report = load_source(
            self.source,
            self.paths,
            source_id=self.source_id,
            prefix=self.prefix,
            release=self.release,
            sab=self.sab,
            languages=self.languages,
            attributes=self.attributes,
            also=self.also,
            classes=self.classes,
            properties=self.properties,
            ids=self.ids,
        )
        if self.report is not None:
            report.save(self.report)
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
        if report.licence:
            print(f"  licence: {report.licence}")
        for note in report.notes:
            print(f"  note: {note if len(note) < 300 else note[:300] + ' …'}")
        written = ", ".join(f"{count:,} {what}" for what, count in said["written"].items())
        print(f"  written: {written}; {said['seconds']} s, {said['cpu_seconds']} CPU-s, {said['peak_rss_mb']} MB")


@dataclass(frozen=True, kw_only=True)
class Status:
    """List the sources in the graph with their releases."""

    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from ingest.load import READ_SOURCES
        from kg.settings import Settings
        from kg.store import open_store

        with open_store(Settings.from_env()) as store:
            sources = sorted(store.read(READ_SOURCES), key=lambda row: str(row["id"]))
        if self.json:
            print(json.dumps(sources))
            return
        for row in sources:
            print(f"{row['id']:16} {row['release'] or '-':12} loaded {row['loaded_at']}  {row['sha256'][:16]}")
        if not sources:
            print("nothing is loaded; see: python -m ingest load --help")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run("python -m ingest", [Load, Status], argv)


if __name__ == "__main__":
    sys.exit(main())
