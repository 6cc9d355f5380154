"""Canonical statements to entities and triples: what RDFS, OWL and SKOS mean in the graph.

Every statement about an IRI becomes exactly one thing (kind, name, definition, property, relationship or tail); what is
said of anonymous nodes is folded into the relationships that they state. The whole mapping is the table in README.md.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.names import Curies, local_name, relation_types
from ingest.parts import distinct, encoded, plain
from ingest.rdf import Statements
from ingest.report import Report
from kg.types import Entity, Name, PropertyValue, Scalar, Triple

RDF, RDFS, OWL = (
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "http://www.w3.org/2000/01/rdf-schema#",
    "http://www.w3.org/2002/07/owl#",
)
SKOS, XSD, DCT = (
    "http://www.w3.org/2004/02/skos/core#",
    "http://www.w3.org/2001/XMLSchema#",
    "http://purl.org/dc/terms/",
)
TYPE = RDF + "type"

KIND_OF_TYPE: Mapping[str, str] = {
    OWL + "Class": "Class",
    RDFS + "Class": "Class",
    OWL + "ObjectProperty": "ObjectProperty",
    OWL + "DatatypeProperty": "DatatypeProperty",
    OWL + "AnnotationProperty": "AnnotationProperty",
    RDF + "Property": "Property",
    RDFS + "Datatype": "Datatype",
    OWL + "Ontology": "Ontology",
    OWL + "NamedIndividual": "Individual",
    SKOS + "Concept": "Concept",
}
FIXED_TYPES: Mapping[str, str] = {
    TYPE: "INSTANCE_OF",
    RDFS + "subClassOf": "SUBCLASS_OF",
    RDFS + "subPropertyOf": "SUBPROPERTY_OF",
    OWL + "sameAs": "SAME_AS",
    OWL + "imports": "IMPORTS",
    DCT + "isReplacedBy": "REPLACED_BY",
}
NAME_KINDS: Mapping[str, str] = {
    "label": "pref",
    "prefLabel": "pref",
    "altLabel": "syn",
    "hiddenLabel": "syn",
    "synonym": "syn",
    "commonDesignation": "syn",
    "preferredDesignation": "syn",
    "hasTextualName": "syn",
    "abbreviation": "abbr",
    "acronym": "abbr",
}
"""Kind of a name by the local name of its predicate: FIBO and Commons have the same ones under several namespaces."""
DEFINITIONS = (SKOS + "definition", "http://purl.obolibrary.org/obo/IAO_0000115", DCT + "description", RDFS + "comment")
"""Predicates of definitions, best first."""
DEPRECATED = OWL + "deprecated"
SHAPE = ("predicate", "language", "datatype")
"""What decides on a literal."""
RESTRICTIONS: Mapping[str, str] = {
    "someValuesFrom": "some",
    "allValuesFrom": "only",
    "hasValue": "value",
    "hasSelf": "self",
    "minCardinality": "min",
    "maxCardinality": "max",
    "cardinality": "exact",
    "minQualifiedCardinality": "min",
    "maxQualifiedCardinality": "max",
    "qualifiedCardinality": "exact",
}
GROUPS: Mapping[str, str] = {OWL + "unionOf": "union", OWL + "intersectionOf": "intersection", OWL + "oneOf": "one of"}
RESERVED = frozenset(
    {
        *("id", "iri", "name", "names", "name_kinds", "name_origins", "definition", "definitions", "tail"),
        *("sources", "hashes", "relation"),
    }
)
MAX_PROPERTY = 8000
"""Longer values go to the tail; an index entry of Neo4j ends at about 8 kB."""


class Row(NamedTuple):
    """What is said of an anonymous node."""

    predicate: str
    object: str
    kind: str
    language: str | None
    datatype: str | None


class Edge(NamedTuple):
    """A relationship that an anonymous node states, before its ends have ids."""

    predicate: str
    tail: str
    properties: tuple[tuple[str, PropertyValue], ...]
    """Sorted."""

    def saying(self, **more: PropertyValue) -> tuple[tuple[str, PropertyValue], ...]:
        return tuple(sorted({**dict(self.properties), **more}.items()))


class Rule(NamedTuple):
    """What becomes of the literals that have predicate, language and datatype in common."""

    outcome: str
    """As the report counts it."""
    what: Any
    """Kind, language and rank of a name; rank of a definition; key and conversion of a property."""
    before: str
    after: str
    """What a line of the tail has around the literal."""


def to_graph(statements: Statements, source: str, report: Report) -> Iterator[Entity | Triple]:
    """Entities and triples, a part of the statements in memory at a time; stubs come last.

    Args:
        source: id of the data set, ``fibo``; becomes the second node label.
    """
    yield from _Mapping(statements, source, report).items()


class _Survey:
    """A first pass over a release, for what needs the whole of it: ids, predicates, which of them are single-valued."""

    def __init__(self, statements: Statements) -> None:
        self.predicates: set[str] = set()
        self.described = Seen()
        self.several: set[str] = set()
        """Predicates that have two values somewhere, or one that is no native scalar or too long."""
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
        is_open = np.array([iri not in self.several and not _is_name(iri) for iri in predicates], bool)
        is_literal = np.array([name == "literal" for name in kinds], bool)
        rows = np.flatnonzero(is_open[predicate] & is_literal[kind])
        pairs = np.sort(subject[rows] * len(predicates) + predicate[rows])
        twice = np.unique(pairs[1:][pairs[1:] == pairs[:-1]] % len(predicates))
        self.several.update(predicates[place] for place in twice.tolist())
        literals = part.take(rows)
        shapes, shape = distinct([encoded(literals[name]) for name in SHAPE])
        for place, (iri, language, datatype) in enumerate(shapes):
            self.datatypes[iri].add("@" if language else datatype or "")
            if iri not in self.several:
                values = literals["object"].filter(pa.array(shape == place))
                if language or not _are_native(plain(values), datatype or XSD + "string"):
                    self.several.add(iri)

    def typed(self) -> dict[str, str]:
        """Predicate → property key, for those with one value and one datatype wherever they occur."""
        keys: dict[str, list[str]] = defaultdict(list)
        for predicate, found in self.datatypes.items():
            if predicate not in self.several and len(found) == 1:
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


class _Mapping:
    """The pass that makes entities and triples."""

    def __init__(self, statements: Statements, source: str, report: Report) -> None:
        self.statements, self.source, self.report = statements, source, report
        survey = _Survey(statements)
        self.ids, self.seen, self.typed = survey.ids, survey.described, survey.typed()
        own = relation_types({iri: self.ids(iri) for iri in survey.predicates}, taken=set(FIXED_TYPES.values()))
        self.types = {**own, **FIXED_TYPES}
        self.rules: dict[tuple[str, str | None, str | None], Rule] = {}
        self.folded: set[str] = set()
        self.blank: dict[str, list[Row]] = defaultdict(list)
        columns = (plain(statements.blank[name]).to_pylist() for name in ("subject", *Row._fields))
        for node, *row in zip(*columns, strict=True):
            self.blank[node].append(Row(*row))

    def items(self) -> Iterator[Entity | Triple]:
        for part in self.statements.parts():
            yield from self._part(part)
        yield from self._stubs([iri for iri in self.types if iri not in FIXED_TYPES])
        lost = sum(len(rows) for node, rows in self.blank.items() if node not in self.folded)
        self.report.skip("about an anonymous node that nothing refers to (kept in the canonical table)", lost)
        self.report.keep("folded into derived relationships", sum(len(self.blank[node]) for node in self.folded))

    def _stubs(self, iris: Iterable[str]) -> Iterator[Entity]:
        for iri in self.seen.new(list(iris)):
            yield Entity(id=self.ids(iri), iri=iri, source=self.source, kinds=("Stub",))

    def _part(self, part: pa.Table) -> Iterator[Entity | Triple]:
        subjects, subject = encoded(part["subject"])
        predicates, predicate = encoded(part["predicate"])
        kinds, kind = encoded(part["kind"])
        heads = [self.ids(iri) for iri in subjects]

        def rows_of(which: str) -> NDArray[np.int64]:
            return np.flatnonzero(kind == kinds.index(which)) if which in kinds else np.empty(0, np.int64)

        linked, nested, valued = rows_of("iri"), rows_of("blank"), rows_of("literal")
        objects, object_ = encoded(part["object"].take(linked))
        is_type = predicate[linked] == (predicates.index(TYPE) if TYPE in predicates else -1)
        is_kind = is_type & np.array([iri in KIND_OF_TYPE for iri in objects], bool)[object_]
        labels: dict[int, set[str]] = defaultdict(set)
        for number, place in zip(subject[linked[is_kind]].tolist(), object_[is_kind].tolist(), strict=True):
            labels[number].add(KIND_OF_TYPE[objects[place]])
        self.report.keep("node label", int(is_kind.sum()))
        instances = set(subject[linked[is_type & ~is_kind]].tolist())

        edges, object_ = linked[~is_kind], object_[~is_kind]
        used = np.unique(object_).tolist()
        tails = {place: self.ids(objects[place]) for place in used}
        types = [self.types[iri] for iri in predicates]
        sids = part["sid"].take(edges).to_pylist()
        self.report.keep("relationship", len(edges))

        lines: dict[int, list[str]] = defaultdict(list)
        derived: list[Triple] = []
        ends = {objects[place] for place in used}
        nodes, said_by = part["object"].take(nested), part["sid"].take(nested)
        columns = (subject[nested].tolist(), predicate[nested].tolist(), plain(nodes).to_pylist(), said_by.to_pylist())
        for number, place, node, sid in zip(*columns, strict=True):
            for edge in self._unfold(predicates[place], node):
                ends.add(edge.tail)
                derived.append(self._derived(heads[number], edge, sid))
                if edge.predicate == TYPE:
                    instances.add(number)
            lines[number] += self._unfold_literals(predicates[place], node)
        self.report.keep("relationship of an anonymous node", len(nested))

        shapes, shape = distinct([encoded(part[name].take(valued)) for name in SHAPE])
        rules = [self._rule(*each) for each in shapes]
        for rule, count in zip(rules, np.bincount(shape, minlength=len(rules)).tolist(), strict=True):
            self.report.keep(rule.outcome, count)
        texts = plain(part["object"].take(valued)).to_pylist()
        said = list(zip([rules[place] for place in shape.tolist()], texts, strict=True))
        bounds = np.searchsorted(subject[valued], np.arange(len(subjects) + 1)).tolist()
        for number, (iri, head) in enumerate(zip(subjects, heads, strict=True)):
            yield self._entity(
                iri,
                head,
                said[bounds[number] : bounds[number + 1]],
                labels.get(number) or set(),
                lines.get(number) or [],
                is_instance=number in instances,
            )
        for number, place, end, sid in zip(
            subject[edges].tolist(), predicate[edges].tolist(), object_.tolist(), sids, strict=True
        ):
            yield Triple(head=heads[number], relation=types[place], tail=tails[end], source=self.source, sid=sid.hex())
        yield from derived
        yield from self._stubs(ends)

    def _rule(self, predicate: str, language: str | None, datatype: str | None) -> Rule:
        key = (predicate, language, datatype)
        if key in self.rules:
            return self.rules[key]
        outcome, after = "tail", ""
        what: Any = None
        if language:
            after = f"@{language}"
        elif datatype and datatype != XSD + "string":
            after = f"^^{datatype.removeprefix(XSD)}"
        if local_name(predicate) in NAME_KINDS:
            kind = NAME_KINDS[local_name(predicate)]
            outcome, what = "name", (kind, language or "", _rank(kind, language or ""))
        elif predicate in DEFINITIONS and _is_english(language):
            outcome, what = "definition", (DEFINITIONS.index(predicate), 0 if language else 1)
        elif predicate == DEPRECATED:
            outcome = "node label"
        elif predicate in self.typed:
            outcome, what = "property", (self.typed[predicate], NATIVE[datatype or XSD + "string"])
        self.rules[key] = rule = Rule(outcome, what, f"{self.ids(predicate)}=", after)
        return rule

    def _entity(
        self,
        iri: str,
        head: str,
        literals: Sequence[tuple[Rule, str]],
        kinds: set[str],
        tail: list[str],
        *,
        is_instance: bool,
    ) -> Entity:
        names: set[tuple[str, tuple[str, str, tuple[int, int]]]] = set()
        definitions: list[tuple[tuple[int, int], str]] = []
        properties: dict[str, Scalar] = {}
        if iri in self.types and iri not in FIXED_TYPES:
            properties["relation"] = self.types[iri]
        for (outcome, what, before, after), text in literals:
            if outcome == "name" and text and not text.isspace():
                names.add((text, what))
            elif outcome == "definition":
                definitions.append((what, text))
            elif outcome == "property":
                properties[what[0]] = what[1](text)
            elif outcome == "node label" and text in ("true", "1"):
                kinds.add("Deprecated")
            else:
                tail.append(f"{before}{text}{after}")
                if outcome != "tail":  # a name of blanks, or "deprecated" that is not true
                    self.report.kept[outcome] -= 1
                    self.report.keep("tail")
        if not kinds - {"Deprecated"}:
            kinds.add("Individual" if is_instance else "Item")
        texts = list(dict.fromkeys(text for _, text in sorted(definitions)))
        return Entity(
            id=head,
            iri=iri,
            source=self.source,
            kinds=tuple(sorted(kinds)),
            name=min((what[2], text) for text, what in names)[1] if names else None,
            names=tuple([Name(text=text, kind=what[0], language=what[1]) for text, what in sorted(names)]),
            definition=texts[0] if texts else None,
            definitions=tuple(texts),
            properties=properties,
            tail=tuple(sorted(tail)),
        )

    def _derived(self, head: str, edge: Edge, sid: bytes) -> Triple:
        said = f"{sid.hex()} {edge.predicate} {edge.tail} {edge.properties}"
        return Triple(
            head=head,
            relation=self.types[edge.predicate],
            tail=self.ids(edge.tail),
            source=self.source,
            sid=blake2b(said.encode(), digest_size=16).hexdigest(),
            properties=dict(edge.properties),
        )

    def _unfold(self, predicate: str, node: str) -> list[Edge]:
        """The relationships that ``subject predicate [ … ]`` states, ends at named resources only."""
        edges: set[Edge] = set()
        waiting = [Edge(predicate, node, (("derived", True),))]
        seen: set[Edge] = set()
        while waiting:  # no recursion: a list of rdf:rest is as deep as it is long
            state = waiting.pop()
            if state not in seen:
                seen.add(state)
                for found, is_blank in self._step(state):
                    waiting.append(found) if is_blank else edges.add(found)
        return sorted(edges, key=repr)

    def _step(self, state: Edge) -> Iterator[tuple[Edge, bool]]:
        """What one anonymous node states, and whether the other end is anonymous in its turn."""
        predicate, node, properties = state
        self.folded.add(node)
        rows = self.blank[node]
        on = next((row for row in rows if row.predicate == OWL + "onProperty"), None)
        if on is not None:
            stated = self._quantifier(rows)
            if on.kind == "blank":  # an inverse: the restriction runs the other way
                self.folded.add(on.object)
                inverse = next((r for r in self.blank[on.object] if r.predicate == OWL + "inverseOf"), None)
                if inverse is not None:
                    on, stated = inverse, {**stated, "inverse": True}
            predicate, properties = on.object if on.kind == "iri" else predicate, state.saying(**stated)
        state = Edge(predicate, node, properties)
        for row in rows:
            if row.predicate == TYPE and row.kind == "iri" and not row.object.startswith((OWL, RDF, RDFS)):
                yield Edge(predicate, row.object, state.saying(quantifier="some")), False
            if row.predicate in (TYPE, OWL + "onProperty") or row.kind == "literal":
                continue
            is_list = row.predicate in (RDF + "first", RDF + "rest")
            inner = predicate if on is not None or is_list or row.predicate in GROUPS else row.predicate
            grouped = properties
            if row.predicate in GROUPS:
                grouped = state.saying(group=node[3:], connective=GROUPS[row.predicate])
            elif on is None and not is_list:
                grouped = state.saying(group=node[3:])
            if row.kind == "blank":
                yield Edge(inner, row.object, grouped), True
            elif row.object != RDF + "nil" and not row.object.startswith(XSD):
                yield Edge(inner, row.object, grouped), False

    def _quantifier(self, rows: Sequence[Row]) -> dict[str, PropertyValue]:
        found: dict[str, PropertyValue] = {}
        for row in rows:
            name = RESTRICTIONS.get(row.predicate.removeprefix(OWL))
            if name is not None:
                found["quantifier"] = name
                if row.kind == "literal" and row.object.isdigit() and name in ("min", "max", "exact"):
                    found["n"] = int(row.object)
        return found

    def _unfold_literals(self, predicate: str, start: str) -> list[str]:
        """Literals and datatypes within an anonymous node: a line each in the tail, so that no value is lost."""
        said: list[str] = []
        stack, seen = [start], set[str]()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            on = next(
                (r.object for r in self.blank[node] if r.predicate == OWL + "onProperty" and r.kind == "iri"), None
            )
            for inner in self.blank[node]:
                if inner.kind == "blank":
                    stack.append(inner.object)
                elif inner.kind == "literal" or inner.object.startswith(XSD):
                    value = self._lexical(inner) if inner.kind == "literal" else self.ids(inner.object)
                    on_property = f" {self.ids(on)}" if on else ""
                    said.append(f"{self.ids(predicate)}{on_property} {local_name(inner.predicate)}={value}")
        return said

    def _lexical(self, row: Row) -> str:
        """``text@lang``, ``lexical^^datatype``, or the plain string."""
        return row.object + self._rule(row.predicate, row.language, row.datatype).after


def _is_name(predicate: str) -> bool:
    return local_name(predicate) in NAME_KINDS or predicate in DEFINITIONS or predicate == DEPRECATED


def _rank(kind: str, language: str) -> tuple[int, int]:
    """Which name to show: preferred ones first, then English or untagged before others; the least."""
    language = language.lower()
    order = 0 if language == "en" else 1 if language.startswith("en-") else 2 if not language else 3
    return {"pref": 0, "syn": 1}.get(kind, 2), order


def _is_english(language: str | None) -> bool:
    return not language or language.lower() == "en" or language.lower().startswith("en-")


def _are_native(values: pa.ChunkedArray, datatype: str) -> bool:
    """True when native values say exactly what all these literals of one datatype say, and fit into a property."""
    if datatype not in NATIVE:
        return False
    if NATIVE[datatype] is int:
        digits = pc.match_substring_regex(values, f"^({CANONICAL})$")
        return bool(pc.all(digits).as_py()) and all(int(text) < 2**63 for text in pc.unique(values).to_pylist())
    if NATIVE[datatype] is _is_true:
        return set(pc.unique(values).to_pylist()) <= {"true", "false"}
    return bool((pc.max(pc.utf8_length(values)).as_py() or 0) <= MAX_PROPERTY)


def _is_true(text: str) -> bool:
    return text == "true"


NATIVE: Mapping[str, Callable[[str], Scalar]] = {
    XSD + "boolean": _is_true,
    **{XSD + name: int for name in ("integer", "int", "long", "short", "nonNegativeInteger", "positiveInteger")},
    **{XSD + name: str for name in ("string", "anyURI", "dateTime", "date", "gYear")},
}
"""Datatypes whose literals can be values of properties, and how."""
CANONICAL = "0|[1-9][0-9]{0,18}"
