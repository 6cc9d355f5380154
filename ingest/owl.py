"""Canonical statements to entities and triples: what RDFS, OWL and SKOS mean in the graph.

Every statement about an IRI becomes exactly one thing (kind, name, definition, property, relationship or tail); what is
said of anonymous nodes is folded into the relationships that they state. The whole mapping is the table in README.md.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.anonymous import Anonymous, Edge
from ingest.names import local_name, relation_types
from ingest.parts import distinct, encoded, plain
from ingest.rdf import Statements
from ingest.report import Report
from ingest.survey import Survey
from ingest.vocabulary import (
    DEFINITIONS,
    DEPRECATED,
    FIXED_TYPES,
    KIND_OF_TYPE,
    NAME_KINDS,
    NATIVE,
    SHAPE,
    TYPE,
    XSD,
)
from kg.types import Entity, Name, Scalar, Triple


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
    """Entities and triples, a part of the statements in memory at a time.

    The order depends on the parts, ids and content do not. A resource that no part describes comes once, as a stub.

    Args:
        source: id of the data set, ``fibo``; becomes the second node label.
    """
    yield from _Mapping(statements, source, report).items()


class _Part:
    """A part of the statements, what repeats in it decoded once."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.subjects, self.subject = encoded(table["subject"])
        self.predicates, self.predicate = encoded(table["predicate"])
        self.kinds, self.kind = encoded(table["kind"])
        self.kinds_of: dict[int, set[str]] = defaultdict(set)
        """Kinds by index of the subject, as in what follows."""
        self.instances: set[int] = set()
        """Subjects that are an instance of something."""
        self.tails: dict[int, list[str]] = defaultdict(list)

    def where(self, kind: str) -> NDArray[np.bool_]:
        """The statements whose object is of ``kind``."""
        return self.kind == self.kinds.index(kind) if kind in self.kinds else np.zeros(len(self.kind), bool)

    def columns(self, where: NDArray[np.bool_]) -> tuple[list[int], list[int], list[bytes]]:
        """Indices of subject and predicate, and sid, of some statements."""
        sids = self.table["sid"].filter(pa.array(where)).to_pylist()
        return self.subject[where].tolist(), self.predicate[where].tolist(), sids


