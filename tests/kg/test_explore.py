"""Cypher from people: what is run, what is refused, and its limits."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kg.errors import KGError, QueryRefused
from kg.explore import brief, run_cypher
from kg.graph_hash import graph_hash
from kg.store import GraphStore

pytestmark = pytest.mark.neo4j
ROOT = Path(__file__).parent.parent.parent

READS = [
    "MATCH (n) RETURN n",
    "MATCH (n:Entity) WHERE n.name STARTS WITH 'Acme' RETURN n.id, n.name ORDER BY n.id LIMIT 5",
    "MATCH (a)-[r:OWNS]->(b) RETURN a, r, b",
    "MATCH p = (:Entity)-[*1..2]->(:Entity) RETURN p",
    "MATCH p = shortestPath((a:Entity {id: 'ex:0'})-[*..3]-(b:Entity {id: 'ex:1'})) RETURN length(p)",
    "OPTIONAL MATCH (n:Nothing) RETURN n",
    "MATCH (n) CALL (n) { MATCH (n)--(m) RETURN count(m) AS degree } RETURN n.id, degree",
    "MATCH (n) WHERE EXISTS { (n)-->() } RETURN count(n) UNION RETURN 1 AS `count(n)`",
    "RETURN 1",
    "UNWIND range(1, 3) AS i RETURN i, date(), [i, {a: i}]",
    "CYPHER 25 MATCH (n) RETURN count(n)",
    "CYPHER 5 MATCH (n) RETURN count(n)",
    "// what is there?\nMATCH (n) /* all of it */ RETURN count(n);",
    "CALL db.labels()",
    "CALL db.labels() YIELD label RETURN count(label)",
    "CALL `db`.`labels`()",
    "CALL db.relationshipTypes",
    "CALL db.propertyKeys()",
    "CALL db.schema.visualization()",
    "CALL db.index.fulltext.queryNodes('entity_names', 'acme') YIELD node, score RETURN node.id, score",
    "SHOW INDEXES",
    "SHOW CONSTRAINTS",
    "SHOW FUNCTIONS",
]
REFUSED = [
    "CREATE (n:Entity {id: 'ex:9'})",
    "MERGE (n:Entity {id: 'ex:0'}) RETURN n",
    "MATCH (n) SET n.name = 'x'",
    "MATCH (n) SET n:Label RETURN n",
    "MATCH (n) REMOVE n.name",
    "MATCH ()-[r]->() DELETE r",
    "MATCH (n) DETACH DELETE n",
    "FOREACH (i IN [1] | CREATE (:Entity))",
    "CALL () { CREATE (n) RETURN n } RETURN n",
    "MATCH (n) CALL (n) { SET n.x = 1 } IN TRANSACTIONS RETURN 1",
    "CYPHER 5 CREATE (n)",
    "CYPHER runtime=slotted CREATE (n)",
    "PROFILE CREATE (n)",
    "EXPLAIN CREATE (n)",
    "// MATCH\nCREATE (n)",
    "/* MATCH (n) */ CREATE (n)",
    "CREATE/**/(n)",
    "\\u0043REATE (n)",
    "cReAtE (n)",
    "CR/**/EATE (n)",
    "MATCH (n) RETURN n; CREATE (m)",
    "MATCH (n) RETURN n /*; */ ; MATCH (n) DETACH DELETE n",
    "CREATE INDEX FOR (n:Entity) ON (n.x)",
    "CREATE CONSTRAINT FOR (n:Entity) REQUIRE n.x IS UNIQUE",
    "DROP CONSTRAINT entity_id",
    "LOAD CSV FROM 'file:///etc/passwd' AS row RETURN row",
    "LOAD CSV FROM 'http://127.0.0.1:9/x' AS row RETURN row",
    "CALL () { LOAD CSV FROM 'http://127.0.0.1:9/x' AS row RETURN row } RETURN row",
    "LOAD CSV WITH HEADERS FROM 'https://example.org/x' AS row CREATE (n {x: row.x})",
    "SHOW SETTINGS",
    "SHOW SETTINGS YIELD name, value WHERE name CONTAINS 'auth' RETURN value",
    "SHOW TRANSACTIONS",
    "TERMINATE TRANSACTION 'neo4j-transaction-1'",
    "SHOW TRANSACTIONS YIELD transactionId AS id TERMINATE TRANSACTION id YIELD message RETURN message",
    "SHOW USERS",
    "SHOW CURRENT USER",
    "SHOW DATABASES",
    "SHOW HOME DATABASE",
    "SHOW ROLES",
    "SHOW PRIVILEGES",
    "CREATE USER eve SET PASSWORD 'password1'",
    "ALTER USER neo4j SET PASSWORD 'password1'",
    "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
    "DROP USER neo4j",
    "CREATE DATABASE other",
    "STOP DATABASE neo4j",
    "ALTER DATABASE neo4j SET ACCESS READ ONLY",
    "USE system SHOW USERS",
    "USE system MATCH (n) RETURN n",
    "CALL dbms.listConfig()",
    "CALL dbms.listConfig() YIELD name, value RETURN name, value",
    "MATCH (n) CALL dbms.listConfig('auth') YIELD value RETURN value",
    "CALL dbms.setConfigValue('db.transaction.timeout', '1h')",
    "CALL dbms.listConnections()",
    "CALL dbms.killConnection('bolt-1')",
    "CALL dbms.showCurrentUser()",
    "CALL dbms.queryJmx('*:*')",
    "CALL db.createLabel('X')",
    "CALL db.clearQueryCaches()",
    "CALL db.checkpoint()",
    "CALL db.index.fulltext.awaitEventuallyConsistentIndexRefresh()",
    "CALL tx.setMetaData({a: 1})",
    "CALL apoc.load.json('http://127.0.0.1:9/')",
    "MATCH (n RETURN n",
    "MATCH (n) RETURN unknown(n)",
    "RETURN $password",
    "not Cypher at all",
    "EXPLAIN",
    "  ",
    "",
]


@pytest.fixture(scope="module")
def graph(connection: GraphStore) -> GraphStore:
    connection.write("MATCH (n) DETACH DELETE n")
    connection.write(
        "CREATE (a:Entity:Ex:Class {id: 'ex:0', iri: 'urn:0', name: 'Acme Bank', names: ['Acme Bank', 'Acme']}), "
        "(b:Entity:Ex:Class {id: 'ex:1', iri: 'urn:1', name: 'Borealis'}), "
        "(a)-[:OWNS {sid: 's', since: date('2020-01-31')}]->(b)"
    )
    return connection


@pytest.mark.parametrize("query", READS)
def test_statements_that_read_are_run(graph: GraphStore, query: str) -> None:
    table = run_cypher(graph, query, limit=10, timeout_s=20)

    assert table.columns
    json.dumps(table.rows)


@pytest.mark.parametrize("query", REFUSED)
def test_other_statements_are_refused_in_one_line(graph: GraphStore, query: str) -> None:
    with pytest.raises(QueryRefused) as caught:
        run_cypher(graph, query, limit=10, timeout_s=20)

    assert len(str(caught.value).splitlines()) == 1


def test_nothing_of_all_that_changed_the_graph(graph: GraphStore) -> None:
    before = graph_hash(graph)
    for query in REFUSED:
        with pytest.raises(QueryRefused):
            run_cypher(graph, query, timeout_s=20)

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
