"""Open a file whatever it is packed with: plain, gzip, bzip2 or zstandard, by its ending."""

import bz2
import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

PACKED = (".gz", ".bz2", ".zst")
UNPACKING_ERRORS = (OSError, EOFError, zlib.error)
"""What reading such a file can raise when it is truncated or damaged."""
BUFFER, PIECE = 1 << 20, 1 << 16
"""Bytes; pyarrow always fills a piece, so of a truncated ``.zst`` up to one is lost before the break."""


def open_bytes(path: Path) -> BinaryIO:
    """The unpacked content as a stream; zstandard comes with pyarrow."""
    if path.suffix == ".gz":
        return cast(BinaryIO, io.BufferedReader(_Unpacked(gzip.open(path)), BUFFER))
    if path.suffix == ".bz2":
        return cast(BinaryIO, io.BufferedReader(_Unpacked(bz2.open(path)), BUFFER))
    if path.suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(_Unpacked(pa.input_stream(str(path), compression="zstd")), BUFFER))
    return path.open("rb", buffering=BUFFER)


class _Unpacked(io.RawIOBase):
    """Gives what is unpacked as soon as it is there: a read that waits for more loses it where a file breaks off."""

    def __init__(self, packed: Any) -> None:
        self.packed = packed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.packed.read1(min(len(buffer), PIECE))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self.packed.close()
        super().close()


def unpacked_name(path: Path) -> Path:
    """``a.json`` of ``a.json.bz2``."""
    return path.with_suffix("") if path.suffix in PACKED else path
