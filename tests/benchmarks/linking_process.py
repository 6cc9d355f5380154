"""One process that builds one system's index, or loads it and times its answers; linking_speed.py starts it.

Its messages are lines of JSON. After one that has ``wait`` it goes on when it is sent a line, so that several processes
can do the same at the same time.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
sys.path.insert(1, str(Path(__file__).parent))

from linking_peers import SNAPSHOT, SYSTEMS, System, peak_mb

RANKED = ("ours", "ours-matching")
"""Systems that take ``--ranker``."""


class Clock:
    """Wall and CPU seconds, of all threads, since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self, name: str) -> dict[str, float]:
        return {
            f"{name}_cpu_s": round(time.process_time() - self.cpu, 3),
            f"{name}_s": round(time.perf_counter() - self.wall, 3),
        }


class Memory:
    """What this process has more than when this was made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.before = folder, psutil.Process().memory_full_info()

    def read(self, when: str) -> dict[str, float]:
        """MB: resident, private, proportional (shared pages by how many share them), resident pages of own files."""
        now, maps = psutil.Process().memory_full_info(), psutil.Process().memory_maps()
        mapped = sum(part.rss for part in maps if part.path.startswith(str(self.folder)))
        sizes = {kind: getattr(now, kind) - getattr(self.before, kind) for kind in ("rss", "uss", "pss")}
        return {f"{kind}_{when}_mb": round(size / 2**20, 1) for kind, size in {**sizes, "mapped": mapped}.items()}


def build(system: System, folder: Path) -> dict[str, Any]:
    for module in system.modules:
        importlib.import_module(module)
    clock = Clock()
    parts = system.build(folder) if system.build else None
    return {**clock.read("build"), "build_peak_mb": peak_mb(), **(parts or {})}


def run(system: System, folder: Path, texts: Path, sync: Callable[..., None]) -> dict[str, Any]:
    """Load, warm up with one part of the corpus and time the other, which no cache has seen."""
    docs, unseen, to_warm_up = (_read(texts / f"{name}.jsonl") for name in ("test", "unseen", "train"))
    clock = Clock()
    for module in system.modules:
        importlib.import_module(module)
    figures: dict[str, Any] = clock.read("import")
    memory = Memory(folder)
    loaded = system.load(folder)
    loaded.match(to_warm_up[0])
    figures |= clock.read("start") | memory.read("loaded")
    for doc in to_warm_up:
        loaded.match(doc)
    sync(ready=True)
    clock, walls, cpus, found = Clock(), [], [], 0
    for doc in docs:
        wall, cpu = time.perf_counter(), time.process_time()
        found += len(loaded.match(doc))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    figures |= clock.read("texts") | {"texts": len(docs), "characters": sum(len(doc["text"]) for doc in docs)}
    sync(done=True)
    figures |= memory.read("used") | {"found": found, "ms": _percentiles(walls), "cpu_ms": _percentiles(cpus)}
    sync(measured=True)
    if loaded.candidates is not None:
        loaded.candidates(docs[0]["mentions"][0])
        clock = Clock()
        given = [loaded.candidates(row["text"]) for row in unseen]
        figures |= clock.read("unseen") | memory.read("unseen")
        figures |= {
            "unseen": len(unseen),
            "answered": sum(map(bool, given)),
            "right": sum(not set(row["gold"]).isdisjoint(ids) for row, ids in zip(unseen, given, strict=True)),
        }
    return figures


def refresh(folder: Path, ranker: Path | None) -> dict[str, Any]:
    """A linker of the first snapshot is in use; the second one is there: how long until one of that answers."""
    from kg.linking import Linker

    how = {"ranker": ranker} if ranker else {}
    first = Linker.load(folder / SNAPSHOT, **how)
    changed = json.loads((folder / "changed.json").read_text(encoding="utf-8"))
    texts = [(entity, f"Patients were given {name} daily.") for entity, name in changed]
    first.link(texts[0][1])
    clock = Clock()
    second = Linker.load(folder / "v2", **how)
    second.link(texts[0][1])
    figures: dict[str, Any] = clock.read("refresh")
    for name, linker in {"first": first, "second": second}.items():
        figures[f"found_by_{name}"] = sum(entity in {link.id for link in linker.link(text)} for entity, text in texts)
    return {**figures, "changed": len(changed), "peak_mb": peak_mb()}


def _percentiles(seconds: Sequence[float]) -> list[float]:
    """Of 50, 95 and 99 in a hundred, in ms."""
    ordered = sorted(seconds)
    return [round(1000 * ordered[min(len(ordered) * part // 100, len(ordered) - 1)], 3) for part in (50, 95, 99)]


def _read(file: Path) -> list[Any]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("build", "run", "refresh"))
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--together", action="store_true", help="wait for others")
    parser.add_argument("--ranker", type=Path)
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no message

    def say(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    def sync(**message: Any) -> None:
        if options.together:
            say(wait=True, **message)
            sys.stdin.readline()

    if options.peers:
        sys.path.append(str(options.peers))  # last, so that libraries of both are those that kgfuse runs with
    system = SYSTEMS[options.system]
    try:
        if options.job == "build":
            figures: Mapping[str, Any] = build(system, options.folder)
        elif options.job == "refresh":
            figures = refresh(options.folder, options.ranker)
        else:
            load = partial(system.load, ranker=options.ranker) if options.system in RANKED else system.load
            figures = run(replace(system, load=load), options.folder, options.texts, sync)
    except ImportError as error:
        figures = {"failed": f"cannot be imported ({error}); --peers says where it is"}
    except Exception as error:  # whatever a library dies of is a row of the table
        figures = {"failed": f"{type(error).__name__}: {error}"[:300]}
    say(**figures)


if __name__ == "__main__":
    main()
