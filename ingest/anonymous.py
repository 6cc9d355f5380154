"""Anonymous nodes (restrictions, unions, lists of OWL, or anything else) folded into the relationships they state."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from ingest.parts import plain
from ingest.vocabulary import OWL, RDF, RDFS, TYPE, XSD
from kg.types import PropertyValue

RESTRICTIONS: Mapping[str, str] = {
    OWL + "someValuesFrom": "some",
    OWL + "allValuesFrom": "only",
    OWL + "hasValue": "value",
    OWL + "hasSelf": "self",
    OWL + "minCardinality": "min",
    OWL + "maxCardinality": "max",
    OWL + "cardinality": "exact",
    OWL + "minQualifiedCardinality": "min",
    OWL + "maxQualifiedCardinality": "max",
    OWL + "qualifiedCardinality": "exact",
}
GROUPS: Mapping[str, str] = {OWL + "unionOf": "union", OWL + "intersectionOf": "intersection", OWL + "oneOf": "one of"}
LISTS = frozenset({RDF + "first", RDF + "rest"})
ON_PROPERTY, INVERSE_OF = OWL + "onProperty", OWL + "inverseOf"
SILENT = frozenset({TYPE, RDFS + "subClassOf", OWL + "equivalentClass"})
"""Predicates that a restriction follows as a matter of course."""
MAX_VIA = 3
"""Predicates that are remembered on the way; a cycle of anonymous nodes has no end."""
_COUNT = re.compile("[0-9]{1,19}")


class Row(NamedTuple):
    """What is said of an anonymous node."""

    predicate: str
    object: str
    kind: str
    language: str | None
    datatype: str | None


class Edge(NamedTuple):
    """A relationship that an anonymous node states, or on the way there: its tail is anonymous, too."""

    predicate: str
    tail: str
    properties: tuple[tuple[str, PropertyValue], ...] = ()
    """Sorted."""
    via: tuple[str, ...] = ()
    """Predicates on the way from the named resource that are not this one, outermost first."""
    place: int = 0
    """Position in a list."""

    def saying(self, **more: PropertyValue) -> "Edge":
        return self._replace(properties=tuple(sorted({**dict(self.properties), **more}.items())))

    def leading(self, predicate: str) -> "Edge":
        """On to another predicate."""
        if predicate == self.predicate or self.predicate in SILENT or len(self.via) == MAX_VIA:
            return self._replace(predicate=predicate)
        return self._replace(predicate=predicate, via=(*self.via, self.predicate))


class Anonymous:
    """All anonymous nodes of a release."""

    def __init__(self, table: pa.Table) -> None:
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.folded: set[str] = set()
        """Those that something named refers to, directly or not."""
        columns = (plain(table[name]).to_pylist() for name in ("subject", *Row._fields))
        for node, *row in zip(*columns, strict=True):
            self.rows[node].append(Row(*row))

    @property
    def num_folded(self) -> int:
        """Statements about nodes that were folded."""
        return sum(len(self.rows[node]) for node in self.folded)

    def edges(self, predicate: str, node: str) -> list[Edge]:
        """The relationships that ``subject predicate [ … ]`` states, their tails named."""
        found: set[Edge] = set()
        seen: set[Edge] = set()
        waiting = [Edge(predicate, node).saying(derived=True)]
        while waiting:  # no recursion: a list of rdf:rest is as deep as it is long
            state = waiting.pop()
            where = state._replace(place=0)  # each round of a list that is its own rest is at another place
            if where not in seen:
                seen.add(where)
                for edge, is_named in self._step(state):
                    found.add(edge) if is_named else waiting.append(edge)
        return sorted(found, key=repr)

    def literals(self, node: str) -> list[tuple[str | None, Row]]:
        """Literals and datatypes at or below a node, each with the property of the restriction that it is within."""
        found: list[tuple[str | None, Row]] = []
        waiting: list[tuple[str, str | None]] = [(node, None)]
        seen: set[tuple[str, str | None]] = set()
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            node, on = place
            rows = self.rows[node]
            on = next((row.object for row in rows if row.predicate == ON_PROPERTY and row.kind == "iri"), on)
            for row in rows:
                if row.kind == "blank":
                    waiting.append((row.object, on))
                elif row.kind == "literal" or row.object.startswith(XSD):
                    found.append((on, row))
        return found

    def _step(self, state: Edge) -> Iterator[tuple[Edge, bool]]:
        """What the anonymous tail of ``state`` states, and whether the other end is named."""
        node = state.tail
        self.folded.add(node)
        rows = self.rows[node]
        on = next((row for row in rows if row.predicate == ON_PROPERTY), None)
        if on is not None:
            state = self._restriction(state, on, rows)
        for row in rows:
            if row.kind == "literal" or row.predicate == ON_PROPERTY:
                continue
            if row.predicate == TYPE:
                if row.kind == "iri" and not row.object.startswith((OWL, RDF, RDFS)):
                    yield state.saying(quantifier="some")._replace(tail=row.object, place=0), True
                continue
            edge = state
            if row.predicate in GROUPS:
                edge = state.saying(group=node[3:], connective=GROUPS[row.predicate])
            elif row.predicate == RDF + "rest":
                edge = state._replace(place=state.place + 1)
            elif row.predicate == RDF + "first":
                is_ordered = not any(name == "connective" for name, _ in state.properties)
                edge = (state.saying(ix=state.place) if is_ordered else state)._replace(place=0)
            elif on is None:
                edge = state.saying(group=node[3:]).leading(row.predicate)
            if row.kind == "blank":
                yield edge._replace(tail=row.object), False
            elif row.object != RDF + "nil" and not row.object.startswith(XSD):
                yield edge._replace(tail=row.object), True

    def _restriction(self, state: Edge, on: Row, rows: Sequence[Row]) -> Edge:
        """On to the property that a restriction is on, with what it says of it."""
        said: dict[str, PropertyValue] = {}
        for row in rows:
            if row.predicate in RESTRICTIONS:
                said["quantifier"] = name = RESTRICTIONS[row.predicate]
                is_count = row.kind == "literal" and name in ("min", "max", "exact") and _COUNT.fullmatch(row.object)
                if is_count and int(row.object) < 1 << 63:
                    said["n"] = int(row.object)
        if on.kind == "blank":  # an inverse: the restriction runs the other way
            self.folded.add(on.object)
            inverse = next((row for row in self.rows[on.object] if row.predicate == INVERSE_OF), None)
            if inverse is not None:
                on, said["inverse"] = inverse, True
        return (state.leading(on.object) if on.kind == "iri" else state).saying(**said)
