"""What a stranger's tool makes of the description of the API: requests that fit it and requests that do not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.schemas import OpenApiSchema

from kg.store import GraphStore
from tests.builders import tiny_snapshot
from tests.kg.serving import served

pytestmark = [pytest.mark.neo4j, pytest.mark.slow]


@pytest.fixture(scope="module")
def described(connection: GraphStore, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """The description that a server process gives of itself, with a graph behind it."""
    connection.write("MERGE (:Entity {id: 'fibo:CreditUnion', iri: 'urn:0', name: 'credit union'})")
    snapshot = tiny_snapshot(tmp_path_factory.mktemp("kg") / "v1")
    with served(home, "--snapshot", str(snapshot.path), "--cypher") as server:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        assert server.process.poll() is None


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_is_as_it_describes_itself_and_never_fails(case: schemathesis.Case) -> None:
    case.call_and_validate()
