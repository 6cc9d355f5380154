"""Canonical statements to entities and triples: what RDFS, OWL and SKOS mean in the graph.

Every statement about an IRI becomes exactly one thing (kind, name, definition, property, relationship or tail); what is
said of anonymous nodes is folded into the relationships that they state. The whole mapping is the table in README.md.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ingest.names import curies, local_name, relation_types
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


@dataclass(frozen=True, slots=True)
class Statement:
    """One row of the canonical table."""

    predicate: str
    object: str
    kind: str
    language: str | None
    datatype: str | None
    sid: str


@dataclass(frozen=True, slots=True)
class Edge:
    """A relationship that an anonymous node states, before its ends have ids."""

    predicate: str
    tail: str
    properties: Mapping[str, PropertyValue]


def to_graph(statements: Statements, source: str, report: Report) -> Iterator[Entity | Triple]:
    """Entities, sorted by id, then triples.

    Args:
        source: id of the data set, ``fibo``; becomes the second node label.
    """
    yield from _Mapping(statements, source, report).items()


class _Mapping:
    """One pass over a release; what needs the whole of it (ids, single-valued predicates) is worked out first."""

    def __init__(self, statements: Statements, source: str, report: Report) -> None:
        self.source, self.report = source, report
        columns = [
            statements.table[name].to_pylist() for name in ("predicate", "object", "kind", "language", "datatype")
        ] + [[sid.hex() for sid in statements.table["sid"].to_pylist()]]
        self.about: dict[str, list[Statement]] = defaultdict(list)
        self.blank: dict[str, list[Statement]] = defaultdict(list)
        for subject, *rest in zip(statements.table["subject"].to_pylist(), *columns, strict=True):
            (self.blank if subject.startswith("_:") else self.about)[subject].append(Statement(*rest))
        everything = [statement for part in (self.about, self.blank) for rows in part.values() for statement in rows]
        predicates = {statement.predicate for statement in everything}
        restricted = {OWL + "onProperty", OWL + "inverseOf"}
        predicates |= {row.object for row in everything if row.predicate in restricted and row.kind == "iri"}
        objects = {statement.object for statement in everything if statement.kind == "iri"}
        self.ids = curies({*self.about, *objects, *predicates}, statements.prefixes)
        self.iris = {short: iri for iri, short in self.ids.items()}
        own = relation_types({iri: self.ids[iri] for iri in predicates}, taken=set(FIXED_TYPES.values()))
        self.types = {**own, **FIXED_TYPES}
        self.typed = self._single_valued()
        self.folded: set[str] = set()

    def items(self) -> Iterator[Entity | Triple]:
        triples: dict[str, Triple] = {}
        entities: dict[str, Entity] = {}
        for iri in sorted(self.about, key=self.ids.__getitem__):
            entity, edges = self._describe(iri)
            entities[entity.id] = entity
            triples.update((triple.sid, triple) for triple in edges)
        for triple in triples.values():
            for end in (triple.head, triple.tail):
                if end not in entities:
                    entities[end] = self._stub(end)
        for iri in self.types:
            if iri not in FIXED_TYPES and self.ids[iri] not in entities:
                entities[self.ids[iri]] = self._stub(self.ids[iri])
        lost = sum(len(rows) for node, rows in self.blank.items() if node not in self.folded)
        self.report.skip("about an anonymous node that nothing refers to (kept in the canonical table)", lost)
        self.report.keep("folded into derived relationships", sum(len(self.blank[node]) for node in self.folded))
        yield from sorted(entities.values(), key=lambda entity: entity.id)
        yield from sorted(triples.values(), key=lambda triple: (triple.head, triple.relation, triple.tail, triple.sid))

    def _stub(self, entity_id: str) -> Entity:
        return Entity(id=entity_id, iri=self.iris[entity_id], source=self.source, kinds=("Stub",))

    def _single_valued(self) -> dict[str, str]:
        """Predicate → property key, for those with one value and one datatype wherever they occur."""
        datatypes: dict[str, set[str]] = defaultdict(set)
        several: set[str] = set()
        for rows in self.about.values():
            literals = [row for row in rows if row.kind == "literal"]
            for predicate, count in Counter(row.predicate for row in literals).items():
                if count > 1:
                    several.add(predicate)
            for row in literals:
                datatypes[row.predicate].add("@" if row.language else row.datatype or "")
                if _scalar(row) is None or len(row.object) > MAX_PROPERTY:
                    several.add(row.predicate)
        keys: dict[str, list[str]] = defaultdict(list)
        for predicate, found in datatypes.items():
            if predicate not in several and len(found) == 1 and not self._is_name(predicate):
                keys[re.sub(r"\W", "_", local_name(predicate))].append(predicate)
        return {iris[0]: key for key, iris in keys.items() if len(iris) == 1 and key not in RESERVED and key}

    @staticmethod
    def _is_name(predicate: str) -> bool:
        return local_name(predicate) in NAME_KINDS or predicate in DEFINITIONS or predicate == DEPRECATED

    def _describe(self, iri: str) -> tuple[Entity, list[Triple]]:
        kinds: set[str] = set()
        names: dict[tuple[str, str, str], Name] = {}
        definitions: list[tuple[int, int, str]] = []
        properties: dict[str, Scalar] = {}
        tail: list[str] = []
        edges: list[Triple] = []
        head = self.ids[iri]
        if iri in self.types and iri not in FIXED_TYPES:
            properties["relation"] = self.types[iri]
        for row in self.about[iri]:
            if row.kind == "blank":
                self.report.keep("relationship of an anonymous node")
                found = self._unfold(row)
                edges += [self._triple(head, edge, f"{row.sid} {number}") for number, edge in enumerate(found)]
                tail += self._unfold_literals(row)
            elif row.kind == "iri":
                if row.predicate == TYPE and row.object in KIND_OF_TYPE:
                    kinds.add(KIND_OF_TYPE[row.object])
                    self.report.keep("node label")
                else:
                    edges.append(self._triple(head, Edge(row.predicate, row.object, {}), row.sid))
                    self.report.keep("relationship")
            elif local_name(row.predicate) in NAME_KINDS and row.object.strip():
                kind, language = NAME_KINDS[local_name(row.predicate)], row.language or ""
                names[row.object, kind, language] = Name(text=row.object, kind=kind, language=language)
                self.report.keep("name")
            elif row.predicate in DEFINITIONS and _is_english(row.language):
                definitions.append((DEFINITIONS.index(row.predicate), 0 if row.language else 1, row.object))
                self.report.keep("definition")
            elif row.predicate == DEPRECATED and row.object in ("true", "1"):
                kinds.add("Deprecated")
                self.report.keep("node label")
            elif row.predicate in self.typed:
                properties[self.typed[row.predicate]] = _scalar(row)  # type: ignore[assignment]
                self.report.keep("property")
            else:
                tail.append(f"{self.ids[row.predicate]}={_lexical(row)}")
                self.report.keep("tail")
        if not kinds - {"Deprecated"}:
            kinds.add("Individual" if any(edge.relation == "INSTANCE_OF" for edge in edges) else "Item")
        chosen = _preferred(list(names.values()))
        texts = list(dict.fromkeys(text for _, _, text in sorted(definitions)))
        return Entity(
            id=head,
            iri=iri,
            source=self.source,
            kinds=tuple(sorted(kinds)),
            name=chosen,
            names=tuple(names[key] for key in sorted(names)),
            definition=texts[0] if texts else None,
            definitions=tuple(texts),
            properties=properties,
            tail=tuple(sorted(tail)),
        ), edges

    def _triple(self, head: str, edge: Edge, sid: str) -> Triple:
        if " " in sid:
            sid = blake2b(f"{sid} {edge.predicate} {edge.tail}".encode(), digest_size=16).hexdigest()
        return Triple(
            head=head,
            relation=self.types[edge.predicate],
            tail=self.ids[edge.tail],
            source=self.source,
            sid=sid,
            properties=edge.properties,
        )

    def _unfold(self, row: Statement) -> list[Edge]:
        """The relationships that ``subject predicate [ … ]`` states, ends at named resources only."""
        edges: list[Edge] = []
        waiting = [Edge(row.predicate, row.object, {"derived": True})]
        seen: set[str] = set()
        while waiting:  # no recursion: a list of rdf:rest is as deep as it is long
            state = waiting.pop()
            if repr(state) in seen:
                continue
            seen.add(repr(state))
            for found, is_blank in self._step(state.predicate, state.tail, state.properties):
                (waiting if is_blank else edges).append(found)
        return sorted(set_of(edges), key=repr)

    def _step(self, predicate: str, node: str, properties: Mapping[str, PropertyValue]) -> Iterator[tuple[Edge, bool]]:
        """What one anonymous node states, and whether the other end is anonymous in its turn."""
        self.folded.add(node)
        rows = self.blank[node]
        by_predicate = {row.predicate: row for row in rows}
        on = by_predicate.get(OWL + "onProperty")
        if on is not None:
            properties = {**properties, **self._quantifier(rows)}
            if on.kind == "blank":  # an inverse: the restriction runs the other way
                self.folded.add(on.object)
                inverse = next((r for r in self.blank[on.object] if r.predicate == OWL + "inverseOf"), None)
                if inverse is not None:
                    on, properties = inverse, {**properties, "inverse": True}
            predicate = on.object if on.kind == "iri" else predicate
        for row in rows:
            if row.predicate == TYPE and row.kind == "iri" and not row.object.startswith((OWL, RDF, RDFS)):
                yield Edge(predicate, row.object, {**properties, "quantifier": "some"}), False
            if row.predicate in (TYPE, OWL + "onProperty") or row.kind == "literal":
                continue
            inner = predicate if on is not None or row.predicate in GROUPS or self._is_list(row) else row.predicate
            grouped = dict(properties)
            if row.predicate in GROUPS:
                grouped |= {"group": node[3:], "connective": GROUPS[row.predicate]}
            elif on is None and not self._is_list(row):
                grouped["group"] = node[3:]
            if row.kind == "blank":
                yield Edge(inner, row.object, grouped), True
            elif row.object not in (RDF + "nil",) and not row.object.startswith(XSD):
                yield Edge(inner, row.object, grouped), False

    @staticmethod
    def _is_list(row: Statement) -> bool:
        return row.predicate in (RDF + "first", RDF + "rest")

    def _quantifier(self, rows: Sequence[Statement]) -> dict[str, PropertyValue]:
        found: dict[str, PropertyValue] = {}
        for row in rows:
            name = RESTRICTIONS.get(row.predicate.removeprefix(OWL))
            if name is not None:
                found["quantifier"] = name
                if row.kind == "literal" and row.object.isdigit() and name in ("min", "max", "exact"):
                    found["n"] = int(row.object)
        return found

    def _unfold_literals(self, row: Statement) -> list[str]:
        """Literals and datatypes within an anonymous node: a line each in the tail, so that no value is lost."""
        said: list[str] = []
        stack, seen = [row.object], set[str]()
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
                    value = _lexical(inner) if inner.kind == "literal" else self.ids[inner.object]
                    on_property = f" {self.ids[on]}" if on else ""
                    said.append(f"{self.ids[row.predicate]}{on_property} {local_name(inner.predicate)}={value}")
        return sorted(said)


def set_of(edges: Iterable[Edge]) -> list[Edge]:
    """Edges without repeats (their properties are no hashable values)."""
    return list({repr(edge): edge for edge in edges}.values())


def _preferred(names: Sequence[Name]) -> str | None:
    """The name to show: preferred ones first, English or untagged before others, then by text."""

    def rank(name: Name) -> tuple[int, int, str]:
        language = name.language.lower()
        order = 0 if language == "en" else 1 if language.startswith("en-") else 2 if not language else 3
        return (0 if name.kind == "pref" else 1 if name.kind == "syn" else 2, order, name.text)

    return min(names, key=rank).text if names else None


def _is_english(language: str | None) -> bool:
    return not language or language.lower() == "en" or language.lower().startswith("en-")


def _scalar(row: Statement) -> Scalar | None:
    """A native value that says exactly what the literal says, or None."""
    if row.language:
        return None
    local = (row.datatype or XSD + "string").removeprefix(XSD)
    if local == "boolean" and row.object in ("true", "false"):
        return row.object == "true"
    if local in ("integer", "int", "long", "short", "nonNegativeInteger", "positiveInteger"):
        canonical = row.object.isdigit() and str(int(row.object)) == row.object
        return int(row.object) if canonical and int(row.object) < 2**63 else None
    if local in ("string", "anyURI", "dateTime", "date", "gYear"):
        return row.object
    return None


def _lexical(row: Statement) -> str:
    """``text@lang``, ``lexical^^datatype``, or the plain string."""
    if row.language:
        return f"{row.object}@{row.language}"
    if row.datatype and row.datatype != XSD + "string":
        return f"{row.object}^^{row.datatype.removeprefix(XSD)}"
    return row.object
