"""The linker of the latest snapshot, while snapshots come and go; readers take it whole and never see a mix."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

from kg.errors import KGError
from kg.linking.linker import Linker
from kg.snapshot import latest_snapshot

log = logging.getLogger(__name__)
LOOK_S = 1.0
Stamp: TypeAlias = tuple[Path, int, int]
"""A snapshot folder with the inode and the time of its manifest: a version that is made again is another one."""


class LiveLinker:
    """Holds the linker of the newest version below ``folder`` in ``current``; one that cannot be loaded is passed over.

    Take ``current`` once for each answer: the linker that was taken stays whole when another one takes its place.
    """

    def __init__(self, linker: Linker, folder: Path) -> None:
        self.current, self.failures = linker, 0
        self._folder, self._seen = folder, _stamp(linker.snapshot.path)

    def look(self) -> bool:
        """Load the newest version if it is another one than at the last look; whether ``current`` has changed."""
        newest = latest_snapshot(self._folder)
        stamp = _stamp(newest) if newest is not None else None
        if newest is None or stamp is None or stamp == self._seen:
            return False
        self._seen = stamp  # one that fails is not tried again until it is made anew
        try:
            linker = self.current.on(newest)
        except Exception as error:  # whatever is wrong with a file must not end the answers
            reason = str(error) if isinstance(error, KGError) else f"{newest}: {type(error).__name__}: {error}"
            log.warning("%s; links still come from %s", " ".join(reason.split()), self.current.snapshot.path)
            self.failures += 1
            return False
        changed = linker.snapshot.hash != self.current.snapshot.hash
        self.current = linker
        return changed

    @contextmanager
    def following(self, every_s: float = LOOK_S) -> Iterator[None]:
        """Look again and again, in a thread, as long as the block lasts."""
        ended = Event()

        def follow() -> None:
            while not ended.wait(every_s):
                try:
                    self.look()
                except OSError as error:
                    log.warning("%s: %s", self._folder, error)

        thread = Thread(target=follow, name="kgfuse-snapshots", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=every_s)


def _stamp(snapshot: Path) -> Stamp | None:
    """None when it is being replaced just now."""
    try:
        manifest = (snapshot / "manifest.json").stat()
    except FileNotFoundError:
        return None
    return snapshot, manifest.st_ino, manifest.st_mtime_ns
