"""The jars of the local Neo4j: fetched once for each user from Maven Central, each checked against its pinned hash."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kg.errors import StoreFailed, StoreUnavailable

LOCK = Path(__file__).parent / "neo4j.lock"
VERSION = "2026.08.1"


def classpath() -> str:
    """Class path of the server and its admin tool; downloads what is missing (about 180 MB the first time).

    Raises:
        StoreUnavailable: a jar is missing and cannot be downloaded.
        StoreFailed: a jar has other bytes than were pinned, also after fetching it again.
    """
    rows = [line.split() for line in LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    folder = cache_folder()
    seal = folder / hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if seal.is_file():
        return seal.read_text(encoding="utf-8")
    paths = _fetch([(coordinates, digest) for coordinates, digest in rows], folder)
    joined = os.pathsep.join(map(str, paths))
    part = seal.with_name(f"{seal.name}.{os.getpid()}.part")
    part.write_text(joined, encoding="utf-8")
    part.rename(seal)
    return joined


def cache_folder() -> Path:
    """Shared by every ``KGFUSE_HOME`` of a user."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "kgfuse" / "jars"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fetch(rows: list[tuple[str, str]], folder: Path) -> list[Path]:
    import requests
    from jgo.maven import MavenContext
    from rich.console import Console
    from rich.progress import track

    context = MavenContext(repo_cache=folder, timeout=60)

    def fetch(row: tuple[str, str]) -> Path:
        coordinates, digest = row
        group, name, version, classifier = coordinates.split(":")
        artifact = context.project(group, name).at_version(version).artifact(classifier)
        for _ in range(3):  # a half-written jar of an interrupted download is found out here, and fetched again
            path: Path = artifact.resolve()
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == digest:
                    return path
            path.unlink()
        raise StoreFailed(f"{coordinates} as downloaded has not the sha256 {digest} that {LOCK.name} pins.")

    try:
        with ThreadPoolExecutor(8) as pool:
            jars = pool.map(fetch, rows)
            title = f"Neo4j {VERSION}, first time only"
            return list(track(jars, title, total=len(rows), console=Console(stderr=True)))
    except (requests.RequestException, RuntimeError, OSError) as error:
        raise StoreUnavailable(
            f"The jars of Neo4j {VERSION} cannot be downloaded ({type(error).__name__}); "
            "go online once, or set NEO4J_URI to a server that runs."
        ) from error
