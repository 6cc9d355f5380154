import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import APIRouter
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from kg.api import check_address, create_app, graph_router, link_router
from kg.errors import ConfigError, KGError, QueryRefused, StoreFailed, StoreUnavailable
from kg.linking import Linker
from kg.store import GraphStore
from tests.builders import tiny_snapshot

TEXT = "👩‍🚀 Acme Bank owns ﬁve Corvus Funds"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return Linker.load(tiny_snapshot(tmp_path_factory.mktemp("kg") / "v1"))


def client_of(*routers: APIRouter, token: str | None = None, max_body_bytes: int = 4_000_000) -> TestClient:
    app = create_app(*routers, token=token, max_body_bytes=max_body_bytes)
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def no_store() -> GraphStore:
    raise StoreUnavailable("No Neo4j answers at bolt://secret-host:7687.")


def test_a_text_is_linked_as_in_python(linker: Linker) -> None:
    answer = client_of(link_router(linker)).post("/link", json={"text": TEXT})
    assert answer.status_code == 200
    assert answer.json() == {
        "links": [link.as_json() for link in linker.link(TEXT)],
        "offset_unit": "code-point",
        "snapshot": linker.snapshot.hash,
    }
    assert [link["text"] for link in answer.json()["links"]] == ["Acme Bank", "Corvus Funds"]


@pytest.mark.parametrize(
    ("unit", "cut"),
    [
        ("code-point", lambda start, end: TEXT[start:end]),
        ("utf-16", lambda start, end: TEXT.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")),
        ("utf-8", lambda start, end: TEXT.encode()[start:end].decode()),
    ],
)
def test_offsets_cut_the_mention_in_each_unit(linker: Linker, unit: str, cut: Callable[[int, int], str]) -> None:
    answer = client_of(link_router(linker)).post("/link", json={"text": TEXT, "offset_unit": unit}).json()
    assert [cut(link["start"], link["end"]) for link in answer["links"]] == ["Acme Bank", "Corvus Funds"]


def test_a_batch_is_answered_like_its_texts(linker: Linker) -> None:
    client = client_of(link_router(linker))
    texts = [TEXT, "", "Delta Exchange"]
    results = client.post("/link/batch", json={"texts": texts}).json()["results"]
    assert [one["links"] for one in results] == [client.post("/link", json={"text": t}).json()["links"] for t in texts]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/link", b'{"text": 1}', 422),
        ("/link", b'{"text": "a", "nonsense": 1}', 422),
        ("/link", b'{"text": "\\ud800"}', 422),
        ("/link", b'{"text": "a", "\\ud800": 1}', 422),
        ("/link", b'{"text": "a", "offset_unit": "furlong"}', 422),
        ("/link", b'{"text"', 422),
        ("/link", b"\xff\xfe", 422),
        ("/link", b"[" * 100_000, 400),
        ("/link", b"", 422),
        ("/link/batch", json.dumps({"texts": ["a"] * 257}).encode(), 422),
        ("/nowhere", b"", 404),
    ],
)
def test_bad_requests_are_problems_that_repeat_nothing_and_have_no_stack(
    linker: Linker, path: str, body: bytes, status: int
) -> None:
    answer = client_of(link_router(linker)).post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


def test_a_body_without_json_content_type_is_refused(linker: Linker) -> None:
    answer = client_of(link_router(linker)).post(
        "/link", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 422


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(linker: Linker, announced: bool) -> None:
    app = create_app(link_router(linker), max_body_bytes=10_000)
    read, sent = 0, []

    async def receive() -> dict[str, object]:
        nonlocal read
        read += 1_000
        return {"type": "http.request", "body": b" " * 1_000, "more_body": read < 1_000_000}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(b"content-length", b"1000000")] if announced else []
    scope = {"type": "http", "method": "POST", "path": "/link", "headers": headers, "query_string": b""}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 413
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]  # type: ignore[operator]
    assert read <= (0 if announced else 11_000)


def test_another_host_name_is_refused(linker: Linker) -> None:
    client = client_of(link_router(linker))
    assert client.post("/link", json={"text": "a"}, headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/healthz", headers={"Host": "127.0.0.1:8000"}).status_code == 200


def test_no_other_origin_is_allowed(linker: Linker) -> None:
    answer = client_of(link_router(linker)).get("/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer ünïcode".encode(), 401),
        (f"Bearer {TOKEN}", 200),
    ],
)
def test_a_token_is_asked_for_where_there_is_one(linker: Linker, header: str | bytes | None, status: int) -> None:
    client = client_of(link_router(linker), token=TOKEN)
    headers = {"Authorization": header} if header else {}
    answer = client.post("/link", json={"text": "Acme Bank"}, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert TOKEN not in answer.text
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_apps_share_nothing(linker: Linker) -> None:
    assert client_of().post("/link", json={"text": "a"}).status_code == 404
    assert client_of(link_router(linker)).post("/link", json={"text": "a"}).status_code == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QueryRefused("That query writes."), 400),
        (StoreUnavailable("at bolt://secret-host"), 503),
        (StoreFailed("secret-host is full"), 502),
        (ConfigError("/secret-host/recipe"), 500),
        (KGError("secret-host"), 500),
        (RuntimeError("secret-host"), 500),
    ],
)
def test_failures_have_a_status_and_keep_the_servers_secrets(error: Exception, status: int) -> None:
    router = APIRouter()

    @router.get("/fail")
    def fail() -> None:
        raise error

    answer = client_of(router).get("/fail")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "secret-host" not in answer.text
    assert answer.json()["status"] == status


