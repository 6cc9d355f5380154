"""Other ways from RDF into Neo4j, each a function that gives how many statements it took."""

import csv
import os
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import neo4j
import pyoxigraph
import rdflib

from ingest.rdf import find_files
from kg import neo4j_process
from kg.errors import StoreFailed
from kg.local_server import LocalServer
from kg.schema import quote_name
from kg.store import GraphStore

HEAP_MB = 1024
MAX_COLUMNS = 64
"""The importer looks at every column for every row: 440 of them cost a quarter of its speed."""
UNIQUE = "CREATE CONSTRAINT IF NOT EXISTS FOR (r:Resource) REQUIRE r.uri IS UNIQUE"
ALL_NODES = (
    "MATCH (n) RETURN [elementId(n), reduce(all = '', l IN labels(n) | all + $sep + l)] AS fixed, properties(n) AS p"
)
ALL_RELATIONSHIPS = "MATCH (a)-[r]->(b) RETURN [elementId(a), elementId(b), type(r)] AS fixed, properties(r) AS p"
CSV_FILES = (
    ("nodes", ALL_NODES, (":ID", ":LABEL")),
    ("relationships", ALL_RELATIONSHIPS, (":START_ID", ":END_ID", ":TYPE")),
)
CSV_TYPES = {
    "str": "string",
    "int": "long",
    "float": "double",
    "bool": "boolean",
    "Date": "date",
    "DateTime": "datetime",
}
BETWEEN = "\x1f"
"""Labels and members of lists."""


def with_pyoxigraph(paths: Sequence[Path]) -> dict[str, Any]:
    """Every term read, nothing kept."""
    number = 0
    for file in find_files(paths):
        for quad in pyoxigraph.parse(path=str(file), base_iri=file.absolute().as_uri()):
            said = quad.object
            _ = quad.subject.value, quad.predicate.value, said.value
            if isinstance(said, pyoxigraph.Literal):
                _ = said.language, said.datatype.value
            number += 1
    return {"statements": number}


def with_rdflib(paths: Sequence[Path]) -> dict[str, Any]:
    """Into graphs in memory."""
    return {"statements": sum(len(rdflib.Graph().parse(file)) for file in find_files(paths))}


def with_merge(home: Path, paths: Sequence[Path], limit: int) -> dict[str, Any]:
    """rdflib and the driver, as tutorials have it: a query for each statement."""
    number, address = 0, LocalServer(home).start()
    with neo4j.GraphDatabase.driver(address.uri, auth=(address.user, address.password)) as driver:
        with driver.session() as session:
            session.run(UNIQUE).consume()
            for subject, predicate, said in islice(_by_rdflib(paths), limit):
                name = quote_name(re.split("[/#]", predicate)[-1])
                if isinstance(said, rdflib.Literal):
                    query = f"MERGE (s:Resource {{uri: $s}}) SET s.{name} = $o"
                else:
                    query = f"MERGE (s:Resource {{uri: $s}}) MERGE (o:Resource {{uri: $o}}) MERGE (s)-[:{name}]->(o)"
                session.run(query, s=str(subject), o=str(said)).consume()
                number += 1
    return {"statements": number}


def with_rdflib_neo4j(home: Path, paths: Sequence[Path], limit: int | None) -> dict[str, Any]:
    """rdflib-neo4j in batches of 5000 entities, its default; what it dies of is the note.

    Args:
        limit: so many statements, without those that 1.1 dies of (classes without a name); None for all of them.
    """
    from rdflib_neo4j import HANDLE_VOCAB_URI_STRATEGY, Neo4jStore, Neo4jStoreConfig

    address, error = LocalServer(home).start(), ""
    login = {"uri": address.uri, "database": "neo4j", "user": address.user, "pwd": address.password}
    naming, blank_type = HANDLE_VOCAB_URI_STRATEGY.IGNORE, (rdflib.RDF.type, rdflib.BNode)
    usable = (row for row in _by_rdflib(paths) if limit is None or (row[1], type(row[2])) != blank_type)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        store = Neo4jStore(Neo4jStoreConfig(auth_data=login, batching=True, handle_vocab_uri_strategy=naming))
        try:
            for row in islice(usable, limit):
                store.add(row)
            store.commit(commit_nodes=True)
            store.commit(commit_rels=True)
        except Exception as failure:
            error = f"crashed at statement {store.total_triples + 1:,}: {type(failure).__name__}: {failure}"
        store.driver.close()
    return {"statements": 0 if error else store.total_triples, "note": error[:300]}


def with_import_tool(folder: Path, statements: int) -> dict[str, Any]:
    """``neo4j-admin database import full`` of the CSV in ``folder``, into a store there."""
    (folder / "conf").mkdir()
    neo4j_process.write_config(folder, HEAP_MB)
    done = subprocess.run(
        [
            *neo4j_process.java_command(HEAP_MB),
            *("org.neo4j.cli.AdminTool", "database", "import", "full", "neo4j"),
            *(f"--{name}={folder / name}.csv" for name, _, _ in CSV_FILES),
            *("--id-type=string", "--array-delimiter=U+001F", "--multiline-fields=true"),
        ],
        env=neo4j_process.admin_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StoreFailed(f"The import tool failed: {(done.stderr or done.stdout).strip()[-300:]}")
    counts = re.findall(r"([\d,]+) (nodes|relationships|properties)", done.stdout)
    return {"statements": statements, **{what: int(number.replace(",", "")) for number, what in counts}}


def write_csv(store: GraphStore, folder: Path) -> None:
    """The graph as CSV for the import tool: columns for the commonest properties, the others in one list."""
    for name, query, header in CSV_FILES:
        types: dict[str, Counter[str]] = defaultdict(Counter)
        for row in store.stream(query, sep=BETWEEN):
            for key, value in row["p"].items():
                types[key][_csv_type(value)] += 1
        common = sorted(types, key=lambda key: -types[key].total())[:MAX_COLUMNS]
        columns = {key: min(types[key]) if len(types[key]) == 1 else "string" for key in common}
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*header, *(f"{key}:{type_}" for key, type_ in columns.items()), "others:string[]"])
            for row in store.stream(query, sep=BETWEEN):
                fixed = [value.removeprefix(BETWEEN) for value in row["fixed"]]
                others = [f"{key}={_csv_value(value)}" for key, value in row["p"].items() if key not in columns]
                writer.writerow([*fixed, *(_csv_value(row["p"].get(key)) for key in columns), _csv_value(others)])


def _csv_type(value: Any) -> str:
    if isinstance(value, list):
        return _csv_type(value[0]) + "[]" if value else "string[]"
    return CSV_TYPES.get(type(value).__name__, "string")


def _csv_value(value: Any) -> str:
    if isinstance(value, list):
        return BETWEEN.join(map(_csv_value, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _by_rdflib(paths: Sequence[Path]) -> Iterator[tuple[Any, Any, Any]]:
    """Statements, those of one subject of a file together."""
    for file in find_files(paths):
        yield from rdflib.Graph().parse(file)
