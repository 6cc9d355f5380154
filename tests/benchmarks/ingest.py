"""What ingestion costs, beside other ways to do the same with the same statements; nothing is asserted.

``python tests/benchmarks/ingest.py`` prints a table; ``--json`` writes it with the machine that it was measured on.

The figure that compares is CPU seconds of client and server together. The Neo4j is one of this program's own, in a
folder for temporary files, and warm: a JVM that has just started is half as fast.
"""

import argparse
import gzip
import os
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # before this folder, whose ``ingest`` is this file

import peers
from measuring import ROOT, Job, Row, apart, machine, metered, save, show
from rich.console import Console

from ingest.rdf import find_files, parse
from ingest.report import Report, cpu_seconds_of
from ingest.run import load_source, refresh_source
from kg.errors import ConfigError, KGError
from kg.local_server import LocalServer
from kg.settings import Settings
from kg.snapshot import build_snapshot
from kg.store import open_store
from tests.ingest.faults import empty

SIZES: Mapping[str, Mapping[str, Any]] = {
    "small": {
        "lines": 4_000,
        "bulk": 8_000,
        "rdflib": 2_000,
        "merge": 200,
        "peer": 500,
        "fibo": "FND/AgentsAndPeople",
        "changed": 1,
    },
    "full": {
        "lines": 1_000_000,
        "bulk": 4_000_000,
        "rdflib": 50_000,
        "merge": 5_000,
        "peer": 15_000,
        "fibo": "",
        "changed": 100,
    },
}
"""Lines about the replicated items, also for the bulk path; statements for what is too slow for all of them; part of
FIBO; one item in how many is another in the next release."""
SHIFT = 100_000_000
"""Between the numbers of two copies of an item; those of the real ones are below."""
SETTLE_S, QUIET = 60, 0.05
"""How long to wait until the server uses less than this share of a core."""
COUNTS = {
    "nodes": "MATCH (n) RETURN count(n) AS number",
    "relationships": "MATCH ()-[r]->() RETURN count(r) AS number",
    "properties": """
    CALL () { MATCH (n) RETURN sum(size(keys(n))) AS some UNION ALL MATCH ()-[r]->() RETURN sum(size(keys(r))) AS some }
    RETURN sum(some) AS number
    """,
}


class Bench:
    """The data in a size, a Neo4j, and the rows so far."""

    def __init__(self, work: Path, data: Path, size: str) -> None:
        self.work, self.data, self.size = work, data / "kg", SIZES[size]
        self.home = work / "home"
        self.server = LocalServer(self.home)
        self.rows: list[Row] = []
        self.skipped: dict[str, str] = {}

    def fibo(self, release: str) -> list[Path]:
        return [self.data / f"fibo_{release}" / self.size["fibo"]]

    def items(self, number: int, *, changed: int = 0) -> list[Path]:
        """So many lines of N-Triples about replicated items, as ``replicated`` makes them."""
        file = self.work / f"items-{number}-{changed}.nt"
        if not file.exists():
            with gzip.open(self.data / "wikidata_truthy_735.nt.gz") as real, file.open("wb") as out:
                out.writelines(islice(replicated(real.readlines(), changed=changed), number))
        return [file]

    def measure(self, measurement: str, what: str, job: Job, *args: Any, home: Path | None = None) -> Row:
        """Run ``job`` and count what is in the graph then, unless it has counted itself."""
        say(f"{measurement}: {what}")
        home = home or self.home
        figures = apart(metered, home, job, *args)
        if LocalServer(home).folder.exists() and "nodes" not in figures:
            with open_store(Settings(home=home)) as store:
                figures |= {name: store.read(query, timeout_s=600)[0]["number"] for name, query in COUNTS.items()}
        self.rows.append(Row(measurement=measurement, what=what, **figures))
        return self.rows[-1]

    def warm_up(self) -> None:
        """Start the server and have it do what is measured later, with something else; leave the graph empty."""
        if self.server.status()["running"]:
            self.empty()
            return
        self.server.start()
        items, how = self.items(self.size["rdflib"]), {"source_id": "first"}
        for what, job, *rest in (
            ("a load", load, "fibo", self.fibo("2025Q1"), how),
            ("a refresh", refresh, "rdf", items, {**how, "force": True}),
            ("another load", load, "fibo", self.fibo("2025Q1"), {"source_id": "second"}),
        ):
            say(f"warming up: {what}")
            apart(metered, self.home, job, *rest)
        self.empty()

    def empty(self) -> None:
        """Empty the graph, and wait until the server has nothing left to do."""
        with open_store(Settings(home=self.home)) as store:
            empty(store)
        pid, deadline = self.server.status()["pid"], time.monotonic() + SETTLE_S
        used = QUIET
        while used >= QUIET and time.monotonic() < deadline:
            before = cpu_seconds_of(pid)
            time.sleep(1)
            used = cpu_seconds_of(pid) - before

    def import_this(self, measurement: str, statements: int) -> None:
        """The graph as it is, by Neo4j's import tool into another store."""
        folder = Path(tempfile.mkdtemp(dir=self.work))
        with open_store(Settings(home=self.home)) as store:
            peers.write_csv(store, folder)
        self.measure(measurement, "import tool, CSV ready-made", peers.with_import_tool, folder, statements)


