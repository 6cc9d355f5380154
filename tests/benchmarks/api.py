"""What the API does at a fixed rate of requests, below, at and far above what it can; nothing is asserted.

``python tests/benchmarks/api.py`` prints a table; ``--json`` writes it with the machine that it was measured on.

The load is open: requests are sent when they are due, whatever has become of those before, and their time counts from
when they were due. Names are MeSH descriptors, texts are abstracts of BC5CDR. Client and server share the machine;
``lag`` says how late the client was, and figures with a lag near their latency are figures of the client.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import psutil
from measuring import ROOT, machine
from open_loop import CONNECTIONS, Client, Load
from rich.console import Console
from rich.table import Table

from kg.errors import ConfigError, KGError
from kg.linking import Linker
from kg.local_server import LocalServer
from kg.settings import Settings
from kg.snapshot import write_snapshot
from tests.kg.serving import served

FACTORS = (0.5, 1, 2, 10)
"""Of the capacity."""


def mesh(folder: Path, data: Path) -> Path:
    """A snapshot of the MeSH descriptors with their names and the broader ones."""
    source = data / "linking/kb/mesh_descriptors"
    names = [line.split("\t") for line in (source / "names.tsv").read_text("utf-8").splitlines()]
    preferred = {id: name for id, name, kind, *_ in names if kind == "P"}
    edges = [line.split("\t") for line in (source / "edges.tsv").read_text("utf-8").splitlines()]
    return write_snapshot(
        folder,
        entities=[{"id": f"mesh:{id}", "name": name, "types": ["Concept"]} for id, name in preferred.items()],
        aliases=[
            {
                "alias": name,
                "entity": f"mesh:{id}",
                "prior": 1.0,
                "kind": "pref" if kind == "P" else "syn",
                "language": "",
            }
            for id, name, kind in dict.fromkeys((id, name, kind) for id, name, kind, *_ in names)
            if id in preferred
        ],
        triples=[
            (f"mesh:{head}", relation.upper(), f"mesh:{tail}")
            for head, tail, relation in edges
            if head in preferred and tail in preferred
        ],
        sources=[{"id": "mesh", "release": ""}],
    )


def texts(data: Path) -> Iterator[str]:
    for line in (data / "linking/bc5cdr/docs.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)["text"]


def show(loads: Sequence[Load], capacity: float) -> None:
    table = Table(
        caption=f"capacity {capacity:.0f} requests/s; ms: p50 / p99; lag: how late the client was; "
        f"MB: first, peak, growth in the second half; not sent: all {CONNECTIONS:,} connections waited for an answer"
    )
    columns = (
        "load",
        "due/s",
        "accepted/s",
        "429",
        "503",
        "cut",
        "not sent",
        "accepted ms",
        "429 ms",
        "healthz ms",
        "lag ms",
    )
    for name in (*columns, "MB", "cores: client, server", "recovered s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in loads:
        pairs = (
            f"{two['p50']:.1f} / {two['p99']:.1f}" if two else ""
            for two in (one.latency, one.refusal, one.health, one.lag)
        )
        table.add_row(
            f"{one.factor:g}x",
            f"{one.rate:,.0f}",
            f"{one.accepted * one.rate / max(one.due, 1):,.0f}",
            f"{one.share_refused:.1%}",
            f"{one.overdue}",
            f"{one.failed}",
            f"{one.unsent / max(one.due, 1):.1%}",
            *pairs,
            f"{one.memory['first']:.0f}, {one.memory['peak']:.0f}, {one.memory['growth']:+.1f}",
            f"{one.cpu['client']:.2f}, {one.cpu['server']:.2f}",
            "never" if one.recovered_s is None else f"{one.recovered_s:.2f}",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)


async def measure(
    port: int, server: psutil.Process, data: Path, options: argparse.Namespace
) -> tuple[float, list[Load]]:
    client = Client(port, list(texts(data)))
    await client.warm_up(len(list(texts(data))))
    capacity = await client.capacity(options.seconds / 4)
    loads: list[Load] = []
    for factor in FACTORS:
        Console(stderr=True).print(f"{time.strftime('%H:%M:%S')} {factor:g} times {capacity:.0f} requests/s")
        loads.append(await client.load(factor, factor * capacity, options.seconds, server))
        client.sound_s = loads[0].latency.get("p99", 100) / 1e3
    return capacity, loads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("options", nargs="*", help="of `python -m kg api`, after --")
    options = parser.parse_args()
    try:
        data = Settings.from_env().data or ROOT.parent / "shared" / "data"
        if not data.is_dir():
            raise ConfigError(f"No data folder at {data}; set KGFUSE_DATA.")
        with tempfile.TemporaryDirectory(prefix="kgfuse-benchmark-") as work:
            home = Path(work)
            names = len(Linker.load(mesh(home / "snapshots" / "v1", data)).snapshot.aliases)
            about: Mapping[str, Any] = {
                "machine": machine(LocalServer(home)),
                "names": names,
                "seconds": options.seconds,
            }
            with served(home, *options.options) as server:
                capacity, loads = asyncio.run(measure(server.port, psutil.Process(server.process.pid), data, options))
        show(loads, capacity)
        if options.json:
            said = {**about, "capacity": round(capacity, 1), "loads": [asdict(one) for one in loads]}
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    except KGError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; the server is stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
