"""Trainings side by side: one process a core, one progress bar a training, finished ones never done again."""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from psutil import virtual_memory
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kg.errors import UserError
from models.run import Run

RESULT = "result.json"
Report = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of one arm."""

    name: str
    folder: Path
    """Where its checkpoints are, and ``result.json`` once it is finished."""
    work: Callable[..., dict[str, Any]]
    """Module-level function ``work(run_path, folder, report, **arguments)``; writes ``result.json`` last of all."""
    arguments: dict[str, Any]

    @property
    def result(self) -> dict[str, Any] | None:
        file = self.folder / RESULT
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def run_jobs(run: Run, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Run what is not finished, as many at a time as there are cores, and return all results in order."""
    todo = [job for job in jobs if job.result is None]
    if todo:
        # by all jobs, not by those left: a training's last bits depend on its threads, and a resumed run is to give
        # what an uninterrupted one gives
        _run(run, todo, workers=min(len(jobs), len(os.sched_getaffinity(0))))
    return [job.result or {} for job in jobs]


def _run(run: Run, jobs: Sequence[Job], *, workers: int) -> None:
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    # two OpenMP threads that fight for a core made a training ten times slower: the cores are shared out beforehand
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("spawn")
    shares: Any = context.Queue()
    columns = (TextColumn("{task.description:32}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    bars: dict[str, TaskID] = {}
    with (
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(shares, threads)) as pool,
    ):
        total = progress.add_task(f"{len(jobs)} trainings, {workers} at a time", total=len(jobs))
        waiting: set[Future[None]] = {pool.submit(_work, job, run.path) for job in jobs}
        try:
            while waiting:
                _show(shares, progress, bars, total)
                for future in [future for future in waiting if future.done()]:
                    waiting.remove(future)
                    future.result()
            _show(shares, progress, bars, total)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise _ended(workers) from error
            raise


def _ended(workers: int) -> UserError:
    free, all_there_is = (size / 2**30 for size in (virtual_memory().available, virtual_memory().total))
    fewer = f"fewer than {workers} at a time (taskset -c 0), " if workers > 1 else ""
    return UserError(
        "The process of a training was ended from outside, as the system does where memory runs out "
        f"({free:.1f} of {all_there_is:.1f} GiB are free now). What is finished stays: run again, with {fewer}"
        "a smaller batch_size or a smaller max_length."
    )


def _show(shares: Any, progress: Progress, bars: dict[str, TaskID], total: TaskID) -> None:
    """Move the bars by what the workers tell within a moment, however often they do."""
    done: dict[str, float] = {}
    end = time.monotonic() + 0.2
    with suppress(Empty):
        while (left := end - time.monotonic()) > 0:
            name, share = shares.get(timeout=left)
            done[name] = share
    for name, share in done.items():
        if name not in bars:
            bars[name] = progress.add_task(f"  {name}", total=1.0)
        progress.update(bars[name], completed=share)
        if share >= 1:
            progress.update(bars[name], visible=False)
            progress.advance(total)


_shares: Any = None


def _start_worker(shares: Any, threads: int) -> None:
    global _shares
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _shares = shares


def _end_with_parent() -> None:
    """A parent that was killed leaves nobody behind who goes on writing where the next run begins again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job, run_path: Path) -> None:
    def report(share: float) -> None:
        _shares.put((job.name, min(share, 0.999)))

    report(0.0)
    job.work(run_path, job.folder, report, **job.arguments)
    _shares.put((job.name, 1.0))
