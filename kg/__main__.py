"""``python -m kg``: local server, Cypher, snapshots, links and the API; and ``kgfuse``, which offers all commands."""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from kg import cli

if TYPE_CHECKING:
    from kg.linking import Linker

MAX_TIMEOUT_S = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start the local Neo4j and leave it running until `stop`."""

    def run(self) -> None:
        from kg.errors import ConfigError
        from kg.local_server import LocalServer
        from kg.settings import Settings

        settings = Settings.from_env()
        if settings.neo4j_uri is not None:
            raise ConfigError(f"NEO4J_URI is {settings.neo4j_uri}: commands use that; unset it to use the local Neo4j.")
        server = LocalServer(settings.home)
        address = server.start(keep=True)
        server.release()
        print(f"Neo4j runs at {address.uri}, user {address.user}; its password is in {server.folder / 'password'}")


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Stop the local Neo4j."""

    def run(self) -> None:
        from kg.local_server import LocalServer
        from kg.settings import Settings

        print("Neo4j is stopped" if LocalServer(Settings.from_env().home).stop() else "no local Neo4j was running")


@dataclass(frozen=True, kw_only=True)
class Status:
    """Say which Neo4j the commands use, and whether it runs."""

    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from kg.local_server import LocalServer
        from kg.settings import Settings
        from kg.store import open_store

        settings = Settings.from_env()
        if settings.neo4j_uri is not None:
            with open_store(settings) as store:
                status = {"running": True, "version": store.server_version, "uri": settings.neo4j_uri}
        else:
            status = LocalServer(settings.home).status()
        if self.json:
            print(json.dumps(status))
        elif settings.neo4j_uri is not None:
            print(f"Neo4j {status['version']} answers at {status['uri']} (NEO4J_URI)")
        elif status["running"]:
            until = "until `python -m kg stop`" if status["kept"] else "as long as a command uses it"
            print(f"Neo4j {status['version']} runs at {status['uri']} (pid {status['pid']}), {until}")
        else:
            print(f"Neo4j {status['version']} does not run; its store is {status['folder']}")


@dataclass(frozen=True, kw_only=True)
class Cypher:
    """Run one read-only Cypher statement and print its rows."""

    query: tyro.conf.Positional[str]
    """For example: MATCH (e:Entity) RETURN e.name LIMIT 5"""
    json: bool = False
    """Print one JSON object: columns, rows, truncated."""
    limit: int = 100
    """Rows printed at most."""
    timeout: float = 30
    """Seconds after which the query is ended."""

    def run(self) -> None:
        from kg.errors import ConfigError
        from kg.explore import brief, run_cypher
        from kg.settings import Settings
        from kg.store import open_store

        if self.limit < 0 or not 0 < self.timeout < MAX_TIMEOUT_S:
            raise ConfigError(f"--limit must be at least 0, and --timeout more than 0 and less than {MAX_TIMEOUT_S}.")
        with open_store(Settings.from_env()) as store:
            answer = run_cypher(store, self.query, limit=self.limit, timeout_s=self.timeout)
        if self.json:
            rows = {"columns": answer.columns, "rows": answer.rows, "truncated": answer.truncated}
            print(json.dumps(rows, ensure_ascii=False))
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(*map(escape, answer.columns))
        for row in answer.rows:
            table.add_row(*(escape(brief(value)) for value in row))
        Console().print(table)
        more = f"; there are more, see --limit (now {self.limit})" if answer.truncated else ""
        print(f"{len(answer.rows)} rows{more}")


