"""Free Cypher over HTTP: off by default, the table of statements with their verdicts, and the limits."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from starlette.testclient import TestClient

from kg.api import CypherLimits, create_app, graph_router
from kg.graph_hash import graph_hash
from kg.store import GraphStore
from tests.builders import tiny_snapshot, write_tiny_graph
from tests.kg.serving import served

pytestmark = pytest.mark.neo4j
STATEMENTS = Path(__file__).parent.parent / "data" / "cypher_statements.jsonl"


@pytest.fixture(scope="module")
def graph(connection: GraphStore) -> GraphStore:
    write_tiny_graph(connection)
    return connection


def client_of(graph: GraphStore, limits: CypherLimits | None) -> TestClient:
    @contextmanager
    def opened() -> Iterator[GraphStore]:
        yield graph

    return TestClient(create_app(graph_router(opened, cypher=limits)), base_url="http://localhost")


@pytest.fixture(scope="module")
def client(graph: GraphStore) -> Iterator[TestClient]:
    with client_of(graph, CypherLimits(timeout_s=20, rows=10)) as client:
        yield client


def test_it_is_off_unless_it_is_asked_for(graph: GraphStore) -> None:
    client = client_of(graph, None)
    assert client.post("/cypher", json={"query": "RETURN 1"}).status_code == 404
    assert "/cypher" not in client.get("/openapi.json").json()["paths"]


def test_each_statement_has_its_verdict_and_nothing_changes_the_graph(graph: GraphStore, client: TestClient) -> None:
    statements = [json.loads(line) for line in STATEMENTS.read_text("utf-8").splitlines()]
    assert len(statements) > 200
    before = graph_hash(graph)
    wrong = []
    for one in statements:
        answer = client.post("/cypher", json={"query": one["query"], "parameters": one.get("parameters", {})})
        expected = {"runs": 200, "refused": 400}[one.get("over_http", one["verdict"])]
        if answer.status_code != expected or (expected == 400 and "\n" in answer.json()["detail"]):
            wrong.append((one["query"], answer.status_code, answer.text[:200]))
    assert wrong == []
    assert graph_hash(graph) == before
    assert graph.read("SHOW CONSTRAINTS YIELD name RETURN count(name) AS n") == [{"n": 4}]


def test_rows_are_answered_with_parameters(client: TestClient) -> None:
    query = "MATCH (n:Entity)-[r]->(m) WHERE n.id = $id RETURN n, r, m, date('2020-01-31') AS day"
    answer = client.post("/cypher", json={"query": query, "parameters": {"id": "ex:0"}})
    assert answer.status_code == 200
    (row,) = answer.json()["rows"]
    assert answer.json()["columns"] == ["n", "r", "m", "day"]
    assert answer.json()["truncated"] is False
    assert row[0]["labels"] == ["Class", "Entity", "Ex"]
    assert row[1] == {"type": "OWNS", "head": "ex:0", "tail": "ex:1", "properties": {"sid": "s", "since": "2020-01-31"}}
    assert row[2]["properties"]["name"] == "Borealis"
    assert row[3] == "2020-01-31"


@pytest.mark.parametrize(
    "body",
    [
        {"query": ""},
        {"query": "RETURN 1", "limit": 10},
        {"query": "RETURN 1" + " " * 20_000},
        {"query": "RETURN 1", "parameters": [1]},
        {},
    ],
)
def test_a_request_that_is_none_is_a_problem(client: TestClient, body: dict[str, object]) -> None:
    answer = client.post("/cypher", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    "parameters",
    [
        '{"x": 1180591620717411303424}',
        '{"x": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"x": NaN}',
        "[" * 900,
        *('{"x": ' + "[" * depth + "]" * depth + "}" for depth in (100, 300, 490, 600, 900, 5000)),
    ],
    ids=lambda parameters: f"{parameters[:9]}-{len(parameters)}",
)
def test_odd_parameters_do_not_make_the_server_fail(client: TestClient, parameters: str) -> None:
    body = f'{{"query": "RETURN $x", "parameters": {parameters}}}'
    answer = client.post("/cypher", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422)
    assert client.post("/cypher", json={"query": "RETURN 1 AS one"}).json()["rows"] == [[1]]


def test_rows_and_bytes_beyond_the_limits_are_cut_off_and_it_is_said(graph: GraphStore) -> None:
    with client_of(graph, CypherLimits(rows=3, max_bytes=1_000)) as client:
        by_rows = client.post("/cypher", json={"query": "UNWIND range(1, 100000000) AS i RETURN i"}).json()
        assert (by_rows["rows"], by_rows["truncated"]) == ([[1], [2], [3]], True)
        whole = client.post("/cypher", json={"query": "UNWIND [1, 2, 3] AS i RETURN i"}).json()
        assert (whole["rows"], whole["truncated"]) == ([[1], [2], [3]], False)
        query = "UNWIND [300, 300, 900] AS n RETURN reduce(s = '', i IN range(1, n) | s + 'x') AS s"
        by_bytes = client.post("/cypher", json={"query": query}).json()
        assert ([len(row[0]) for row in by_bytes["rows"]], by_bytes["truncated"]) == ([300, 300], True)


def test_a_statement_that_takes_too_long_is_ended_here_and_in_neo4j(graph: GraphStore) -> None:
    slow = "UNWIND range(1, 1000000) AS a UNWIND range(1, 1000000) AS b WITH a, b WHERE a * b = -1 RETURN a"
    with client_of(graph, CypherLimits(timeout_s=1)) as client:
        answer = client.post("/cypher", json={"query": slow})
        assert answer.status_code == 400
        assert "longer" in answer.json()["detail"]
        assert client.post("/cypher", json={"query": "RETURN 1 AS one"}).status_code == 200
    running = graph.read(
        "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS 'a * b' RETURN count(*) AS n"
    )
    assert running == [{"n": 1}]  # only the one that asks


def test_one_value_that_is_too_large_is_given_up_and_the_next_statement_is_answered(
    graph: GraphStore, capfd: pytest.CaptureFixture[str]
) -> None:
    with client_of(graph, CypherLimits(timeout_s=3)) as client:
        answer = client.post("/cypher", json={"query": "RETURN range(1, 10000000) AS r"})
        assert answer.status_code == 400
        assert "longer" in answer.json()["detail"] or "MB" in answer.json()["detail"]
        assert "Traceback" not in capfd.readouterr().err
        assert client.post("/cypher", json={"query": "RETURN 1 AS one"}).json()["rows"] == [[1]]


def test_the_command_turns_it_on(graph: GraphStore, home: Path, cli_env: dict[str, str]) -> None:
    snapshot = tiny_snapshot(home / "for-cypher")
    body, headers = json.dumps({"query": "MATCH (n:Entity) RETURN count(n) AS n"}), {"Content-Type": "application/json"}
    for options, status in (((), 404), (("--cypher",), 200)):
        with served(home, "--snapshot", str(snapshot.path), *options) as server:
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
                connection.request("POST", "/cypher", body, headers)
                answer = connection.getresponse()
                assert (answer.status, "rows" in json.loads(answer.read())) == (status, status == 200)
            children = psutil.Process(server.process.pid).children(recursive=True)
            assert any("spawn_main" in " ".join(child.cmdline()) for child in children) == (status == 200)
            server.process.terminate()
            _, error = server.process.communicate(timeout=60)
            assert (server.process.returncode, error) == (0, "")
            _, alive = psutil.wait_procs(children, timeout=10)
            assert alive == []
