"""Work on many items at once, in processes of this machine or as tasks of a Ray cluster; results come in order.

``python -m kg.parallel FD BYTES`` is such a process: it is told what to do through the socket FD, and may use BYTES
of memory (0: no limit). It is no child of ``multiprocessing``, which would run the main script of the user again.
"""

import importlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, Literal, TypeVar

from kg.errors import ConfigError, KGError

Item = TypeVar("Item")
Result = TypeVar("Result")
Engine = Literal["local", "ray"]
AHEAD = 4
"""Items under way for each worker of a Ray cluster; the scheduler has something to do while results come back."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}
"""Of local workers: one thread each, and memory that is kept for the next block. Giving it back and getting it again
took a third of the CPU time of parsing N-Triples (1.4M lines: 2.1 s of system time against 0.4 s)."""


class WorkerDied(KGError):
    """The process that worked on ``item`` is gone, for whatever reason it gave last."""

    def __init__(self, item: Any, reason: str) -> None:
        super().__init__(f"A worker died of {item!r:.200}: {reason}")
        self.item, self.reason = item, reason


def map_chunks(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    engine: Engine = "local",
    workers: int | None = None,
    memory: int = 0,
) -> Iterator[Result]:
    """``fn`` of each item, in the order of the items.

    Args:
        fn: a function of a module; it runs in another process, whose own state is lost.
        engine: ``local`` or ``ray``; on a Ray cluster, what ``fn`` writes must lie on storage that all nodes share.
        workers: processes, or tasks that run at once; default one for each core, or each core of the cluster.
        memory: address space of a local worker in bytes; 0 for no limit.

    Raises:
        WorkerDied: a worker died; the other workers are ended.
        ConfigError: ``ray`` was asked for and is not installed.
        Exception: whatever ``fn`` raised.
    """
    if engine == "ray":
        return _map_ray(fn, items, workers)
    return _map_local(fn, items, workers or os.cpu_count() or 1, memory)


@dataclass
class _Worker:
    """A process with its end of the line; ``number`` is that of the item it works on."""

    process: subprocess.Popen[bytes]
    line: "Connection[Any, Any]"
    stderr: IO[bytes]
    number: int = -1
    item: Any = None

    @classmethod
    def start(cls, memory: int) -> "_Worker":
        ours, theirs = Pipe()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-m", "kg.parallel", str(theirs.fileno()), str(memory)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path, **ENVIRONMENT},
        )
        theirs.close()
        return cls(process, ours, stderr)

    def give(self, fn: Callable[..., Any], number: int, item: Any) -> None:
        self.number, self.item = number, item
        try:
            self.line.send((fn.__module__, fn.__qualname__, item))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self.obituary() from error

    def take(self) -> Any:
        try:
            good, result = self.line.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self.obituary() from error
        if not good:
            raise result
        return result

    def obituary(self) -> WorkerDied:
        code = self.process.wait()
        self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, self.stderr.tell() - 2000))
        said = self.stderr.read().decode(errors="replace").strip().splitlines()
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return WorkerDied(self.item, f"{reason} ({said[-1][:200]})" if said else reason)

    def end(self) -> None:
        self.line.close()
        self.process.kill()
        self.process.wait()
        self.stderr.close()


def _map_local(fn: Callable[[Item], Result], items: Iterable[Item], num_workers: int, memory: int) -> Iterator[Result]:
    todo = enumerate(items)
    workers: list[_Worker] = []
    idle: deque[_Worker] = deque()
    results: dict[int, Result] = {}
    next_out, exhausted = 0, False
    try:
        while True:
            while not exhausted and (idle or len(workers) < num_workers):
                job = next(todo, None)
                if job is None:
                    exhausted = True
                    break
                if not idle:
                    workers.append(_Worker.start(memory))
                    idle.append(workers[-1])
                idle.popleft().give(fn, *job)
            busy = {worker.line: worker for worker in workers if worker not in idle}
            if not busy:
                return
            for line in wait(list(busy)):
                worker = busy[line]  # type: ignore[index]  # wait() gives back what it was given
                results[worker.number] = worker.take()
                idle.append(worker)
            while next_out in results:
                yield results.pop(next_out)
                next_out += 1
    finally:
        for worker in workers:
            worker.end()


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """The package ``ray``, connected to the cluster that ``RAY_ADDRESS`` names, else to one on this machine alone.

    Raises:
        ConfigError: ``ray`` is not installed.
    """
    alone = not os.environ.get("RAY_ADDRESS")
    if "ray" not in sys.modules:  # it looks at its environment when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # of a local cluster, it makes the token itself
        if alone:  # despite its name, this decides on Linux, too, whether anything listens beyond the loopback address
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(
            "The engine ray needs the package ray; install kgfuse[ray], or use the engine local."
        ) from error
    started = not ray.is_initialized()
    if started:
        where: dict[str, Any] = {"address": "local", "include_dashboard": False} if alone else {}
        ray.init(log_to_driver=False, logging_level="ERROR", **where)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _map_ray(fn: Callable[[Item], Result], items: Iterable[Item], workers: int | None) -> Iterator[Result]:
    """As tasks of the cluster. A task whose node is lost is given to another one by Ray."""
    with ray_cluster() as ray:
        task = ray.remote(fn)
        limit = workers or AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        pending: deque[tuple[Item, Any]] = deque()
        for item in items:
            if len(pending) >= limit:
                yield _ray_result(ray, *pending.popleft())
            pending.append((item, task.remote(item)))
        while pending:
            yield _ray_result(ray, *pending.popleft())


def _ray_result(ray: Any, item: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KGError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise WorkerDied(item, str(error).strip().splitlines()[0]) from error


def serve(line: "Connection[Any, Any]") -> None:
    """Do what comes through ``line`` until it closes; then, or when the parent dies, end at once."""
    jobs: SimpleQueue[tuple[str, str, Any]] = SimpleQueue()

    def listen() -> None:
        while True:
            try:
                jobs.put(line.recv())
            except (EOFError, OSError):
                os._exit(0)

    Thread(target=listen, daemon=True).start()
    while True:
        module, name, item = jobs.get()
        try:
            answer = True, getattr(importlib.import_module(module), name)(item)
        except Exception as error:
            answer = False, error
        line.send(answer)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    if limit := int(sys.argv[2]):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    serve(Connection(int(sys.argv[1])))
