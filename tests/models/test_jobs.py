"""Trainings in processes of their own: what goes wrong in one is said by the run, in one line."""

import os
import signal
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from rich.progress import Progress, TaskID

from kg.errors import InputError, UserError
from models.recipe import load_recipe
from models.run import Run
from models.stages.arms import arm_table
from models.stages.jobs import Job, _show, run_jobs


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(tmp_path / "run", load_recipe("sample"))


def _no_table(run_path: Path, folder: Path, report: Any) -> dict[str, Any]:
    return {"table": arm_table(run_path, "fused")}


def _killed(run_path: Path, folder: Path, report: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_a_failure_in_a_training_is_the_failure_of_the_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{run.path}/table: holds no entity table"):
        run_jobs(run, [Job(name="bad", folder=tmp_path / "bad", work=_no_table, arguments={})])


def test_bars_move_and_failures_are_looked_for_while_workers_tell_more_than_can_be_shown() -> None:
    shares: SimpleQueue[tuple[str, float]] = SimpleQueue()
    stop = threading.Event()

    def tell() -> None:
        for _ in range(1500):
            if not stop.wait(0.02):
                shares.put(("one", 0.5))

    worker = threading.Thread(target=tell)
    worker.start()
    bars: dict[str, TaskID] = {}
    progress = Progress(disable=True)
    try:
        _show(shares, progress, bars, progress.add_task("all"))
        assert worker.is_alive()
    finally:
        stop.set()
        worker.join()
    assert progress.tasks[bars["one"]].completed == 0.5


def test_a_training_that_the_system_ends_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    job = Job(name="bad", folder=tmp_path / "bad", work=_killed, arguments={})
    with pytest.raises(UserError, match=r"memory runs out \(.* GiB are free now\)\. What is finished stays: run again"):
        run_jobs(run, [job])
