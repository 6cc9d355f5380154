"""What a stranger's tool makes of the description of the API: requests that fit it and requests that do not."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import just
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from kg.store import GraphStore
from tests.builders import tiny_snapshot
from tests.kg.serving import served

pytestmark = [pytest.mark.neo4j, pytest.mark.slow]
EXAMPLES = 100  # for each route


@pytest.fixture(scope="module")
def described(connection: GraphStore, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """The description that a server process gives of itself, with a graph behind it."""
    connection.write("MERGE (:Entity {id: 'fibo:CreditUnion', iri: 'urn:0', name: 'credit union'})")
    snapshot = tiny_snapshot(tmp_path_factory.mktemp("kg") / "v1")
    with served(home, "--snapshot", str(snapshot.path), "--cypher") as server:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        assert server.process.poll() is None


def test_the_api_is_as_it_describes_itself_and_never_fails(described: OpenApiSchema) -> None:
    asked = Counter[str]()
    for found in described.get_all_operations():
        operation = found.ok()
        # That a text is no Cypher is not for a schema to say.
        excluded = [positive_data_acceptance] if operation.label == "POST /cypher" else []

        def fits(case: schemathesis.Case, excluded: list[Any]) -> None:
            asked[case.operation.label] += 1
            answer = case.call()
            if answer.status_code != 413:  # a body that is too long is refused before anything of it is looked at
                case.validate_response(answer, excluded_checks=excluded)

        for mode in GenerationMode:
            run = given(case=operation.as_strategy(generation_mode=mode), excluded=just(excluded))(fits)
            with suppress(Unsatisfiable):  # a route without parameters cannot be asked in a wrong way
                settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))(run)()
    assert len(asked) == 9
    assert asked["POST /link"] >= 2 * EXAMPLES
