"""Loads that are killed, or whose Neo4j is killed, and what running them again leaves.

``python tests/ingest/faults.py`` prints a table with a row for each fault; ``--points 20`` is the full set.

Each fault is placed by progress (share of nodes and relationships that are in the graph) or inside the n-th commit, for
which the child marks the call of the driver. Afterwards the load is simply run again, and the graph has to be the one
that an undisturbed load gives.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from kg.errors import KGError
from kg.graph_hash import graph_hash
from kg.local_server import LocalServer
from kg.settings import Settings
from kg.store import GraphStore, open_store

ROOT = Path(__file__).parent.parent.parent
COUNT = "RETURN COUNT { (:Entity) } + COUNT { ()-->() } AS done"
CHILD = """
import sys, pathlib, neo4j
mark, commit = pathlib.Path(sys.argv[1]), neo4j.Transaction.commit
def marked(self):
    with mark.open("a") as file:
        file.write(".")
    commit(self)
neo4j.Transaction.commit = marked
from ingest.__main__ import main
sys.exit(main(sys.argv[2:]))
"""
TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is killed, and when."""

    victim: str
    """``importer`` or ``neo4j``."""
    share: float | None = None
    """Of all nodes and relationships, what has to be in the graph before."""
    commit: int | None = None
    """Number of the commit that is under way."""
    delay_s: float = 0.0
    """After that commit was called."""

    def __str__(self) -> str:
        where = (
            f"at {self.share:.0%}"
            if self.share is not None
            else f"{self.delay_s * 1000:.0f} ms into commit {self.commit}"
        )
        return f"{self.victim} {where}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    exit_code: int
    said: str
    left: float
    """Share of the graph that was there after the fault."""
    same: bool
    """The graph is that of an undisturbed load, after the load was run again."""


def faults(points: int) -> Iterator[Fault]:
    """``points`` for each victim, three of them inside a commit."""
    for victim in ("importer", "neo4j"):
        by_progress = max(points - 3, 1)
        for number in range(by_progress):
            yield Fault(victim=victim, share=(number + 0.5) / by_progress)
        for number in range(3):
            yield Fault(victim=victim, commit=3 + 5 * number, delay_s=0.002 * number)


def statements(file: Path, num_entities: int = 30_000) -> Path:
    """N-Triples of a dozen batches of entities and relationships."""
    rows = []
    for number in range(num_entities):
        rows.append(f'<http://e/{number}> <http://www.w3.org/2000/01/rdf-schema#label> "entity {number}" .')
        rows += [f"<http://e/{number}> <http://e/p{k}> <http://e/{(number * 7 + k) % num_entities}> ." for k in (1, 2)]
    file.write_text("\n".join(rows) + "\n")
    return file


def undisturbed(home: Path, file: Path) -> tuple[str, int]:
    """Hash of the graph, and how many nodes and relationships it has."""
    with open_store(Settings(home=home)) as store:
        empty(store)
        assert load(home, file).returncode == 0
        return graph_hash(store), int(store.read(COUNT)[0]["done"])


def try_fault(home: Path, file: Path, fault: Fault, expected: str, total: int) -> Outcome:
    """Empty the graph, load with the fault, load again."""
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "commits"
        mark.touch()
        command = [sys.executable, "-c", CHILD, str(mark), *_load(file)]
        with open_store(Settings(home=home)) as store:
            empty(store)
            child = subprocess.Popen(
                command, cwd=ROOT, env=_env(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            try:
                _wait(store, child, fault, mark, total)
                victim = child.pid if fault.victim == "importer" else int(LocalServer(home).status()["pid"])
                os.kill(victim, signal.SIGKILL)
                said = child.communicate(timeout=TIMEOUT_S)[1].strip().splitlines()
            finally:
                child.kill()
                child.wait()
            while psutil.pid_exists(victim) and psutil.Process(victim).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        with open_store(Settings(home=home)) as store:
            left = store.read(COUNT)[0]["done"] / total
            assert load(home, file).returncode == 0
            same = graph_hash(store) == expected
        return Outcome(exit_code=child.returncode, said=said[-1] if said else "", left=left, same=same)


def empty(store: GraphStore) -> None:
    """In steps that fit into the memory of a transaction; a node with very many relationships is more than a step."""
    while store.write("MATCH ()-[r]->() WITH r LIMIT 20000 DELETE r")["relationships_deleted"]:
        continue
    while store.write("MATCH (n) WITH n LIMIT 2000 DELETE n")["nodes_deleted"]:
        continue


def _wait(store: GraphStore, child: "subprocess.Popen[str]", fault: Fault, mark: Path, total: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while child.poll() is None and time.monotonic() < deadline:
        if fault.commit is not None:
            if mark.stat().st_size >= fault.commit:
                time.sleep(fault.delay_s)
                return
        elif store.read(COUNT)[0]["done"] >= (fault.share or 0) * total:
            return
        time.sleep(0.0005 if fault.commit else 0.01)
    raise AssertionError(f"{fault}: the load ended before that: {child.returncode}")


def load(home: Path, file: Path) -> "subprocess.CompletedProcess[str]":
    """Load the file, undisturbed."""
    command = [sys.executable, "-m", "ingest", *_load(file)]
    return subprocess.run(command, cwd=ROOT, env=_env(home), capture_output=True, text=True, check=False)


def _load(file: Path) -> list[str]:
    return ["load", "rdf", str(file), "--source-id", "many"]


def _env(home: Path) -> dict[str, str]:
    return {**os.environ, "KGFUSE_HOME": str(home)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20, help="faults for each of importer and Neo4j")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file, too")
    options = parser.parse_args()
    bad, rows = 0, []
    with tempfile.TemporaryDirectory(prefix="kgfuse-faults-") as folder:
        home, file = Path(folder) / "home", statements(Path(folder) / "many.nt")
        try:
            expected, total = undisturbed(home, file)
            print(f"{'fault':28} {'exit':>5} {'left':>6}  same graph  last line")
            for fault in faults(options.points):
                outcome = try_fault(home, file, fault, expected, total)
                bad += not outcome.same
                rows.append({"fault": str(fault), **vars(outcome)})
                print(
                    f"{fault!s:28} {outcome.exit_code:5} {outcome.left:6.0%}  {outcome.same!s:10}  {outcome.said[:90]}",
                    flush=True,
                )
        except KGError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            LocalServer(home).stop()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{len(rows) - bad} of {len(rows)} gave the graph of an undisturbed load")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
