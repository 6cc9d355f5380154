"""Open a file whatever it is packed with: plain, gzip, bzip2 or zstandard, by its ending."""

import bz2
import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

PACKED = (".gz", ".bz2", ".zst")
UNPACKING_ERRORS = (OSError, EOFError, zlib.error)
"""What reading such a file can raise when it is truncated or damaged."""
BUFFER = 1 << 20


def open_bytes(path: Path) -> BinaryIO:
    """The unpacked content as a stream; zstandard comes with pyarrow."""
    if path.suffix == ".gz":
        return cast(BinaryIO, io.BufferedReader(gzip.open(path), BUFFER))
    if path.suffix == ".bz2":
        return cast(BinaryIO, io.BufferedReader(bz2.open(path), BUFFER))
    if path.suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd"), BUFFER))
    return path.open("rb", buffering=BUFFER)


def unpacked_name(path: Path) -> Path:
    """``a.json`` of ``a.json.bz2``."""
    return path.with_suffix("") if path.suffix in PACKED else path
