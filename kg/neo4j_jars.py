"""The jars of the local Neo4j: fetched once for each user from Maven Central, each checked against its pinned hash.

``python -m kg.neo4j_jars > kg/neo4j.lock`` pins the jars of another ``VERSION``.
"""

import fcntl
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kg.errors import ConfigError, StoreFailed, StoreUnavailable

LOCK = Path(__file__).parent / "neo4j.lock"
VERSION = "2026.08.1"
ROOTS = ("neo4j", "neo4j-import-tool")


def classpath() -> str:
    """Class path of the server and its admin tool, whether or not the jars are there yet."""
    return os.pathsep.join(str(_path(coordinates)) for coordinates, _ in _pinned())


def ensure_jars() -> None:
    """Check every jar (0.2 s) and fetch what is missing or altered: about 180 MB the first time.

    Raises:
        ConfigError: the cache cannot be written.
        StoreUnavailable: a jar is missing and cannot be downloaded.
        StoreFailed: a freshly fetched jar has other bytes than were pinned.
    """
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        lock = (cache_folder() / "lock").open("w")
    except OSError as error:
        reason = f"The cache {cache_folder()} cannot be written ({error.strerror})"
        raise ConfigError(f"{reason}; set XDG_CACHE_HOME to a folder that can.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes do not fetch into the same files
        with ThreadPoolExecutor(8) as pool:
            whole = pool.map(lambda row: _is_whole(*row), _pinned())
            missing = [row for row, good in zip(_pinned(), whole, strict=True) if not good]
        if missing:
            _fetch(missing)


def cache_folder() -> Path:
    """Shared by every ``KGFUSE_HOME`` of a user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kgfuse" / "jars"


def _pinned() -> list[tuple[str, str]]:
    """``group:name:version:classifier`` and sha256 of each jar."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return [(coordinates, digest) for coordinates, digest in rows]


def _path(coordinates: str) -> Path:
    group, name, version, classifier = coordinates.split(":")
    file = f"{name}-{version}{'-' if classifier else ''}{classifier}.jar"
    return cache_folder().joinpath(*group.split("."), name, version, file)


def _is_whole(coordinates: str, digest: str) -> bool:
    try:
        with _path(coordinates).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return False


def _fetch(rows: list[tuple[str, str]]) -> None:
    import requests
    from rich.console import Console
    from rich.progress import track

    context = _maven()

    def fetch(row: tuple[str, str]) -> None:
        coordinates, digest = row
        _path(coordinates).unlink(missing_ok=True)  # half of a download that was interrupted
        group, name, version, classifier = coordinates.split(":")
        context.project(group, name).at_version(version).artifact(classifier).resolve()
        if not _is_whole(coordinates, digest):
            _path(coordinates).unlink()
            raise StoreFailed(f"{coordinates} as downloaded has not the sha256 {digest} that {LOCK.name} pins.")

    pool = ThreadPoolExecutor(8)
    try:
        title = f"Downloading Neo4j {VERSION} (once)"
        for _ in track(pool.map(fetch, rows), title, total=len(rows), console=Console(stderr=True)):
            pass
    except (requests.RequestException, RuntimeError, OSError) as error:
        raise StoreUnavailable(
            f"The jars of Neo4j {VERSION} cannot be downloaded ({type(error).__name__}); "
            "go online once, or set NEO4J_URI to a server that runs."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _maven() -> Any:
    from jgo.maven import MavenContext

    return MavenContext(repo_cache=cache_folder(), timeout=60)


def _resolve() -> str:
    """The text of the lock file, resolved anew from the coordinates of ``ROOTS``."""
    context = _maven()
    roots = [context.create_dependency(f"org.neo4j:{name}:{VERSION}") for name in ROOTS]
    lines = []
    for dependency in [part for parts in context.resolver.resolve(roots) for part in parts]:
        jar = dependency.artifact
        digest = hashlib.sha256(jar.resolve().read_bytes()).hexdigest()
        lines.append(f"{jar.groupId}:{jar.artifactId}:{jar.version}:{jar.classifier} {digest}")
    head = f"# Jars of the local Neo4j: coordinates and sha256, resolved from org.neo4j {', '.join(ROOTS)} {VERSION}."
    return "\n".join([head, *sorted(lines)])


if __name__ == "__main__":
    print(_resolve())  # noqa: T201