@dataclass(frozen=True, kw_only=True)
class Hash:
    """Print one sha256 of the graph's nodes, relationships and properties."""

    def run(self) -> None:
        from kg.graph_hash import graph_hash
        from kg.settings import Settings
        from kg.store import open_store

        with open_store(Settings.from_env()) as store:
            print(graph_hash(store))


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Write the graph to a new version of the snapshot and print its folder; unchanged, the latest one is printed."""

    out: Path | None = None
    """Where the versions are; default KGFUSE_HOME/snapshots."""
    sources: tuple[str, ...] = ()
    """Only entities that one of these sources asserts, for example: fibo."""

    def run(self) -> None:
        from kg.settings import Settings
        from kg.snapshot import build_snapshot
        from kg.store import open_store

        settings = Settings.from_env()
        with open_store(settings) as store:
            print(build_snapshot(store, self.out or settings.home / "snapshots", sources=self.sources))


@dataclass(frozen=True, kw_only=True)
class Link:
    """Find the entities that a text, or each text of a file, mentions."""

    text: tyro.conf.Positional[str | None] = None
    """For example: "The European Central Bank raised rates." """
    file: Path | None = None
    """JSON lines {"id", "text"}, packed if it ends in .gz; gives JSON lines {"id", "links"}."""
    out: Path | None = None
    """Where the lines of --file go; default standard output. A run that was interrupted goes on."""
    snapshot: Path | None = None
    """Folder written by `snapshot`; default the latest below KGFUSE_HOME/snapshots."""
    ranker: Path | None = None
    """Folder written by `python -m models.rerank`; without one the dictionary alone decides."""
    threshold: float | None = None
    """Confidence below which a mention has no entity (NIL); default the ranker's, or 0.3."""
    offset_unit: Literal["code-point", "utf-16", "utf-8"] = "code-point"
    """What start and end count: Unicode code points, UTF-16 units (JavaScript, Java) or UTF-8 bytes."""
    workers: int | None = None
    """Processes that link --file; default 1, or one for each core of a Ray cluster. The output is the same."""
    engine: Literal["local", "ray"] = "local"
    """Where --file is linked: on this machine, or with Ray Data. The output is the same."""
    html: Path | None = None
    """Write the text with its links as a page (displaCy) to this file."""
    entity_url: str | None = None
    """Where the links of --html lead, for example: https://www.wikidata.org/wiki/{name}; {id} is wd:Q42, {name} Q42."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from kg.errors import ConfigError
        from kg.linking import Linker
        from kg.settings import Settings
        from kg.snapshot import find_snapshot

        if (self.text is None) == (self.file is None):
            raise ConfigError("Give either a text or --file IN.jsonl.")
        if self.file is not None and (self.html or self.json):
            raise ConfigError("--html and --json are for a text; what --file gives is JSON lines.")
        if self.text is not None and (self.out or self.workers or self.engine != "local"):
            raise ConfigError("--out, --workers and --engine are for --file IN.jsonl, not for a text.")
        if self.html is not None and (self.html.is_dir() or not self.html.parent.is_dir()):
            raise ConfigError(f"--html is {self.html}; expected a file in an existing folder.")
        folder = find_snapshot(self.snapshot, Settings.from_env())
        linker = Linker.load(folder, ranker=self.ranker, threshold=self.threshold)
        if self.file is not None:
            self._link_file(linker, self.file)
        elif self.text is not None:
            self._link_text(linker, self.text)

    def _link_file(self, linker: "Linker", source: Path) -> None:
        from kg.linking.corpus import link_corpus, read_lines
        from kg.linking.files import link_file

        how: Any = {"offset_unit": self.offset_unit, "engine": self.engine, "workers": self.workers}
        if self.out is not None:
            print(f"{link_file(linker, source, self.out, **how)} texts linked, see {self.out}")
            return
        for chunk in link_corpus(linker, source, read_lines(source), **how):
            sys.stdout.write(chunk.lines.decode("ascii"))

    def _link_text(self, linker: "Linker", text: str) -> None:
        from kg.linking import to_html
        from kg.linking.offsets import links_as_json

        links = links_as_json(text, linked := linker.link(text), self.offset_unit)
        if self.html is not None:
            self.html.write_text(to_html(text, linked, entity_url=self.entity_url), encoding="ascii")
            print(f"{len(links)} links, see {self.html}")
        elif self.json:
            print(json.dumps(links))
        else:
            shown = "{start}-{end}\t{text!r}\t{id}\t{name}\t{confidence:.2f}"
            rows = [shown.format_map({**link, "id": link["id"] or "NIL", "name": link["name"] or ""}) for link in links]
            print("\n".join(rows) or "no mentions")


@dataclass(frozen=True, kw_only=True)
class Api:
    """Serve links and the graph over HTTP until stopped; the page of the API is at /docs."""

    host: str = "127.0.0.1"
    """Address to listen on; any but the local machine's needs KGFUSE_API_TOKEN."""
    port: int = 8000
    """Port to listen on."""
    snapshot: Path | None = None
    """Folder written by `snapshot`; default the latest below KGFUSE_HOME/snapshots, followed while the server runs."""
    ranker: Path | None = None
    """Folder written by `python -m models.rerank`; without one the dictionary alone decides."""
    workers: int = 2
    """Texts linked at the same time."""
    queue: int = 64
    """Requests for links that may wait; more are told to come back (429)."""
    deadline: float = 10
    """Seconds after which a request for links is given up (503)."""
    cypher: bool = False
    """Also answer POST /cypher: statements that read the graph, from anyone who may use the API."""

    def run(self) -> None:
        from kg.api import CypherLimits, check_address, graph_router, link_router, serve
        from kg.errors import ConfigError
        from kg.linking import Linker
        from kg.linking.live import LiveLinker
        from kg.settings import Settings
        from kg.snapshot import find_snapshot
        from kg.store import open_store

        settings = Settings.from_env()
        check_address(self.host, settings.api_token)
        if self.workers < 1 or self.queue < 0 or self.deadline <= 0:
            raise ConfigError("--workers must be at least 1, --queue at least 0, and --deadline more than 0.")
        linker = Linker.load(find_snapshot(self.snapshot, settings), ranker=self.ranker)
        links = link_router(
            LiveLinker(linker, settings.home / "snapshots") if self.snapshot is None else linker,
            workers=self.workers,
            queue=self.queue,
            deadline_s=self.deadline,
        )
        graph = graph_router(lambda: open_store(settings), cypher=CypherLimits() if self.cypher else None)
        serve(links, graph, host=self.host, port=self.port, token=settings.api_token)


