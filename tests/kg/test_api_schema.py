"""What a stranger's tool makes of the description of the API: requests that fit it and requests that do not."""

import json
import re
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
from starlette.testclient import TestClient

from kg.api import CypherLimits, create_app, graph_router, link_router
from kg.errors import StoreUnavailable
from kg.linking import Linker
from kg.store import GraphStore
from tests.builders import tiny_snapshot
from tests.kg.serving import served

TOKEN = "0123456789abcdef"
EXAMPLES = 100  # for each route


@pytest.fixture(scope="module")
def described(connection: GraphStore, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """The description that a server process gives of itself, with a graph behind it."""
    connection.write("MATCH (n) DETACH DELETE n")  # of other tests: it may know this company by another IRI
    connection.write("CREATE (:Entity {id: 'fibo:CreditUnion', iri: 'urn:0', name: 'credit union'})")
    snapshot = tiny_snapshot(tmp_path_factory.mktemp("kg") / "v1")
    with served(home, "--snapshot", str(snapshot.path), "--cypher") as server:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        assert server.process.poll() is None


@pytest.mark.neo4j
@pytest.mark.slow
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


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return Linker.load(tiny_snapshot(tmp_path_factory.mktemp("kg") / "v1"))


def no_store() -> GraphStore:
    raise StoreUnavailable("No Neo4j answers.")


def test_the_api_describes_itself_and_its_page_needs_nothing_from_elsewhere(linker: Linker) -> None:
    client = TestClient(create_app(link_router(linker), graph_router(no_store)), base_url="http://localhost")
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/link",
        "/link/batch",
        "/entities/{id}",
        "/entities/{id}/neighbours",
        "/search",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert all(path in page.text for path in paths)
    assert not re.search(r"(src|href)=.?(https?:)?//", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_every_route_shows_what_it_takes_gives_and_how_it_fails(linker: Linker) -> None:
    routers = link_router(linker), graph_router(no_store, cypher=CypherLimits())
    described = create_app(*routers, token=TOKEN).openapi()
    schemas = described["components"]["schemas"]
    problem = {"$ref": "#/components/schemas/Problem"}
    assert {"title", "status", "detail"} <= schemas["Problem"]["properties"].keys()
    assert "HTTPValidationError" not in json.dumps(described["paths"])
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            (kind,) = operation["responses"]["200"]["content"].values()
            assert kind["example"], where
            if method == "post":
                body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
                assert schemas[body]["examples"], where
                assert {"400", "401", "413", "422", "429", "503"} <= operation["responses"].keys(), where
            for parameter in operation.get("parameters", []):
                assert parameter["description"], where
            for status, answer in operation["responses"].items():
                if status >= "400":
                    (kind,) = answer["content"].items()
                    assert (kind[0], kind[1]["schema"]) == ("application/problem+json", problem), (where, status)
                    assert kind[1]["example"]["status"] == int(status), (where, status)
            opened = path in ("/healthz", "/readyz")
            assert operation.get("security") == (None if opened else [{"token": []}]), where
            assert ("401" in operation["responses"]) is not opened, where
