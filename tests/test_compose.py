"""The compose file says the same as the local server; no Docker engine is needed to see that."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kg import neo4j_process
from kg.neo4j_jars import VERSION

DOCKER = Path(__file__).parent.parent / "docker"
TEXT = (DOCKER / "compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_neo4j_is_the_official_image_of_the_pinned_version() -> None:
    assert SERVICES["neo4j"]["image"] == f"neo4j:{VERSION}"


def test_neo4j_has_the_settings_of_the_local_server() -> None:
    local = dict(line.split("=", 1) for line in neo4j_process.CONFIG.splitlines())
    sizes = {"page_cache_mb": neo4j_process.PAGE_CACHE_MB, "transaction_mb": 256, "transactions_mb": 512}
    of_the_place = {  # in a container others must reach it; the image turns authentication on and validates
        "server.default_listen_address",
        "server.bolt.listen_address",
        "dbms.security.auth_enabled",
        "dbms.security.procedures.unrestricted",
        "internal.server.bolt.thread_pool_shutdown_wait_time",
        "server.config.strict_validation.enabled",
    }
    wanted = {name: value.format(**sizes) for name, value in local.items() if name not in of_the_place}
    given = {
        name.removeprefix("NEO4J_").replace("__", "\0").replace("_", ".").replace("\0", "_"): value
        for name, value in SERVICES["neo4j"]["environment"].items()
        if name != "NEO4J_AUTH"
    }
    assert given.pop("server.memory.heap.max_size") == "1024m"
    assert given == wanted


def test_no_secret_is_in_the_file_and_each_must_be_given() -> None:
    variables = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    assert {f"{name}=" for name in variables} <= {re.sub("=.*", "=", line) for line in example.splitlines()}
    for secret in ("NEO4J_PASSWORD", "KGFUSE_API_TOKEN"):
        assert set(re.findall(rf"\$\{{{secret}(..)", TEXT)) == {":?"}
        assert re.search(rf"^{secret}=$", example, re.MULTILINE)
    assert ".env" in (DOCKER / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("service", ["neo4j", "api"])
def test_what_serves_is_open_on_this_machine_only_and_checked(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service]["ports"])
    assert SERVICES[service]["healthcheck"]["test"]


@pytest.mark.parametrize("service", ["api", "trainer"])
def test_our_containers_wait_for_neo4j_and_may_change_nothing_but_their_state(service: str) -> None:
    ours = SERVICES[service]
    assert ours["depends_on"] == {"neo4j": {"condition": "service_healthy"}}
    assert ours["environment"]["NEO4J_URI"] == "bolt://neo4j:7687"
    assert ours["read_only"] is True
    assert [volume for volume in ours["volumes"] if not volume.endswith(":ro")] == ["state:/state"]
    assert (DOCKER.parent / ours["build"]["dockerfile"]).is_file()
    assert {"neo4j", "state"} == COMPOSE["volumes"].keys()
