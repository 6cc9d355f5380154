"""Parts of a table of statements as Python values, what repeats in them decoded once."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.rdf import Statements

Encoded: TypeAlias = tuple[list[Any], NDArray[np.int64]]
"""Different values, and for each row the index of its value among them."""


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of strings, whether or not it comes as a dictionary."""
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def encoded(column: pa.ChunkedArray) -> Encoded:
    """The values in the order in which they come first; a null is None."""
    if pa.types.is_dictionary(column.type):
        whole = column.unify_dictionaries().combine_chunks()
        codes = whole.indices.dictionary_encode(null_encoding="encode")  # a dictionary may hold more than is used
        values = whole.dictionary.take(codes.dictionary)
    else:
        codes = column.dictionary_encode(null_encoding="encode").combine_chunks()
        values = codes.dictionary
    return values.to_pylist(), codes.indices.to_numpy().astype(np.int64)


def distinct(columns: Sequence[Encoded]) -> Encoded:
    """The different rows of encoded columns, as tuples."""
    joint = np.zeros(len(columns[0][1]), np.int64)
    for values, indices in columns:
        joint = joint * len(values) + indices
    codes = pa.array(joint).dictionary_encode()
    firsts = np.full(len(codes.dictionary), len(joint))
    np.minimum.at(firsts, codes.indices.to_numpy(), np.arange(len(joint)))
    rows = [tuple(values[indices[first]] for values, indices in columns) for first in firsts.tolist()]
    return rows, codes.indices.to_numpy().astype(np.int64)


def by_subject(statements: Statements, *columns: str) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Each named resource with its rows of ``columns``, a part in memory at a time."""
    for part in statements.parts():
        values = [plain(part[name]).to_pylist() for name in columns]
        subjects, subject = encoded(part["subject"])
        starts = np.flatnonzero(np.diff(subject, prepend=-1)).tolist()
        for iri, start, end in zip(subjects, starts, [*starts[1:], part.num_rows], strict=True):
            yield iri, list(zip(*(column[start:end] for column in values), strict=True))
