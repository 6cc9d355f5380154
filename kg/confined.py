"""Cypher of people in a process of its own, which is ended when it takes too long or too much memory.

One value can be larger than any number of rows: ``RETURN range(1, 10000000)`` takes the driver 600 MB and 11 s before
it can be counted, and a driver that waits for Neo4j cannot be called off.
"""

import json
import logging
import os
import resource
import signal
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kg.errors import KGError, QueryRefused
from kg.explore import run_cypher
from kg.local_server import Address
from kg.store import connect

log = logging.getLogger(__name__)
MEMORY_MB = 512
START_S, SPARE_S = 60, 2  # until a new process has connected; until Neo4j has said that time is up


class ConfinedCypher:
    """Runs one statement at a time; the process is started for the first one, and anew after it was ended."""

    def __init__(self, *, memory_mb: int = MEMORY_MB) -> None:
        self._memory_mb = memory_mb
        self._address: Address | None = None
        self._process: Any = None

    def run(self, address: Address, query: str, parameters: dict[str, Any], *, timeout_s: float, **limits: int) -> str:
        """JSON of the ``kg.explore.Table`` of a statement.

        Raises:
            QueryRefused: as ``kg.explore.run_cypher``, or it was ended.
            StoreUnavailable: no Neo4j answers at ``address``.
        """
        if self._process is None or not self._process.is_alive() or address != self._address:
            self._start(address)
        try:
            self._pipe.send((query, parameters, {"timeout_s": timeout_s, **limits}))
            if not self._pipe.poll(timeout_s + SPARE_S):
                self.close()
                raise QueryRefused(f"The query took longer than {timeout_s:g} s and was ended; narrow it.")
            answer = self._pipe.recv()
        except RecursionError as error:  # nothing of it was sent
            raise QueryRefused("A parameter is nested too deeply.") from error
        except (EOFError, OSError) as error:
            self.close()
            log.warning(
                "The process for Cypher ended within its %d MB; the next statement has a new one.", self._memory_mb
            )
            raise QueryRefused(
                f"The answer needs more than the {self._memory_mb} MB that it may take; return less at once."
            ) from error
        if isinstance(answer, KGError):
            raise answer
        return str(answer)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._pipe.close()
            self._process = None

    def _start(self, address: Address) -> None:
        self.close()
        context = get_context("spawn")  # a fork of a process with threads may hang
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, address, self._memory_mb), daemon=True)
        self._address = address
        self._process.start()
        theirs.close()
        try:
            ready = self._pipe.recv() if self._pipe.poll(START_S) else None
        except EOFError:
            ready = None
        if ready is not True:
            self.close()
            raise ready if isinstance(ready, KGError) else KGError("The process for Cypher did not start.")


def _serve(pipe: Connection, address: Address, memory_mb: int) -> None:
    """Answer until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this
    try:
        with connect(address) as store:
            pipe.send(True)
            _limit_memory(memory_mb)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # out of memory, the driver's Rust prints a stack of 60 lines
            while True:
                query, parameters, limits = pipe.recv()
                try:
                    table = run_cypher(store, query, parameters, regular_expressions=False, **limits)
                    pipe.send(json.dumps({"columns": table.columns, "rows": table.rows, "truncated": table.truncated}))
                except KGError as error:
                    pipe.send(error)
                except MemoryError:
                    return  # with the pipe closed, the other end knows
                except Exception as error:
                    pipe.send(KGError(f"Unexpected {type(error).__name__} in the process for Cypher: {error}"))
    except KGError as error:
        pipe.send(error)
    except EOFError:
        return


def _limit_memory(memory_mb: int) -> None:
    """Let this process have so much more than now. Only Linux keeps to it; elsewhere the time limit must do."""
    if sys.platform == "linux":
        data_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (data_pages * resource.getpagesize() + (memory_mb << 20), most))
