"""The run folder: what a run was asked, what it used, what it finished, and where each stage's files are.

``config.toml`` as asked · ``manifest.json`` versions, hashes, snapshot, finished stages · ``gnn/`` · ``table/`` ·
``pretrain/<arm>/`` · ``jobs/<task>-<arm>-<seed>/`` · ``model/`` · ``knowledge/``, a newer snapshot with its table ·
``metrics.json`` · ``plots/`` · ``README.md``, the model card
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kg.errors import ConfigError, InputError
from models.recipe import Recipe

PACKAGES = ("kgfuse", "torch", "torch-geometric", "transformers", "neo4j", "pyoxigraph", "numpy", "scikit-learn")


FORMAT = 3
"""The next where the same settings train another model: 2, texts are classified by the mean of their states; 3, what is
trained on is drawn, and dealt out by text. Seeds of two formats would be one mean of different things."""


LOCK = "run.lock"
_held: list[int] = []
"""Locks of this process, let go of when it ends, however it ends; those that it spawns inherit none."""


@dataclass(frozen=True)
class Run:
    """A run folder; every file in it is written aside and renamed."""

    path: Path
    recipe: Recipe

    @classmethod
    def open(cls, path: Path, recipe: Recipe) -> "Run":
        """Make the folder, or go on with one that the same recipe began.

        Raises:
            ConfigError: the folder belongs to another recipe or to other models, another process is at work in it, or
                it is something else altogether.
        """
        config = as_toml(asdict(recipe))
        path = path.absolute()  # child processes print and compare paths of it
        file = path / "config.toml"
        if file.is_file() and _trained_by(file.read_text(encoding="utf-8")) != _trained_by(config):
            raise ConfigError(
                f"{path} holds a run of other settings than {recipe.name!r} has now; name another folder with --run, "
                f"or remove it to begin again (see {file})."
            )
        if (path / "manifest.json").is_file() and (begun := read_manifest(path).get("format", 1)) != FORMAT:
            raise ConfigError(
                f"{path} holds a run whose models are of format {begun}, this kgfuse trains format {FORMAT}: they "
                "cannot be compared; name another folder with --run. What it trained is served as before."
            )
        others = any(one.name != LOCK for one in path.iterdir()) if path.is_dir() else path.exists()
        if others and not file.is_file():
            raise ConfigError(f"{path} is no run folder (no config.toml) and is not empty; name another with --run.")
        path.mkdir(parents=True, exist_ok=True)
        hold(path)
        write_text(file, config)
        run = cls(path, recipe)
        run.update_manifest(
            format=FORMAT,
            recipe=recipe.name,
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            packages={name: _version(name) for name in PACKAGES},
            git_revision=_git_revision(),
        )
        return run

    @property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.path) if (self.path / "manifest.json").is_file() else {}

    def update_manifest(self, **values: Any) -> None:
        write_json(self.path / "manifest.json", {**self.manifest, **values})

    def done(self, stage: str) -> bool:
        return stage in self.manifest.get("stages", {})

    def finish(self, stage: str, result: Mapping[str, Any]) -> None:
        """Mark a stage as complete; its result is what later stages and the report read."""
        self.update_manifest(stages={**self.manifest.get("stages", {}), stage: dict(result)})

    def result(self, stage: str) -> dict[str, Any]:
        return dict(self.manifest["stages"][stage])


def hold(run: Path) -> None:
    """Keep other processes from writing into a run until this one ends; whoever only reads it does not ask.

    Raises:
        ConfigError: another one does.
    """
    lock = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    if any(os.path.sameopenfile(lock, other) for other in _held):
        os.close(lock)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConfigError(f"Another process is at work in {run}; wait for its end, or name another folder.") from error
    _held.append(lock)


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a finished or unfinished run.

    Raises:
        InputError: the folder is no run folder.
    """
    file = run / "manifest.json"
    if not file.is_file():
        raise InputError(run, "not a run folder (no manifest.json); make one with: python -m models.train_kgbert")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def current_knowledge(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Which snapshot and table a run answers with: of its last ``reembed``, or else those that it was trained with."""
    trained = {"snapshot": manifest["snapshot"], "table": "table", "ignored_relations": []}
    found: Mapping[str, Any] = manifest.get("knowledge", trained)
    return found


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the name ``folder`` only when the block ends without an error.

    Raises:
        ConfigError: it cannot be written beside ``folder``.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{part} cannot be written ({error.strerror}); name another folder.") from error
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def write_text(file: Path, text: str) -> None:
    """Replace ``file`` in one step."""
    part = file.with_name(file.name + ".part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(file)


def write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def data_hash(path: Path) -> str:
    """sha256 over the files of a data set, by sorted relative name and content."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def licence_of(path: Path) -> str:
    """What is said of a data set's licence in its folder or the two above; ``unknown`` where nothing is.

    ``SOURCE.json`` says it best, then the first line of a licence file, then a sentence of a README.
    """
    for folder in [path, *path.parents][0 if path.is_dir() else 1 :][:3]:
        for pattern, find in _LICENCES.items():
            for file in sorted(folder.glob(pattern)):
                with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
                    if said := find(file.read_text(encoding="utf-8")):
                        return " ".join(said.split())[:200]
    return "unknown"


def _in_source(text: str) -> str:
    rows = json.loads(text)
    rows = rows if isinstance(rows, list) else [rows]
    return "; ".join(str(row.get("licence") or row["license"]) for row in rows)


def _in_readme(text: str) -> str:
    found = re.search(r"\b(?i:licen[cs]e(?:d under)?)[:\s]+(?:is\s+)?([A-Z][^\n]*?)(?:\.\s|\.?$)", text, re.MULTILINE)
    return found[1] if found else ""


_LICENCES: Mapping[str, Callable[[str], str]] = {
    "SOURCE.json": _in_source,
    "LICEN[CS]E*": lambda text: next((line for line in text.splitlines() if line.strip()), ""),
    "[Rr][Ee][Aa][Dd][Mm][Ee]*": _in_readme,
}


def _trained_by(config: str) -> list[str]:
    """The settings that shape the weights: more seeds or arms may be added to a run that exists."""
    free = ("seeds = ", "arms = ", "shots = ", "limits = ", "summary = ")
    return [line for line in config.splitlines() if not line.startswith(free)]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # ours, in a checkout that is not installed


def _git_revision() -> str | None:
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def as_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """The subset of TOML that recipes use; None is left out, as TOML has no such value."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in values.items():
        if value is None:
            continue
        key = key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)
        if isinstance(value, Mapping):
            tables.append(f"\n[{prefix}{key}]\n" + as_toml(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            tables.extend(f"\n[[{prefix}{key}]]\n" + as_toml(item, f"{prefix}{key}.") for item in value)
        else:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(plain, ensure_ascii=False)}\n")
    return "".join(lines) + "".join(tables)


def child_process(*arguments: str) -> str:
    """Run another command of this project (``-m kg snapshot …``) and return what it printed.

    The parts are joined by processes and files only, so that ``models`` never imports ``ingest``. Its progress goes to
    our standard error; its failure is its own message and exit code.
    """
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode == 2:
        raise ConfigError(f"the step `python {' '.join(arguments)}` was refused (its message is above).")
    if done.returncode:
        raise RuntimeError(f"`python {' '.join(arguments)}` ended with exit code {done.returncode}")
    return done.stdout
