"""A real server process for tests and benchmarks: ``python -m kg api`` on a free port."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Serving:
    """A server that runs, and where it listens."""

    process: "subprocess.Popen[str]"
    port: int


@contextmanager
def served(home: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """Serve with ``home`` as KGFUSE_HOME; the process is killed when the block ends and it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kg", "api", "--port", "0", *options],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "KGFUSE_HOME": str(home), "OMP_NUM_THREADS": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+),", process.stdout.readline())
        assert found is not None, process.communicate()
        yield Serving(process, int(found[1]))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
