"""Reading, writing and failing through the one module that opens sessions."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg.errors import ConfigError, KGError, QueryRefused, StoreFailed, StoreUnavailable
from kg.local_server import Address
from kg.schema import STATEMENTS, ensure_schema, quote_name, source_label
from kg.settings import Settings
from kg.store import CommitUnknown, GraphStore, connect, open_store

ROOT = Path(__file__).parent.parent.parent
neo4j_test = pytest.mark.neo4j


@neo4j_test
def test_what_is_written_is_read(store: GraphStore) -> None:
    counters = store.write("UNWIND $ids AS id CREATE (:Entity {id: id, iri: 'urn:' + id})", ids=["a", "b"])
    assert counters["nodes_created"] == 2
    assert counters["properties_set"] == 4
    assert counters["relationships_created"] == 0

    rows = store.read("MATCH (n:Entity) RETURN n.id AS id ORDER BY id DESC")
    assert rows == [{"id": "b"}, {"id": "a"}]


@neo4j_test
def test_rows_can_be_streamed_and_left_alone(store: GraphStore) -> None:
    assert [row["i"] for row in store.stream("UNWIND range(1, 25) AS i RETURN i")] == list(range(1, 26))
    rows = store.stream("UNWIND range(1, 100000000) AS i RETURN i")
    assert next(rows) == {"i": 1}
    rows.close()  # type: ignore[attr-defined]


@neo4j_test
def test_a_transaction_happens_wholly_or_not_at_all(store: GraphStore) -> None:
    with store.transaction() as transaction:
        transaction.run("CREATE (:Entity {id: 'a'})")
        assert transaction.rows("MATCH (n:Entity) RETURN n.id AS id") == [{"id": "a"}]
        assert store.read("MATCH (n:Entity) RETURN n.id AS id") == []
        transaction.run("CREATE (:Entity {id: 'b'})")
    assert len(store.read("MATCH (n:Entity) RETURN n")) == 2

    for first_id, second_id in [("c", "a"), ("c", "d")]:
        with pytest.raises((StoreFailed, InterruptedError), match="already exists|our own"):
            fill_and_fail(store, first_id, second_id)
    assert len(store.read("MATCH (n:Entity) RETURN n")) == 2


def fill_and_fail(store: GraphStore, *ids: str) -> None:
    with store.transaction() as transaction:
        for entity_id in ids:
            transaction.run("CREATE (:Entity {id: $id})", id=entity_id)
        raise InterruptedError("our own")


@neo4j_test
def test_reading_does_not_write(store: GraphStore) -> None:
    with pytest.raises(KGError, match="(?i)writ"):
        store.read("CREATE (n:Entity {id: 'a'})")
    with pytest.raises(KGError, match="(?i)writ"):
        list(store.stream("CREATE (n:Entity {id: 'a'})"))
    assert store.read("MATCH (n) RETURN count(n) AS n") == [{"n": 0}]


@neo4j_test
@pytest.mark.parametrize("call", ["read", "stream", "write"])
def test_every_query_has_its_own_time_limit(store: GraphStore, call: str) -> None:
    slow = "UNWIND range(1, 1000000) AS a UNWIND range(1, 1000000) AS b RETURN count(*)"
    started = time.monotonic()
    with pytest.raises(QueryRefused, match="took longer"):
        list(getattr(store, call)(slow, timeout_s=0.5))
    assert time.monotonic() - started < 8


@neo4j_test
def test_text_in_parameters_is_never_cypher(store: GraphStore) -> None:
    hostile = "x'}) DETACH DELETE n //` \\u0027 \x00"
    store.write("CREATE (:Entity {id: 'sentinel'}), (:Entity {id: $id})", id=hostile)
    assert store.read("MATCH (n:Entity {id: $id}) RETURN n.id AS id", id=hostile) == [{"id": hostile}]
    assert store.read("MATCH (n:Entity {id: 'sentinel'}) RETURN count(n) AS n") == [{"n": 1}]


@neo4j_test
def test_quoted_names_are_only_names(store: GraphStore) -> None:
    hostile = "A`) DETACH DELETE n //\\u0060"
    store.write(
        f"CREATE (:Entity {{id: 'a'}})-[:{quote_name(hostile)} {{{quote_name(hostile)}: 1}}]->(:{quote_name(hostile)})"
    )
    (row,) = store.read("MATCH (n:Entity)-[r]->(m) RETURN type(r) AS type, keys(r) AS keys, labels(m) AS labels")
    assert row == {"type": hostile, "keys": [hostile], "labels": [hostile]}


@neo4j_test
@settings(max_examples=150, deadline=None)
@given(
    st.text(
        st.sampled_from(r"aZ9 \`'\"{}():u0605C$") | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30
    )
)
def test_every_usable_name_comes_back_as_it_was(connection: GraphStore, name: str) -> None:
    try:
        quoted = quote_name(name)
    except ValueError:
        assert any(ord(character) < 32 for character in name)
        return
    assert connection.read(f"RETURN 1 AS {quoted}") == [{name: 1}]


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "x" * 501])
def test_unusable_names_are_not_quoted(name: str) -> None:
    with pytest.raises(ValueError, match="not a usable name"):
        quote_name(name)


def test_source_labels_are_capitalised() -> None:
    assert [source_label(s) for s in ("fibo", "my-graph", "doid")] == ["Fibo", "MyGraph", "Doid"]


@neo4j_test
def test_one_statement_creates_relationships_of_several_types(store: GraphStore) -> None:
    assert store.dynamic_types_work is True
    assert store.read("MATCH (n) RETURN count(n) AS n") == [{"n": 0}]


@neo4j_test
def test_the_schema_is_made_once_and_serves_lookups(store: GraphStore) -> None:
    ensure_schema(store)
    names = {row["name"] for row in store.read("SHOW INDEXES YIELD name, state WHERE state = 'ONLINE' RETURN name")}
    assert {statement.split()[2] for statement in STATEMENTS if "CONSTRAINT" in statement} <= names
    assert "entity_names" in names

    store.write("CREATE (:Entity {id: 'a', iri: 'urn:a', name: 'Bank', names: ['Bank', 'Kreditinstitut']})")
    found = store.read(
        "CALL db.index.fulltext.queryNodes('entity_names', $words) YIELD node RETURN node.id AS id",
        words="kreditinstitut",
    )
    assert found == [{"id": "a"}]


@pytest.fixture
def proxy(server: Address) -> Iterator["Proxy"]:
    proxy = Proxy(int(server.uri.rpartition(":")[2]))
    yield proxy
    proxy.close()


class Proxy:
    """A port in front of the real server, which can be cut off at a chosen message of the client."""

    def __init__(self, port: int) -> None:
        self.port, self.cut_at, self._cut = port, b"", threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"bolt://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            pair = client, socket.create_connection(("127.0.0.1", self.port))
            self._pairs.append(pair)
            threading.Thread(target=self._pump, args=(*pair, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(*pair[::-1], False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        try:
            while data := source.recv(65536):
                if from_client and self.cut_at and self.cut_at in data:
                    self._cut.set()
                    target.sendall(data)  # the server gets it and acts
                    source.close()  # and its answer is lost
                elif from_client or not self._cut.is_set():
                    target.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        self._listener.close()
        for end in [end for pair in self._pairs for end in pair]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
            end.close()


COMMIT = b"\x00\x02\xb0\x12\x00\x00"
"""A whole COMMIT message of Bolt: its size, a structure without fields, its tag, the end mark."""


@neo4j_test
def test_a_commit_whose_answer_is_lost_is_said_to_be_unknown(server: Address, store: GraphStore, proxy: Proxy) -> None:
    with connect(Address(proxy.uri, server.user, server.password)) as cut:
        proxy.cut_at = COMMIT
        with pytest.raises(CommitUnknown):
            create_chunk(cut)
    while store.read(OPEN_TRANSACTIONS)[0]["n"] > 1:  # it may happen yet, and must not in the next test
        time.sleep(0.02)


@neo4j_test
def test_a_server_that_goes_away_is_said_to_be_gone(server: Address, store: GraphStore, proxy: Proxy) -> None:
    with connect(Address(proxy.uri, server.user, server.password)) as cut:
        with pytest.raises(StoreUnavailable, match="went away"):
            create_chunk(cut, then=proxy.close)
    assert store.read("MATCH (n) RETURN count(n) AS n") == [{"n": 0}]


OPEN_TRANSACTIONS = "SHOW TRANSACTIONS YIELD transactionId RETURN count(transactionId) AS n"


def create_chunk(store: GraphStore, *, then: Callable[[], None] = lambda: None) -> None:
    with store.transaction() as transaction:
        transaction.run("CREATE (:Entity {id: 'chunk'})")
        then()
        transaction.run("MATCH (n:Entity {id: 'chunk'}) SET n.done = true")


@neo4j_test
def test_refused_credentials_are_named(server: Address) -> None:
    settings = Settings(home=Path("unused"), neo4j_uri=server.uri, neo4j_user="eve", neo4j_password="wrong")
    with pytest.raises(StoreUnavailable, match="refuses user 'eve'; check NEO4J_USER and NEO4J_PASSWORD"):
        with open_store(settings):
            pass


@neo4j_test
def test_an_address_in_the_environment_is_used_instead_of_the_local_server(server: Address, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "no", neo4j_uri=server.uri, neo4j_password=server.password)
    with open_store(settings) as store:
        assert store.read("RETURN 1 AS one") == [{"one": 1}]
        assert store.server_version.startswith("2026.")
    assert not (tmp_path / "no").exists()


WRONG = [
    ({"NEO4J_URI": "bolt://127.0.0.1:1", "NEO4J_PASSWORD": "x"}, "Connection refused"),
    ({"NEO4J_URI": "neo4j://127.0.0.1:1", "NEO4J_PASSWORD": "x"}, "No Neo4j answers"),
    ({"NEO4J_URI": "bolt://no-such-host.invalid:7687", "NEO4J_PASSWORD": "x"}, "No Neo4j answers"),
    ({"NEO4J_URI": "bolt://127.0.0.1:99999", "NEO4J_PASSWORD": "x"}, "No Neo4j answers"),
    ({"NEO4J_URI": "bolt://127.0.0.1:1"}, "NEO4J_PASSWORD is not set"),
    ({"NEO4J_URI": "http://127.0.0.1:7474", "NEO4J_PASSWORD": "x"}, "expected for example bolt://"),
    ({"NEO4J_URI": "bolt://neo4j:secret@127.0.0.1:1"}, "holds a user name or password"),
    ({"NEO4J_URI": "bolt://neo4j:secret@["}, "NEO4J_URI is no address; expected for example bolt://"),
]


@pytest.mark.parametrize(("env", "says"), WRONG)
def test_a_wrong_address_is_one_line_and_exit_code_2(env: dict[str, str], says: str, tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "kg", "hash"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "KGFUSE_HOME": str(tmp_path), **env},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert says in done.stderr
    assert "secret" not in done.stderr
    assert time.monotonic() - started < 10


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(StoreUnavailable):
            with connect(Address(f"bolt://127.0.0.1:{silent.getsockname()[1]}", "neo4j", "x"), timeout_s=1):
                pass


def test_the_password_is_not_in_what_settings_print() -> None:
    settings = Settings(home=Path("x"), neo4j_uri="bolt://h:1", neo4j_password="s3cret")
    assert "s3cret" not in repr(settings)
    with pytest.raises(ConfigError, match="user name or password") as caught:
        Settings(home=Path("x"), neo4j_uri="bolt://neo4j:s3cret@h:1")
    assert "s3cret" not in str(caught.value)
