"""Cypher from people: what is run, what is refused, and its limits."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kg.errors import KGError, QueryRefused
from kg.explore import brief, run_cypher
from kg.graph_hash import graph_hash
from kg.store import GraphStore
from tests.builders import write_tiny_graph

pytestmark = pytest.mark.neo4j
ROOT = Path(__file__).parent.parent.parent

STATEMENTS = [
    json.loads(line) for line in (ROOT / "tests/data/cypher_statements.jsonl").read_text("utf-8").splitlines()
]
"""What people may send, with the verdict that is expected; ``over_http`` where that is another one."""
READS = [one for one in STATEMENTS if one["verdict"] == "runs"]
REFUSED = [one for one in STATEMENTS if one["verdict"] == "refused"]


@pytest.fixture(scope="module")
def graph(connection: GraphStore) -> GraphStore:
    write_tiny_graph(connection)
    return connection


def test_there_are_statements_of_both_kinds() -> None:
    assert len(READS) > 40
    assert len(REFUSED) > 120


@pytest.mark.parametrize("one", READS, ids=lambda one: one["query"])
def test_statements_that_read_are_run(graph: GraphStore, one: dict[str, Any]) -> None:
    table = run_cypher(graph, one["query"], one.get("parameters"), limit=10, timeout_s=20)

    assert table.columns
    json.dumps(table.rows)


@pytest.mark.parametrize("one", [*REFUSED, {"query": ""}, {"query": " \n"}], ids=lambda one: one["query"])
def test_other_statements_are_refused_in_one_line(graph: GraphStore, one: dict[str, Any]) -> None:
    with pytest.raises(QueryRefused) as caught:
        run_cypher(graph, one["query"], one.get("parameters"), limit=10, timeout_s=20)

    assert len(str(caught.value).splitlines()) == 1


def test_nothing_of_all_that_changed_the_graph(graph: GraphStore) -> None:
    before = graph_hash(graph)
    for one in REFUSED:
        with pytest.raises(QueryRefused):
            run_cypher(graph, one["query"], one.get("parameters"), timeout_s=20)

    assert graph_hash(graph) == before
    assert graph.read("SHOW CONSTRAINTS YIELD name RETURN count(name) AS n") == [{"n": 4}]


def test_read_mode_alone_stops_every_write(graph: GraphStore) -> None:
    for query in (
        "CREATE (n)",
        "MERGE (n:X)",
        "MATCH (n) SET n.x = 1",
        "MATCH (n) DETACH DELETE n",
        "CREATE (:Y {z: 1})",
    ):
        with pytest.raises(KGError, match="(?i)writ"), graph.read_only(timeout_s=10) as transaction:
            transaction.run(query).consume()


def test_what_is_refused_is_named(graph: GraphStore) -> None:
    with pytest.raises(QueryRefused, match=r"dbms\.listConfig|about the server"):
        run_cypher(graph, "CALL dbms.listConfig()")
    with pytest.raises(QueryRefused, match="LOAD CSV"):
        run_cypher(graph, "LOAD CSV FROM 'file:///x' AS row RETURN row")
    with pytest.raises(QueryRefused, match=r"Unknown function 'unknown' \(line 1, column 18\)"):
        run_cypher(graph, "MATCH (n) RETURN unknown(n)")


def test_rows_beyond_the_limit_are_cut_off_and_it_is_said(graph: GraphStore) -> None:
    query = "UNWIND range(1, 100000000) AS i RETURN i"  # would take minutes to read to its end
    assert run_cypher(graph, query, limit=3).rows == [[1], [2], [3]]
    assert run_cypher(graph, query, limit=3).truncated
    assert not run_cypher(graph, "UNWIND [1, 2, 3] AS i RETURN i", limit=3).truncated


def test_a_query_ends_at_its_time_limit_on_the_server_too(graph: GraphStore) -> None:
    started = time.monotonic()
    with pytest.raises(QueryRefused, match="took longer"):
        run_cypher(graph, "UNWIND range(1, 1000000) AS a UNWIND range(1, 1000000) AS b RETURN count(*)", timeout_s=1)

    assert time.monotonic() - started < 8
    running = graph.read(
        "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS '1000000' RETURN count(*) AS n"
    )
    assert running == [{"n": 1}]  # only the one that asks


def test_a_query_that_would_fill_the_memory_is_ended(graph: GraphStore) -> None:
    with pytest.raises(QueryRefused, match="memory"):
        run_cypher(graph, "UNWIND range(1, 100000000) AS i RETURN collect(i)")


def test_values_are_said_in_json_and_in_cells(graph: GraphStore) -> None:
    table = run_cypher(
        graph, "MATCH p = (a)-[r]->(b) RETURN a, r, p, date('2020-01-31') AS day, [0.0 / 0.0, null] AS odd"
    )
    (row,) = table.rows

    assert table.columns == ("a", "r", "p", "day", "odd")
    assert row[0]["labels"] == ["Class", "Entity", "Ex"]
    assert row[0]["properties"]["names"] == ["Acme Bank", "Acme"]
    assert row[1] == {"type": "OWNS", "head": "ex:0", "tail": "ex:1", "properties": {"sid": "s", "since": "2020-01-31"}}
    assert row[3:] == ["2020-01-31", ["nan", None]]
    assert json.loads(json.dumps(table.rows, allow_nan=False)) == table.rows
    assert [brief(value) for value in row] == [
        '(:Class:Entity:Ex {"id": "ex:0", "name": "Acme Bank"})',
        "(ex:0)-[:OWNS]->(ex:1)",
        "(ex:0)-[:OWNS]->(ex:1)",
        "2020-01-31",
        '["nan", null]',
    ]


def kg(env: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "kg", *words], cwd=ROOT, env=env, capture_output=True, text=True)


def test_the_command_prints_a_table_or_json(graph: GraphStore, cli_env: dict[str, str]) -> None:
    query = "MATCH (n:Entity) RETURN n.id AS id, n.name AS name, n.names AS `names [all]` ORDER BY id"
    shown = kg(cli_env, "cypher", query, "--limit", "1")
    assert shown.returncode == 0
    assert '│ ex:0 │ Acme Bank │ ["Acme Bank", "Acme"] │' in shown.stdout
    assert "names [all]" in shown.stdout
    assert "1 rows; there are more" in shown.stdout

    printed = json.loads(kg(cli_env, "cypher", query, "--json").stdout)
    assert printed == {
        "columns": ["id", "name", "names [all]"],
        "rows": [["ex:0", "Acme Bank", ["Acme Bank", "Acme"]], ["ex:1", "Borealis", None]],
        "truncated": False,
    }


def test_the_command_refuses_in_one_line_with_exit_code_2(graph: GraphStore, cli_env: dict[str, str]) -> None:
    done = kg(cli_env, "cypher", "MATCH (n) DETACH DELETE n")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "Only statements that read the graph" in done.stderr


@pytest.mark.parametrize(
    "options", [("--limit", "-1"), ("--limit", "-5"), ("--timeout", "-1"), ("--timeout", "0"), ("--timeout", "nan")]
)
def test_limits_that_are_none_are_said_before_anything_is_run(home: Path, options: tuple[str, str]) -> None:
    done = kg({**os.environ, "NEO4J_URI": "bolt://127.0.0.1:1"}, "cypher", "RETURN 1", *options)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "--limit must be at least 0, and --timeout more than 0" in done.stderr
