"""Open a file whatever it is packed with (plain, gzip, bzip2 or zstandard, by its ending), and read it by the line."""

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from kg.errors import InputError

PACKED = (".gz", ".bz2", ".zst")
UNPACKING_ERRORS = (OSError, EOFError, zlib.error)
"""What reading such a file can raise when it is truncated or damaged."""
MAX_LINE = 64 << 20
"""Bytes of a line that is held; the longest entity of Wikidata takes about 5 MB."""
TOO_LONG = f"longer than {MAX_LINE >> 20} MiB"
BUFFER, PIECE = 1 << 20, 1 << 16
MAX_GROWTH, GROWTH_FROM = 250, 16 << 20
"""A file that unpacks to more than this many times its size is refused once it has given so many bytes.

Dumps of RDF unpack to 10 to 40 times their size; gzip can do a thousand, the others far more.
"""


def open_bytes(path: Path) -> BinaryIO:
    """The unpacked content as a stream; its ``read1`` loses nothing of what comes before a break.

    Raises:
        InputError: by reading, where the content is out of all proportion to the file.
    """
    if path.suffix not in PACKED:
        return path.open("rb", buffering=BUFFER)
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path), BUFFER))


def numbered(
    file: Path, longest: int = MAX_LINE, *, advance: Callable[[int], None] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; of one that is longer than ``longest`` only so much, and without a newline.

    Args:
        advance: told how many bytes of the file, packed as it is, have been read since it was told last.

    Raises:
        InputError: the file cannot be read, or ``open_bytes`` refuses it.
    """
    if file.is_dir():
        raise InputError(file, "is a folder; name the files in it")
    try:
        with open_bytes(file) as stream:
            packed = getattr(getattr(stream, "raw", None), "packed", stream)
            number, is_start, last = 1, True, 0
            for part in iter(partial(stream.readline, longest), b""):
                if is_start:
                    yield number, part
                is_start = len(part) < longest or part[-1:] == b"\n"
                number += is_start
                if advance is not None:
                    advance(packed.tell() - last)
                    last = packed.tell()
    except UNPACKING_ERRORS as error:
        raise InputError(file, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


class _Unpacked(io.RawIOBase):
    """Gives what is unpacked as soon as it is there: a read that waits for more loses it where a file breaks off."""

    def __init__(self, path: Path) -> None:
        self.path, self.given = path, 0
        self._open()

    def _open(self) -> None:
        if self.path.suffix == ".zst":
            self.packed: Any = pa.OSFile(str(self.path))
            self.stream: Any = pa.CompressedInputStream(self.packed, "zstd")
        else:
            self.packed = self.path.open("rb")
            self.stream = gzip.GzipFile(fileobj=self.packed) if self.path.suffix == ".gz" else bz2.BZ2File(self.packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._piece(min(len(buffer), PIECE))
        self.given += len(piece)
        if self.given > GROWTH_FROM and self.given > MAX_GROWTH * self.packed.tell():
            raise InputError(self.path, f"unpacks to more than {MAX_GROWTH} times its size; refused")
        buffer[: len(piece)] = piece
        return len(piece)

    def _piece(self, size: int) -> bytes:
        if self.path.suffix != ".zst":
            return cast(bytes, self.stream.read1(size))
        try:
            return cast(bytes, self.stream.read(size))
        except OSError:
            return self._last_piece(size)

    def _last_piece(self, size: int) -> bytes:
        """What comes before the break: pyarrow has thrown it away, so it is unpacked again, a byte at a time."""
        self.stream.close()
        self._open()
        done = 0
        while done < self.given:
            done += len(self.stream.read(min(PIECE, self.given - done)))
        piece = bytearray()
        try:
            while len(piece) < size:
                piece += self.stream.read(1)
        except OSError:
            if not piece:
                raise
        return bytes(piece)

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
            self.packed.close()
        super().close()


def unpacked_name(path: Path) -> Path:
    """``a.json`` of ``a.json.bz2``."""
    return path.with_suffix("") if path.suffix in PACKED else path
