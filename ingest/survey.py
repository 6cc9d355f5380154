"""What the mapping of RDF has to know of a whole release before it makes the first entity, worked out in columns."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import compress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.names import Curies, local_name
from ingest.parts import distinct, encoded, plain
from ingest.rdf import Statements
from ingest.vocabulary import INTEGER, MAX_PROPERTY, NATIVE, OWL, RESERVED, SHAPE, XSD, is_name, is_true


class Survey:
    """A first pass over a release, for what needs the whole of it: ids, predicates, which of them are single-valued."""

    def __init__(self, statements: Statements) -> None:
        self.predicates: set[str] = set()
        self.described = Seen()
        self.several: set[str] = set()
        """Predicates that have two values somewhere, or one that is no native scalar, or too long."""
        self.datatypes: dict[str, set[str]] = defaultdict(set)
        self.ids = Curies(statements.prefixes)
        for part in statements.parts():
            subjects = pc.unique(plain(part["subject"]))
            self.described.new(subjects.to_pylist())
            self.ids.look(subjects)
            self._look(part, self.ids.look)
            self._values(part)
        self._look(statements.blank, self.ids.look)
        if self.ids.are_crowded:
            for part in statements.parts():
                self.ids.compare(pc.unique(plain(part["subject"])))
                self._look(part, self.ids.compare)
            self._look(statements.blank, self.ids.compare)
            self.ids.settle()

    def _look(self, part: pa.Table, at: Callable[[pa.Array], None]) -> None:
        linked = part.filter(pc.equal(part["kind"], "iri"))
        predicates = pc.unique(plain(part["predicate"]))
        inside = pc.is_in(plain(linked["predicate"]), value_set=pa.array([OWL + "onProperty", OWL + "inverseOf"]))
        self.predicates.update(predicates.to_pylist(), plain(linked["object"].filter(inside)).to_pylist())
        for iris in (predicates, pc.unique(plain(linked["object"]))):
            at(iris)

    def _values(self, part: pa.Table) -> None:
        predicates, predicate = encoded(part["predicate"])
        kinds, kind = encoded(part["kind"])
        _, subject = encoded(part["subject"])
        is_open = np.array([iri not in self.several and not is_name(iri) for iri in predicates], bool)
        where = is_open[predicate] & np.array([name == "literal" for name in kinds], bool)[kind]
        pairs = np.sort(subject[where] * len(predicates) + predicate[where])
        twice = np.unique(pairs[1:][pairs[1:] == pairs[:-1]] % len(predicates))
        self.several.update(predicates[place] for place in twice.tolist())
        literals = part.select(["object", *SHAPE]).filter(pa.array(where))
        shapes, shape = distinct([encoded(literals[name]) for name in SHAPE])
        for iri, language, datatype in shapes:
            self.datatypes[iri].add("@" if language else datatype or "")
        for datatype in {datatype for _, _, datatype in shapes}:
            alike = np.array([not row[1] and row[2] == datatype for row in shapes])[shape]
            values = plain(literals["object"].filter(pa.array(alike)))
            odd = np.unique(shape[alike][~_are_native(values, datatype or XSD + "string")])
            self.several.update(shapes[place][0] for place in odd.tolist())

    def typed(self) -> dict[str, str]:
        """Predicate → property key, for those with one value and one datatype wherever they occur."""
        keys: dict[str, list[str]] = defaultdict(list)
        for predicate, found in self.datatypes.items():
            if predicate not in self.several and len(found) == 1 and "@" not in found:
                keys[re.sub(r"\W", "_", local_name(predicate))].append(predicate)
        return {iris[0]: key for key, iris in keys.items() if len(iris) == 1 and key not in RESERVED and key}


class Seen:
    """IRIs that have come, each remembered in eight bytes: by its hash.

    Two of ten million have the same hash with a probability of 1 in 370,000.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.int64)

    def new(self, iris: Sequence[str]) -> list[str]:
        """Those that never came before; now they have."""
        hashes = np.fromiter(map(hash, iris), np.int64, len(iris))
        places = np.searchsorted(self._hashes, hashes)
        known = np.zeros(len(iris), bool)
        inside = places < len(self._hashes)
        known[inside] = self._hashes[places[inside]] == hashes[inside]
        self._hashes = np.concatenate([self._hashes, np.unique(hashes[~known])])
        self._hashes.sort(kind="stable")  # two sorted runs: merged in linear time
        return list(dict.fromkeys(compress(iris, ~known)))


def _are_native(values: pa.ChunkedArray, datatype: str) -> NDArray[np.bool_]:
    """Where a native value says exactly what a literal of ``datatype`` says, and fits into a property."""
    native = NATIVE.get(datatype)
    if native is None:
        found = pc.is_null(values)
    elif native is is_true:
        found = pc.is_in(values, value_set=pa.array(["true", "false"]))
    elif native is int:
        fits = pc.or_(pc.less(pc.utf8_length(values), 19), pc.less(values, str(1 << 63)))
        found = pc.and_(fits, pc.match_substring_regex(values, INTEGER))
    else:
        found = pc.less_equal(pc.utf8_length(values), MAX_PROPERTY)
    return np.asarray(found, bool)
