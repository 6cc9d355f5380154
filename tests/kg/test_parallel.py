"""Work in several processes: in order, errors and deaths reported, nothing left behind; on Ray likewise."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ingest import rdf
from ingest.report import Report
from kg.errors import ConfigError, InputError
from kg.parallel import WorkerDied, map_chunks

ROOT = Path(__file__).parent.parent.parent


def doubled_slowly(number: int) -> tuple[int, int]:
    time.sleep(0.05 * (number % 3))
    return 2 * number, os.getpid()


def refused(number: int) -> int:
    if number == 3:
        raise InputError("a.nt", "is bad", line=number)
    return number


def dies(number: int) -> int:
    if number == 3:
        sys.stderr.write("last words\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def takes_memory(number: int) -> int:
    return len(bytearray(number))


def waits(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(600)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def test_results_come_in_order_from_several_processes() -> None:
    results = list(map_chunks(doubled_slowly, range(12), workers=2))
    assert [result for result, _ in results] == [2 * number for number in range(12)]
    pids = {pid for _, pid in results}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_no_items_start_no_process() -> None:
    assert list(map_chunks(doubled_slowly, [])) == []


def test_an_error_of_the_function_is_raised_as_it_is() -> None:
    results = map_chunks(refused, range(6), workers=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError) as error:
        next(results)
    assert (error.value.path, error.value.line, error.value.reason) == (Path("a.nt"), 3, "is bad")


def test_a_worker_that_dies_is_reported_with_its_item() -> None:
    with pytest.raises(WorkerDied) as died:
        list(map_chunks(dies, range(6), workers=2))
    assert died.value.item == 3
    assert died.value.reason == "signal SIGKILL (last words)"


def test_a_worker_may_not_take_more_memory_than_it_is_given() -> None:
    with pytest.raises(MemoryError):
        list(map_chunks(takes_memory, [2 << 30], memory=1 << 30))
    assert list(map_chunks(takes_memory, [1 << 20], memory=1 << 30)) == [1 << 20]


def test_workers_end_when_nobody_wants_more_results() -> None:
    results = map_chunks(doubled_slowly, iter(range(10**9)), workers=2)
    assert next(results)[0] == 0
    results.close()  # type: ignore[attr-defined]  # it is a generator


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from kg.parallel import map_chunks
from tests.kg.test_parallel import waits
list(map_chunks(waits, sys.argv[1:], workers=2))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(how: signal.Signals, tmp_path: Path) -> None:
    markers = [tmp_path / "one", tmp_path / "two"]
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, markers)], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not all(marker.exists() and marker.read_text() for marker in markers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = [psutil.Process(int(marker.read_text())) for marker in markers]
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as the terminal does
        else:
            parent.kill()
        _, said = parent.communicate(timeout=60)
        assert (b"KeyboardInterrupt" in said) == (how == signal.SIGINT)
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
    finally:
        parent.kill()
        parent.wait()


def test_ray_that_is_not_installed_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="needs the package ray"):
        list(map_chunks(doubled_slowly, [1], engine="ray"))


def written(tmp_path: Path) -> list[Path]:
    files = []
    for number in range(8):
        file = tmp_path / f"{number}.nt"
        lines = [f'<http://e/{i}> <http://e/p{number}> "{i}" .' for i in range(25_000)]
        lines[7] = "bad"
        lines[8] = f"<http://e/{number}> <http://e/q> _:x ."
        lines[9] = f'_:x <http://e/q> "{number}" .'
        file.write_text("\n".join(lines))
        files.append(file)
    return files


def table_and_report(files: list[Path], **options: Any) -> tuple[Any, dict[str, Any]]:
    report = Report("test", **options)
    table = rdf.parse(files, report).table.combine_chunks()
    return table, {"read": report.read, "skipped": report.skipped, "quarantined": report.quarantined}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of ray itself
def test_on_ray_a_node_may_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    files = written(tmp_path)
    expected = table_and_report(files)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False},
    )
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        numbers = map_chunks(doubled_slowly, range(40), engine="ray", workers=4)
        first = [next(numbers)[0] for _ in range(10)]
        cluster.remove_node(second)
        assert first + [number for number, _ in numbers] == [2 * number for number in range(40)]
        got = table_and_report(files, engine="ray", work=tmp_path / "work")
        assert got[0].equals(expected[0])
        assert got[1] == expected[1]
        with pytest.raises(InputError, match="a.nt:3: is bad"):
            list(map_chunks(refused, range(6), engine="ray"))
        with pytest.raises(WorkerDied) as died:
            list(map_chunks(dies, [3], engine="ray"))
        assert died.value.item == 3
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of ray itself
def test_ray_is_started_where_there_is_none_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    script = (
        "import os, psutil\n"
        "from kg.parallel import map_chunks\n"
        "from tests.kg.test_parallel import doubled_slowly\n"
        "results = map_chunks(doubled_slowly, range(4), engine='ray')\n"
        "assert next(results)[0] == 0\n"
        "assert os.environ['RAY_AUTH_MODE'] == 'token'\n"
        "mine = [psutil.Process(), *psutil.Process().children(recursive=True)]\n"
        "open_ = [c.laddr.ip for p in mine for c in p.net_connections('tcp') if c.status == 'LISTEN']\n"
        "print(*{ip.removeprefix('::ffff:') for ip in open_})\n"
        "assert [r[0] for r in results] == [2, 4, 6]\n"
        "import ray\n"
        "assert not ray.is_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "127.0.0.1"
