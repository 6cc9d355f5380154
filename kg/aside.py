"""Folders that are written beside the place which they are to take."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kg.errors import ConfigError

FRESH_S = 60  # within which the maker of a folder has a lock on it


@contextmanager
def folder_aside(parent: Path, name: str) -> Iterator[Path]:
    """A new folder ``.<name>-…`` to write into, which is gone afterwards unless it was renamed.

    Its maker holds a lock on it, so that what killed ones left is known and removed by the next.

    Raises:
        ConfigError: ``parent`` cannot be written.
    """
    for left in parent.glob(f".{name}*"):
        with suppress(OSError):  # it is held
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(lock).st_mtime > FRESH_S:
                    shutil.rmtree(left)
            finally:
                os.close(lock)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    except OSError as error:
        raise ConfigError(f"{parent} cannot be written ({error.strerror}); name a folder that can.") from error
    lock = os.open(aside, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks on this disk, so nobody removes it either
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield aside
    finally:
        os.close(lock)
        shutil.rmtree(aside, ignore_errors=True)