COMMANDS = (Start, Stop, Status, Cypher, Hash, Snapshot, Link, Api)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run("python -m kg", COMMANDS, argv)


ENTRY_POINTS = {
    "kg": ("kg.__main__", "local Neo4j, Cypher, snapshots, links, API"),
    "ingest": ("ingest.__main__", "RDF and other sources into Neo4j"),
    "train": ("models.train_kgbert", "all stages from the graph to the report"),
    "serve": ("models.serve", "predictions over HTTP"),
    "rerank": ("models.rerank.__main__", "teach the entity linker from texts with gold links"),
    "explain": ("models.explain", "why a model said what it said"),
}
"""By name, since ``kg`` imports neither ``ingest`` nor ``models``."""


def kgfuse(argv: Sequence[str] | None = None) -> int:
    """The console script: ``kgfuse ingest load …`` is ``python -m ingest load …``, ``kgfuse start`` that of ``kg``."""
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    own = {command.__name__.lower(): (command.__doc__ or "").partition("\n")[0] for command in COMMANDS}
    if words[0] in ENTRY_POINTS:
        entry = importlib.import_module(ENTRY_POINTS[words[0]][0])
        return int(entry.main(words[1:]))
    if words[0] in own:
        return main(words)
    if words[0] not in ("-h", "--help"):
        print(f"kgfuse: there is no command {words[0]!r}; `kgfuse --help` lists them", file=sys.stderr)
        return cli.EXIT_USAGE
    lines = [f"  {name:8} {says}" for name, (_, says) in ENTRY_POINTS.items()]
    lines += ["", "and those of kg directly:", *(f"  {name:8} {says}" for name, says in own.items())]
    print("usage: kgfuse COMMAND …\n\n" + "\n".join(lines) + "\n\n`kgfuse COMMAND --help` says more.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