def test_links_go_on_while_neo4j_is_away(linker: Linker) -> None:
    tries = 0

    def away() -> GraphStore:
        nonlocal tries
        tries += 1
        return no_store()

    client = client_of(link_router(linker), graph_router(away))
    for path in ("/entities/ex:0", "/entities/ex:0/neighbours", "/search?q=acme"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.headers["retry-after"] == "5"
        assert "secret-host" not in answer.text
    assert tries == 1  # not asked again at once
    assert client.post("/link", json={"text": "Acme Bank"}).json()["links"]


keys = st.sampled_from(["text", "texts", "offset_unit"]) | st.text()
any_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(keys, inner)
)


@settings(max_examples=150, deadline=None)
@given(body=any_json)
def test_no_json_makes_the_server_fail(linker: Linker, body: object) -> None:
    client = client_of(link_router(linker))
    for path in ("/link", "/link/batch"):
        answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 422)


@pytest.mark.neo4j
def test_the_graph_is_served_from_neo4j(store: GraphStore) -> None:
    store.write(
        "CREATE (a:Entity:Ex:Class {id: 'ex:a/1', iri: 'http://x/a', name: 'Acme & Sons',"
        " names: ['Acme & Sons', 'ACME'], sources: ['ex'],"
        " hashes: ['h'], claims: ['{}'], gone_in: '2', gone_from: 'ex',"
        " founded: date('1999-12-31'), rating: 2.5, tags: ['x', 'y']}),"
        " (b:Entity:Ex:Class {id: 'ex:b', name: 'Borealis', names: ['Borealis']}),"
        " (a)-[:OWNS]->(b), (b)-[:LIKES]->(a)"
    )
    store.read("CALL db.awaitIndexes(60)")

    @contextmanager
    def opened() -> Iterator[GraphStore]:
        yield store

    with client_of(graph_router(opened)) as client:
        assert client.get("/entities/ex:a/1").json() == {
            "id": "ex:a/1",
            "iri": "http://x/a",
            "name": "Acme & Sons",
            "names": ["Acme & Sons", "ACME"],
            "definition": None,
            "definitions": [],
            "sources": ["ex"],
            "labels": ["Class", "Entity", "Ex"],
            "properties": {"founded": "1999-12-31", "rating": 2.5, "tags": ["x", "y"]},
        }
        assert client.get("/entities/ex:a/1/neighbours").json() == [
            {"relation": "LIKES", "outgoing": False, "id": "ex:b", "name": "Borealis"},
            {"relation": "OWNS", "outgoing": True, "id": "ex:b", "name": "Borealis"},
        ]
        assert [n["relation"] for n in client.get("/entities/ex:b/neighbours?relation=OWNS").json()] == ["OWNS"]
        assert client.get("/entities/ex:b/neighbours?limit=0").status_code == 422
        for path in ("/entities/ex:none", "/entities/ex:none/neighbours"):
            assert client.get(path).status_code == 404
        for query in ("acme", "bor", "Acme & (Sons", 'AND "', "*:*", "a\\"):
            assert client.get("/search", params={"q": query}).status_code == 200
        assert client.get("/search?q=borea").json()[0]["id"] == "ex:b"


@pytest.mark.parametrize(
    ("host", "token", "allowed"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("localhost.evil.example", None, False),
        ("0.0.0.0", TOKEN, True),
    ],
)
def test_other_addresses_need_a_token(host: str, token: str | None, allowed: bool) -> None:
    if allowed:
        check_address(host, token)
    else:
        with pytest.raises(ConfigError, match="KGFUSE_API_TOKEN"):
            check_address(host, token)


def command(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "kg", "api", "--snapshot", str(tmp_path / "v1"), *arguments],
        env={"PATH": "/usr/bin:/bin", "KGFUSE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_serves_until_it_is_terminated(tmp_path: Path) -> None:
    tiny_snapshot(tmp_path / "v1")
    server = command(tmp_path, "--port", "0")
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        port = int(re.search(r":(\d+),", line)[1])  # type: ignore[index]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/link",
            data=json.dumps({"text": "Acme Bank"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.load(answer)["links"][0]["id"] == "ex:0"
        taken = command(tmp_path, "--port", str(port))
        _, error = taken.communicate(timeout=30)
        assert (taken.returncode, error.count("\n")) == (2, 1)
        assert "choose another" in error
        server.send_signal(signal.SIGTERM)
        _, error = server.communicate(timeout=30)
        assert (server.returncode, error) == (0, "")
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass
    finally:
        server.kill()
        server.communicate()


def test_the_command_refuses_an_open_address_without_a_token(tmp_path: Path) -> None:
    tiny_snapshot(tmp_path / "v1")
    server = command(tmp_path, "--host", "0.0.0.0")
    output, error = server.communicate(timeout=30)
    assert (server.returncode, output) == (2, "")
    assert error.count("\n") == 1
    assert "KGFUSE_API_TOKEN" in error
