"""A load that is killed, or whose Neo4j is, is completed by running it again: the same graph, whenever it happened."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kg.graph_hash import graph_hash
from kg.local_server import LocalServer
from kg.settings import Settings
from kg.store import open_store
from tests.ingest.faults import Fault, load, statements, try_fault, undisturbed

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
        assert outcome.said.startswith(("python -m ingest: Neo4j ", "python -m ingest: The connection "))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 30 MiB, of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("a disk to fill up can only be made by root on Linux")
    try:
        yield disk
    finally:
        LocalServer(disk / "home").stop()
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_said_and_with_more_space_the_load_is_completed(small_disk: Path, bench: Bench) -> None:
    home = small_disk / "home"
    failed = load(home, bench.file)
    assert failed.returncode in (1, 2)
    (line,) = failed.stderr.strip().splitlines()
    assert re.search(r"disk may be full|[Nn]o space left|Neo4j went away", line), line
    LocalServer(home).stop()
    subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
    assert load(home, bench.file).returncode == 0
    with open_store(Settings(home=home)) as store:
        assert graph_hash(store) == bench.expected
