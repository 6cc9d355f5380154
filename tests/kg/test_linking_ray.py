"""Corpora on Ray Data: the bytes of a run without it; skipped without ray."""

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kg.errors import InputError, KGError
from kg.linking import Linker
from kg.linking.corpus import CHUNK
from kg.linking.files import link_file
from tests.builders import tiny_snapshot
from tests.kg.test_linking_files import many

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # those of ray itself


@pytest.fixture
def linker(tmp_path: Path) -> Linker:
    return Linker.load(tiny_snapshot(tmp_path / "home/snapshots/v1"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, with a token, as ``kg.parallel`` would start one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
        ray = pytest.importorskip("ray", reason="ray is not installed")
        pytest.importorskip("ray.data", reason="ray[data] is not installed")
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        try:
            assert sum(node["Alive"] for node in ray.nodes()) == 2
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


def test_the_bytes_are_those_of_a_run_without_ray(linker: Linker, tmp_path: Path, cluster: Any) -> None:
    source = many(tmp_path, 6000)
    assert source.stat().st_size > 4 * CHUNK
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    assert link_file(linker, source, tmp_path / "local.jsonl", offset_unit="utf-16") == 6000
    for number, (file, workers) in enumerate([(source, None), (source, 1), (packed, 2)]):
        target = tmp_path / f"{number}.jsonl"
        assert link_file(linker, file, target, offset_unit="utf-16", engine="ray", workers=workers) == 6000
        assert target.read_bytes() == (tmp_path / "local.jsonl").read_bytes()


def test_a_node_that_is_lost_changes_nothing(linker: Linker, tmp_path: Path, cluster: Any) -> None:
    """The node goes when the first links are on disk, and many are still to come."""
    source, target = many(tmp_path, 30_000), tmp_path / "out.jsonl"
    link_file(linker, source, tmp_path / "local.jsonl")
    lost = cluster.add_node(num_cpus=1)
    with ThreadPoolExecutor(1) as threads:
        linking = threads.submit(link_file, linker, source, target, engine="ray")
        while not any(file.stat().st_size for file in tmp_path.glob("out.jsonl.*")):
            assert not linking.done(), linking.result()
            time.sleep(0.05)
        cluster.remove_node(lost)
        written = sum(file.stat().st_size for file in tmp_path.glob("out.jsonl.*"))
        assert linking.result(timeout=300) == 30_000
    assert written < target.stat().st_size
    assert target.read_bytes() == (tmp_path / "local.jsonl").read_bytes()


def test_a_bad_line_is_named_and_either_engine_goes_on_from_there(linker: Linker, tmp_path: Path, cluster: Any) -> None:
    source, target = many(tmp_path, 6000), tmp_path / "out.jsonl"
    good = source.read_text().splitlines(keepends=True)
    link_file(linker, source, tmp_path / "at_once.jsonl")
    source.write_text("".join([*good[:3000], "broken\n", *good[3000:]]))
    with pytest.raises(InputError, match=r"in\.jsonl:3001: not JSON"):
        link_file(linker, source, target, engine="ray")
    (part,) = tmp_path.glob("out.jsonl.*")
    left = part.read_bytes()
    assert len(left.splitlines()) == 2998
    source.write_text("".join(good))
    for engine in ("local", "ray"):
        part.write_bytes(left[:-100])  # within a line, as a killed run leaves it
        assert link_file(linker, source, target, engine=engine) == 6000
        assert target.read_bytes() == (tmp_path / "at_once.jsonl").read_bytes()


def test_actors_refuse_another_snapshot_that_has_come_to_lie_there(
    linker: Linker, tmp_path: Path, cluster: Any
) -> None:
    tiny_snapshot(linker.snapshot.path, names=("Zeta",), triples=())
    with pytest.raises(KGError, match=f"A worker of Ray failed: .*{linker.snapshot.hash}"):
        link_file(linker, many(tmp_path, 10), tmp_path / "out.jsonl", engine="ray")


def test_ray_is_started_by_the_command_where_there_is_none(linker: Linker, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    source = many(tmp_path, 100)
    link_file(linker, source, tmp_path / "local.jsonl")
    env = {**os.environ, "KGFUSE_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    env.pop("RAY_AUTH_TOKEN", None)
    target = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "kg", "link", "--file", str(source), "--out", str(target), "--engine", "ray"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, f"100 texts linked, see {target}\n"), done.stderr
    assert target.read_bytes() == (tmp_path / "local.jsonl").read_bytes()
