"""One Neo4j for the whole test run, an empty graph for each test that asks for it, and no setting from outside."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kg.local_server import Address, LocalServer
from kg.schema import ensure_schema
from kg.store import GraphStore, connect

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("NEO4J_URI", "NEO4J_USER", "NEO4J_PASSWORD", "KGFUSE_API_TOKEN", "KGFUSE_DEBUG"):
    os.environ.pop(name, None)
os.environ["HF_HUB_OFFLINE"] = "1"
DATA = Path(os.environ.pop("KGFUSE_DATA", "") or Path(__file__).parent.parent.parent / "shared" / "data")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KGFUSE_HOME of the test run; set for all tests, so that none writes into the working folder."""
    folder = tmp_path_factory.mktemp("kgfuse-home")
    os.environ["KGFUSE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Address]:
    """The real Neo4j that all tests share."""
    local = LocalServer(home)
    try:
        yield local.start()
    finally:
        local.stop()
        local.release()


@pytest.fixture(scope="session")
def connection(server: Address) -> Iterator[GraphStore]:
    with connect(server) as store:
        ensure_schema(store)
        yield store


@pytest.fixture
def store(connection: GraphStore) -> GraphStore:
    """A store on an empty graph."""
    while connection.write("MATCH (n) WITH n LIMIT 2000 DETACH DELETE n")["nodes_deleted"]:
        continue
    return connection


@pytest.fixture
def cli_env(home: Path, server: Address) -> dict[str, str]:
    """Environment for commands in child processes: they find the server of the test run through KGFUSE_HOME."""
    return {**os.environ, "KGFUSE_HOME": str(home)}


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data folder at {DATA}; set KGFUSE_DATA")
    return DATA
