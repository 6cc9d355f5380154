"""What linking costs in time and memory, beside other ways to find names, with the same names and texts.

``python tests/benchmarks/linking_speed.py`` prints tables; ``--json`` writes the figures with the machine that they are
of. Nothing is asserted.

Each figure is of a process of its own, on one thread, and every text that is timed is new to it: it has warmed up with
others. Other work on the machine slows the wall clock; CPU seconds compare.

The others are looked for in the folder of ``--peers``:
``pip install --target FOLDER spacy flashtext flashtext2 pyahocorasick ahocorasick-rs quickumls nmslib-metabrainz pysbd
conllu`` and, since it insists on an older numpy, ``pip install --no-deps --target FOLDER scispacy``.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from linking_names import change_names, mesh_names, write_names, write_names_snapshot, write_texts
from linking_peers import SYSTEMS
from linking_tables import Row, show
from measuring import ROOT, machine
from rich.console import Console

from kg.errors import ConfigError, KGError
from kg.settings import Settings

LIMITS = {"scispacy": 100_000}
"""Names for systems that take too long to build: with all of them this one takes an hour and more."""
CHANGED = 10_000
REFRESHED = 1_000_000
"""Names of the snapshot that is refreshed, if ``--sizes`` goes so far."""
QUICK_S = 10
REPEATS = 3
"""How often to run what starts and takes all texts within QUICK_S; the run of the median CPU time counts."""
LIMIT_S = 3600
"""For one process."""
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
PACKAGES = ("marisa-trie", "numpy", "pyarrow", *(name for system in SYSTEMS.values() for name in system.packages))


class Bench:
    """Names and texts on disk, indexes of them, and the rows so far."""

    def __init__(self, work: Path, data: Path, options: argparse.Namespace) -> None:
        self.work, self.data, self.options = work, data / "linking", options
        self.rows: list[Row] = []
        self.built: dict[Path, Row] = {}
        self.about = {"machine": machine(names=PACKAGES), "ranker": options.ranker and options.ranker.name}

    def names(self, number: int) -> Path:
        folder = self.work / f"names-{number}"
        if not folder.exists():
            say(f"writing {number:,} names")
            write_names(folder, self.data / "kb", number)
        return folder

    def texts(self, number: int) -> Path:
        """The strings among them that are unseen are none of that many names."""
        folder = self.work / f"texts-{number}"
        if not folder.exists():
            write_texts(folder, self.data / "bc5cdr/docs.jsonl", self.names(number) / "names.tsv")
        return folder

    def index(self, name: str, number: int) -> tuple[Path, Row]:
        """The index of a system, built when first asked for, and what that took."""
        build = SYSTEMS[name].build
        folder = self.work / f"{build.__name__ if build else name}-{number}"
        if folder not in self.built:
            folder.mkdir()
            for file in self.names(number).iterdir():
                (folder / file.name).symlink_to(file)
            say(f"{name}: building an index of {number:,} names")
            self.built[folder] = self.ask("build", name, folder) if build else {}
            if build is not None:
                files = {str(f.relative_to(folder)): f.lstat().st_size for f in folder.rglob("*") if not f.is_symlink()}
                self.built[folder]["files"] = {name: size for name, size in files.items() if (folder / name).is_file()}
        return folder, self.built[folder]

    def start(self, job: str, name: str, folder: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("linking_process.py")), job, name, str(folder), *more]
        for option in ("peers", "ranker"):
            if (value := getattr(self.options, option)) is not None:
                command += [f"--{option}", str(value)]
        return subprocess.Popen(
            command, env={**os.environ, **ONE_THREAD}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, job: str, name: str, folder: Path, *more: str) -> Row:
        """The figures of one process, or ``failed`` and why."""
        with self.start(job, name, folder, *more) as process:
            try:
                said, _ = process.communicate(timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                return {"failed": f"not done within {LIMIT_S} s"}
        return _message(process, said)

    def ask_two(self, name: str, folder: Path, texts: Path) -> Row:
        """Two processes that take all texts at the same time."""
        processes = [self.start("run", name, folder, "--texts", str(texts), "--together") for _ in range(2)]
        try:
            for _ in range(3):  # ready, done, measured
                for process in processes:
                    heard = _message(process, process.stdout.readline() if process.stdout else "")
                    if "failed" in heard:
                        return heard
                for process in processes:
                    if process.stdin:
                        process.stdin.write("\n")
                        process.stdin.flush()
            both = [_message(process, process.communicate(timeout=LIMIT_S)[0]) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        failed = [row for row in both if "failed" in row]
        return (
            failed[0]
            if failed
            else {
                "two_texts_per_s": round(sum(row["texts"] for row in both) / max(row["texts_s"] for row in both)),
                "two_texts_per_cpu_s": round(
                    sum(row["texts"] for row in both) / sum(row["texts_cpu_s"] for row in both)
                ),
                "two_pss_mb": round(sum(row["pss_used_mb"] for row in both)),
            }
        )

    def measure(self, name: str, number: int, *, measurement: str = "texts", two: bool = True) -> None:
        """Build, run and add a row, whatever comes of it."""
        folder, built = self.index(name, number)
        row = {"measurement": measurement, "system": name, "names": number, "load_average": os.getloadavg()[0], **built}
        if "failed" not in row:
            say(f"{name}: {number:,} names")
            ask = ("run", name, folder, "--texts", str(self.texts(number)))
            runs = [self.ask(*ask)]
            if "failed" not in runs[0] and runs[0]["start_s"] + runs[0]["texts_s"] < QUICK_S:
                runs += [self.ask(*ask) for _ in range(REPEATS - 1)]
            row |= sorted(runs, key=lambda run: run.get("texts_cpu_s", 0))[len(runs) // 2]
            if two and "failed" not in row:
                row |= self.ask_two(name, folder, self.texts(number))
        self.add(row)

    def refresh(self, number: int) -> None:
        """Two snapshots of our own, of which only the first one has been linked with."""
        folder, built = self.index("ours", number)
        row = {"measurement": "refresh", "system": "ours", "names": number, "load_average": os.getloadavg()[0]}
        if "failed" not in built:
            say(f"a snapshot with {CHANGED:,} of {number:,} names changed")
            changed = change_names(self.names(number), self.work / "changed", min(CHANGED, number // 10))
            write_names_snapshot(self.work / "changed", folder / "v2")
            (folder / "changed.json").write_text(json.dumps(changed))
            row |= self.ask("refresh", "ours", folder)
        self.add(row)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if "failed" in row:
            say(f"{row['system']}: {row['failed']}")
        if self.options.json:
            self.options.json.parent.mkdir(parents=True, exist_ok=True)
            said = json.dumps({**self.about, "rows": self.rows}, indent=2, ensure_ascii=False)
            self.options.json.write_text(said + "\n", encoding="utf-8")


def _message(process: subprocess.Popen[str], said: str) -> Row:
    try:
        row: Row = json.loads(said.strip().rpartition("\n")[2])
    except ValueError:
        code = process.wait()
        return {"failed": f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"}
    return row


def say(what: str) -> None:
    Console(stderr=True).print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False)


def run(options: argparse.Namespace, work: Path) -> None:
    """Measure, and whatever happens: show what there is."""
    data = Settings.from_env().data or ROOT.parent / "shared" / "data"
    if not data.is_dir():
        raise ConfigError(f"No data folder at {data}; set KGFUSE_DATA.")
    bench = Bench(work, data, options)
    chosen = options.only or [*SYSTEMS, "sizes", "refresh"]
    number = options.names or len(mesh_names(data / "linking/kb"))
    try:
        for name in chosen:
            if name in SYSTEMS:
                bench.measure(name, min(number, LIMITS.get(name, number)))
        if "sizes" in chosen:
            for size in options.sizes:
                bench.measure("ours", size, measurement="sizes", two=False)
        if "refresh" in chosen:
            bench.refresh(min(REFRESHED, max(options.sizes)))
    finally:
        show(bench.rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = (*SYSTEMS, "sizes", "refresh")
    parser.add_argument("--only", nargs="+", choices=what, metavar="NAME", help=f"of: {', '.join(what)}")
    parser.add_argument("--names", type=int, metavar="N", help="the first N names of MeSH; all of them by default")
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="N", default=(100_000, 1_000_000), help="names of our own indexes"
    )
    parser.add_argument("--ranker", type=Path, metavar="PATH", help="a trained ranker for ours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where `pip install --target` put the others")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))  # for their versions
    try:
        with tempfile.TemporaryDirectory(prefix="kgfuse-benchmark-") as work:
            run(options, Path(work))
    except KGError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; what was measured is above.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