def replicated(lines: Sequence[bytes], *, changed: int) -> Iterator[bytes]:
    """``lines`` without end; in each copy, the items and the pages about them are others.

    Args:
        changed: one item in so many has other English texts, and is an instance of Q5 and nothing else; 0 for none.
    """
    for copy in count():

        def shifted(number: re.Match[bytes], by: int = copy * SHIFT) -> bytes:
            return b"%d" % (int(number[0]) + by)

        for said in lines:
            line = re.sub(rb"(?<=/entity/Q)\d+", shifted, said)
            subject = line.partition(b"> ")[0]
            if not subject.startswith(b"<http://www.wikidata.org/"):
                line = line.replace(b"> ", b"?copy=%d> " % copy, 1)
            elif changed and zlib.crc32(subject) % changed == 0:
                line = line.replace(b'"@en .', b' (new)"@en .')
                line = re.sub(rb"(?<=/P31> )<.*>", b"<http://www.wikidata.org/entity/Q5>", line)
            yield line


# What is measured; each runs in a process of its own.


def canonical_rows(paths: Sequence[Path], workers: int) -> dict[str, Any]:
    report = Report("benchmark")
    parse(find_files(paths), report, workers=workers)
    return {"statements": report.read}


def load(source: str, paths: Sequence[Path], how: Mapping[str, Any], *, bulk: bool = False) -> dict[str, Any]:
    report = load_source(source, paths, bulk=bulk, **how)
    return {"statements": report.read, "note": f"kept {sum(report.kept.values()):,}"}


def load_in_bulk(source: str, paths: Sequence[Path], how: Mapping[str, Any]) -> dict[str, Any]:
    return load(source, paths, how, bulk=True)


def refresh(source: str, paths: Sequence[Path], how: Mapping[str, Any]) -> dict[str, Any]:
    report = refresh_source(source, paths, **how)
    entities = ", ".join(f"{number:,} {what}" for what, number in report.changes["entities"].items())
    writes = sum(report.written.values()) + sum(report.removed.values())
    return {"statements": report.read, "note": f"entities: {entities}; {writes:,} writes"}


def snapshot() -> dict[str, Any]:
    settings = Settings.from_env()
    with open_store(settings) as store:
        build_snapshot(store, settings.home / "another")
    return {}


# The measurements.


def parse_items(bench: Bench) -> None:
    """N-Triples to canonical rows, beside parsers that keep nothing, or a graph."""
    paths = bench.items(bench.size["lines"])
    _parse(bench, "parse N-Triples", paths)
    _scale(
        bench.measure("parse N-Triples", "rdflib", peers.with_rdflib, bench.items(bench.size["rdflib"])),
        bench.size["lines"],
    )


def parse_fibo(bench: Bench) -> None:
    """RDF/XML to canonical rows, beside parsers."""
    paths = bench.fibo("2026-07")
    _parse(bench, "parse FIBO", paths)
    bench.measure("parse FIBO", "rdflib", peers.with_rdflib, paths)


def load_fibo(bench: Bench) -> None:
    """FIBO into an empty graph, beside what else there is to do it with."""
    name, paths = "load FIBO", bench.fibo("2026-07")
    whole = bench.measure(name, "kgfuse", load, "fibo", paths, {}).statements
    bench.import_this(name, whole)
    others = {"rdflib, MERGE by row": (peers.with_merge, bench.size["merge"])}
    if find_spec("rdflib_neo4j") is None:
        bench.skipped[f"{name}: rdflib-neo4j"] = "pip install --target FOLDER rdflib-neo4j; then --peers FOLDER"
    else:
        others["rdflib-neo4j, no blank types"] = (peers.with_rdflib_neo4j, bench.size["peer"])
        others["rdflib-neo4j, files as they are"] = (peers.with_rdflib_neo4j, None)
    for what, (job, limit) in others.items():
        say(f"warming up: {what}")
        apart(job, bench.home, bench.fibo("2025Q1"), limit)
        bench.empty()
        row = bench.measure(name, what, job, bench.home, paths, limit)
        if limit is not None:
            _scale(row, whole)


def load_items(bench: Bench) -> None:
    """Items rich in text through transactions."""
    name, paths = "load items", bench.items(bench.size["lines"])
    row = bench.measure(name, "reader rdf", load, "rdf", paths, {"source_id": "items"})
    bench.import_this(name, row.statements)
    for language in ("all", "en"):
        bench.empty()
        bench.measure(name, f"reader wikidata, {language}", load, "wikidata", paths, {"languages": (language,)})