class _Mapping:
    """The pass that makes entities and triples."""

    def __init__(self, statements: Statements, source: str, report: Report) -> None:
        self.statements, self.source, self.report = statements, source, report
        survey = Survey(statements)
        self.ids, self.seen, self.typed = survey.ids, survey.described, survey.typed()
        own = relation_types({iri: self.ids(iri) for iri in survey.predicates}, taken=set(FIXED_TYPES.values()))
        self.types = {**own, **FIXED_TYPES}
        self.rules: dict[tuple[str, str | None, str | None], Rule] = {}
        self.anonymous = Anonymous(statements.blank)

    def items(self) -> Iterator[Entity | Triple]:
        for table in self.statements.parts():
            part = _Part(table)
            heads = [self.ids(iri) for iri in part.subjects]
            ends: dict[str, str] = {}
            yield from self._stated(part, heads, ends)
            yield from self._folded(part, heads, ends)
            yield from self._entities(part, heads)
            yield from self._stubs(ends)
        yield from self._stubs({iri: self.ids(iri) for iri in self.types if iri not in FIXED_TYPES})
        folded, everything = self.anonymous.num_folded, self.statements.blank.num_rows
        self.report.keep("folded into derived relationships", folded)
        self.report.skip(
            "about an anonymous node that nothing refers to (kept in the canonical table)", everything - folded
        )

    def _stubs(self, ends: Mapping[str, str]) -> Iterator[Entity]:
        """Nodes for what is described nowhere, by IRI with its id."""
        for iri in self.seen.new(list(ends)):
            yield Entity(id=ends[iri], iri=iri, source=self.source, kinds=("Stub",))

    def _stated(self, part: _Part, heads: Sequence[str], ends: dict[str, str]) -> Iterator[Triple]:
        """Relationships between named resources; types of the language become kinds."""
        where = part.where("iri")
        objects, object_ = encoded(part.table["object"].filter(pa.array(where)))
        is_type = part.predicate[where] == (part.predicates.index(TYPE) if TYPE in part.predicates else -1)
        is_kind = is_type & np.array([iri in KIND_OF_TYPE for iri in objects], bool)[object_]
        subject = part.subject[where]
        for number, place in zip(subject[is_kind].tolist(), object_[is_kind].tolist(), strict=True):
            part.kinds_of[number].add(KIND_OF_TYPE[objects[place]])
        part.instances.update(subject[is_type & ~is_kind].tolist())
        self.report.keep("node label", int(is_kind.sum()))
        self.report.keep("relationship", len(object_) - int(is_kind.sum()))

        where[where] = ~is_kind
        object_ = object_[~is_kind]
        tails = {place: self.ids(objects[place]) for place in np.unique(object_).tolist()}
        ends.update((objects[place], tail) for place, tail in tails.items())
        types, source = [self.types[iri] for iri in part.predicates], self.source
        for number, kind, sid, end in zip(*part.columns(where), object_.tolist(), strict=True):
            yield Triple(head=heads[number], relation=types[kind], tail=tails[end], source=source, sid=sid.hex())

    def _folded(self, part: _Part, heads: Sequence[str], ends: dict[str, str]) -> Iterator[Triple]:
        """Relationships that anonymous nodes state."""
        where = part.where("blank")
        nodes = plain(part.table["object"].filter(pa.array(where))).to_pylist()
        self.report.keep("relationship of an anonymous node", len(nodes))
        for number, kind, sid, node in zip(*part.columns(where), nodes, strict=True):
            predicate = part.predicates[kind]
            for edge in self.anonymous.edges(predicate, node):
                ends[edge.tail] = self.ids(edge.tail)
                if edge.predicate == TYPE:
                    part.instances.add(number)
                yield self._derived(heads[number], edge, sid)
            for on, row in self.anonymous.literals(node):
                value = self.ids(row.object)
                if row.kind == "literal":
                    value = row.object + self._rule(row.predicate, row.language, row.datatype).after
                said = [self.ids(iri) for iri in (predicate, on) if iri]
                part.tails[number].append(f"{' '.join(said)} {local_name(row.predicate)}={value}")

    def _derived(self, head: str, edge: Edge, sid: bytes) -> Triple:
        via = {"via": [self.types[predicate] for predicate in edge.via]} if edge.via else {}
        return Triple(
            head=head,
            relation=self.types[edge.predicate],
            tail=self.ids(edge.tail),
            source=self.source,
            sid=blake2b(f"{sid.hex()} {edge!r}".encode(), digest_size=16).hexdigest(),
            properties={**dict(edge.properties), **via},
        )

    def _entities(self, part: _Part, heads: Sequence[str]) -> Iterator[Entity]:
        where = part.where("literal")
        literals = part.table.select(["object", *SHAPE]).filter(pa.array(where))
        shapes, shape = distinct([encoded(literals[name]) for name in SHAPE])
        rules = [self._rule(*each) for each in shapes]
        outcomes: Counter[str] = Counter()
        for rule, count in zip(rules, np.bincount(shape, minlength=len(rules)).tolist(), strict=True):
            outcomes[rule.outcome] += count
        texts = plain(literals["object"]).to_pylist()
        applied = [rules[place] for place in shape.tolist()]
        bounds = np.searchsorted(part.subject[where], np.arange(len(heads) + 1)).tolist()
        for number, (iri, head) in enumerate(zip(part.subjects, heads, strict=True)):
            kinds, tail = part.kinds_of.get(number) or set(), part.tails.get(number) or []
            is_instance = number in part.instances
            start, end = bounds[number : number + 2]
            own = zip(applied[start:end], texts[start:end], strict=True)
            yield self._entity(iri, head, own, kinds, tail, outcomes, is_instance=is_instance)
        for outcome, count in outcomes.items():
            self.report.keep(outcome, count)

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
        literals: Iterable[tuple[Rule, str]],
        kinds: set[str],
        tail: list[str],
        outcomes: Counter[str],
        *,
        is_instance: bool,
    ) -> Entity:
        """One entity; ``outcomes`` are set right where a literal cannot be what its rule says."""
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
                    outcomes[outcome] -= 1
                    outcomes["tail"] += 1
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


def _is_english(language: str | None) -> bool:
    return not language or language.lower() == "en" or language.lower().startswith("en-")


def _rank(kind: str, language: str) -> tuple[int, int]:
    """Which name to show, the least first: preferred before others, English before untagged before other languages."""
    language = language.lower()
    order = 0 if language == "en" else 1 if language.startswith("en-") else 2 if not language else 3
    return {"pref": 0, "syn": 1}.get(kind, 2), order
