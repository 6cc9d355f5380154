"""A load that is killed, or whose Neo4j is, is completed by running it again: the same graph, whenever it happened."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kg.local_server import LocalServer
from tests.ingest.faults import Fault, statements, try_fault, undisturbed

pytestmark = [pytest.mark.neo4j, pytest.mark.slow]


@dataclass(frozen=True)
class Bench:
    """A store of its own, since its server is killed."""

    home: Path
    file: Path
    expected: str
    total: int


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("faults")
    home, file = folder / "home", statements(folder / "many.nt")
    try:
        yield Bench(home, file, *undisturbed(home, file))
    finally:
        LocalServer(home).stop()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(victim="importer", share=0.2),
        Fault(victim="importer", share=0.8),
        Fault(victim="importer", commit=8),
        Fault(victim="neo4j", share=0.3),
        Fault(victim="neo4j", share=0.7),
        Fault(victim="neo4j", commit=8),
    ],
    ids=str,
)
def test_running_it_again_gives_the_graph_of_an_undisturbed_load(fault: Fault, bench: Bench) -> None:
    outcome = try_fault(bench.home, bench.file, fault, bench.expected, bench.total)
    assert outcome.same
    assert outcome.left < 1
    if fault.victim == "neo4j":
        assert outcome.exit_code in (1, 2)
        assert "Traceback" not in outcome.said
        assert outcome.said.startswith(("Neo4j ", "The connection "))
