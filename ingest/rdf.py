"""Any RDF files to one canonical table of statements, kept as Parquet: the lossless copy of what was read."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from ingest.parser import FORMATS, rdf_suffix
from ingest.report import Report
from kg.errors import InputError


@dataclass(frozen=True)
class Statements:
    """All statements of a release, each once, sorted by subject."""

    table: pa.Table
    """Columns as ``ingest.parser.SCHEMA``; ``file`` is the first file that states it."""
    prefixes: dict[str, str]
    """Prefix → namespace, as the files declare them."""

    @cached_property
    def blank(self) -> pa.Table:
        """What is said of anonymous nodes; small enough to be held at once."""
        return self.table.filter(pc.starts_with(self.table["subject"], "_:"))

    def parts(self) -> Iterator[pa.Table]:
        """What is said of named resources, a piece at a time that fits memory; each is whole in one of them."""
        yield self.table.filter(pc.invert(pc.starts_with(self.table["subject"], "_:")))


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The RDF files below ``paths``, sorted; catalogs and other XML that is no RDF are left out.

    Raises:
        InputError: a path does not exist, or there is no RDF file at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder")
        if path.is_file():
            found.append(path)
        else:
            found += [
                file
                for file in sorted(path.rglob("*"))
                if file.is_file() and rdf_suffix(file) in FORMATS and not file.name.startswith("catalog-")
            ]
    if not found:
        raise InputError(paths[0], f"holds no RDF file ({', '.join(FORMATS)})")
    return found


def parse(files: Sequence[Path], report: Report) -> Statements:
    """Parse ``files`` in a child process with a limit on its memory.

    Raises:
        InputError: a file does not parse or is hostile, or the parser died of it.
    """
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="kgfuse-") as folder,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        out, names = Path(folder) / "statements.arrow", Path(folder) / "names"
        names.write_text("".join(f"{file.absolute()}\n" for file in files), encoding="utf-8", errors="surrogateescape")
        bar = progress.add_task("parsing", total=len(files))
        with names.open() as listed:  # a file: through a pipe, names out and answers back would wait for each other
            child = subprocess.Popen(
                [sys.executable, "-m", "ingest.parser", str(out)],
                stdin=listed,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parent.parent,
            )
        assert child.stdout is not None
        assert child.stderr is not None
        current, prefixes, finished = files[0], dict[str, str](), False
        try:
            for line in child.stdout:
                said = json.loads(line)
                if "error" in said:
                    raise InputError(said["file"], said["error"], line=said["line"])
                if "bad" in said:
                    report.quarantine(Path(said["bad"]), said["line"], said["reason"])
                elif "file" in said:
                    current = Path(said["file"])
                    progress.advance(bar)
                else:
                    prefixes, finished = said["prefixes"], True
            complaint = child.stderr.read().strip().splitlines()
            if child.wait() or not finished:
                last = complaint[-1] if complaint else f"exit code {child.returncode}"
                raise InputError(current, f"the parser gave up on it ({last[:200]})")
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            child.stderr.close()
        with pa.OSFile(str(out)) as source:
            table = pa.ipc.open_file(source).read_all()
    report.read += table.num_rows + report.num_quarantined
    unique = table.sort_by([("subject", "ascending"), ("sid", "ascending"), ("file", "ascending")])
    first = unique.group_by("sid", use_threads=False).aggregate(
        [(name, "first") for name in table.schema.names if name != "sid"]
    )
    once = pa.table({name: first[name if name == "sid" else f"{name}_first"] for name in table.schema.names})
    report.skip("stated more than once", table.num_rows - once.num_rows)
    return Statements(once.sort_by([("subject", "ascending"), ("sid", "ascending")]), prefixes)


def keep(statements: Statements, file: Path) -> None:
    """Write the canonical table; aside first, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    pq.write_table(statements.table, part, compression="zstd")
    part.rename(file)