def bulk_items(bench: Bench) -> None:
    """More of the items in bulk. That replaces a store, so it has a server to itself: two cold starts are counted."""
    paths, home = bench.items(bench.size["bulk"]), bench.work / "bulk"
    try:
        bench.measure("load items in bulk", "reader rdf", load_in_bulk, "rdf", paths, {"source_id": "items"}, home=home)
    finally:
        LocalServer(home).stop()
        shutil.rmtree(home, ignore_errors=True)


def refresh_fibo(bench: Bench) -> None:
    """From one release to one of five quarters later, as a share of loading that one."""
    full = bench.measure("refresh FIBO", "load 2026-07", load, "fibo", bench.fibo("2026-07"), {})
    bench.empty()
    bench.measure("refresh FIBO", "load 2025Q1", load, "fibo", bench.fibo("2025Q1"), {})
    _refresh(bench, full, "fibo", bench.fibo("2026-07"), {})


def refresh_items(bench: Bench) -> None:
    """One item in a hundred changed, as a share of loading them all."""
    number, how = bench.size["lines"], {"source_id": "items"}
    full = bench.measure("refresh items", "load", load, "rdf", bench.items(number), how)
    _refresh(bench, full, "rdf", bench.items(number, changed=bench.size["changed"]), how)


def _parse(bench: Bench, name: str, paths: Sequence[Path]) -> None:
    for workers in (1, 2):
        bench.measure(name, f"kgfuse, workers: {workers}", canonical_rows, paths, workers)
    bench.measure(name, "pyoxigraph, every term", peers.with_pyoxigraph, paths)


def _refresh(bench: Bench, full: Row, source: str, paths: Sequence[Path], how: Mapping[str, Any]) -> None:
    """Twice; a refresh makes a snapshot of the whole graph, which is measured by itself, too."""
    row = bench.measure(full.measurement, "refresh", refresh, source, paths, how)
    once = bench.measure(full.measurement, "snapshot alone", snapshot)
    bench.measure(full.measurement, "refresh with nothing changed", refresh, source, paths, how)
    for who, spent, less, of in (
        ("server CPU", row.server_cpu_s, once.server_cpu_s, full.server_cpu_s),
        ("all CPU", row.cpu_s, once.cpu_s, full.cpu_s),
    ):
        row.note += f"; {who} {spent / of:.0%} of the load's, {(spent - less) / of:.0%} without the snapshot"


def _scale(row: Row, whole: int) -> None:
    """Say what all statements would take, where the first of them were measured."""
    seconds = row.cpu_s * whole / max(row.statements, 1)
    row.note = f"the first {row.statements:,} statements; all {whole:,} at that rate: {seconds:,.1f} CPU-s"


MEASUREMENTS: Mapping[str, Callable[[Bench], None]] = {
    "parse-items": parse_items,
    "parse-fibo": parse_fibo,
    "load-fibo": load_fibo,
    "load-items": load_items,
    "refresh-fibo": refresh_fibo,
    "refresh-items": refresh_items,
    "bulk-items": bulk_items,
}


def say(what: str) -> None:
    Console(stderr=True).print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False)


def run(options: argparse.Namespace, work: Path) -> None:
    """Measure, and whatever happens: stop the server, show and save what there is."""
    data = Settings.from_env().data or ROOT.parent / "shared" / "data"
    if not data.is_dir():
        raise ConfigError(f"No data folder at {data}; set KGFUSE_DATA.")
    for name in [name for name in os.environ if name.startswith(("NEO4J_", "KGFUSE_"))]:
        del os.environ[name]  # somebody's own graph is not for this
    bench = Bench(work, data, options.size)
    about = {"machine": machine(bench.server), "size": options.size, "skipped": bench.skipped}
    chosen = options.only or list(MEASUREMENTS)
    try:
        for name in chosen:
            if name.startswith(("load", "refresh")):
                bench.warm_up()
            MEASUREMENTS[name](bench)
    finally:
        bench.server.stop()
        bench.server.release()
        if bench.rows:
            show(bench.rows)
        for what, reason in bench.skipped.items():
            print(f"{what} was skipped: {reason}")
        if options.json and bench.rows:
            save(options.json, bench.rows, about)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=f"of: {', '.join(MEASUREMENTS)}"
    )
    parser.add_argument(
        "--size", choices=SIZES, default="full", help="small shows that it runs; its figures say nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where `pip install --target` put rdflib-neo4j")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))  # last, so that it uses the driver and the rdflib that the others do
    try:
        with tempfile.TemporaryDirectory(prefix="kgfuse-benchmark-") as work:
            run(options, Path(work))
    except KGError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; the Neo4j of the benchmark is stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
