"""Concepts of the Metathesaurus while they are read, from whichever form: gathered by CUI, then entities and triples.

Each call accounts for one statement of the input, as kept or as skipped with its reason.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias

from ingest.names import upper_snake
from ingest.report import Report
from ingest.vocabulary import MAX_PROPERTY, RESERVED
from kg.errors import ConfigError
from kg.types import Entity, Name, PropertyValue, Scalar, Triple

CONCEPT_IRI = "https://uts.nlm.nih.gov/uts/umls/concept/"
TYPE_IRI = "http://purl.bioontology.org/ontology/STY/"
LICENCE = "UMLS Metathesaurus License (uts.nlm.nih.gov/uts/license)"
# fmt: off
LANGUAGES: Mapping[str, str] = {
    "ENG": "en", "SPA": "es", "FRE": "fr", "GER": "de", "ITA": "it", "POR": "pt", "DUT": "nl", "JPN": "ja", "CZE": "cs",
    "SWE": "sv", "KOR": "ko", "RUS": "ru", "POL": "pl", "NOR": "no", "FIN": "fi", "HUN": "hu", "DAN": "da", "CHI": "zh",
    "HEB": "he", "BAQ": "eu", "LAV": "lv", "SCR": "hr", "TUR": "tr", "GRE": "el", "EST": "et", "UKR": "uk", "ARA": "ar",
}
"""LAT of MRCONSO → BCP 47."""
RELATIONS: Mapping[str, str] = {
    "CHD": "isa", "PAR": "inverse_isa", "RN": "narrower_than", "RB": "broader_than", "RO": "related_to",
    "RU": "related_to", "RL": "similar_to", "RQ": "possibly_synonymous_with", "SY": "synonym_of", "SIB": "sibling_of",
    "AQ": "allowed_qualifier_of", "QB": "qualified_by", "XR": "not_related_to", "DEL": "deleted",
}
"""What REL says where RELA is empty: what the second concept is to the first."""
ATTRIBUTES = frozenset({
    "XREF", "MN", "RN", "EC", "UNII", "FDA_UNII_CODE", "CAS_REGISTRY", "ENTREZGENE_ID", "HGNC_ID", "OMIM_ID", "NDC",
    "ATC_CODE", "CTV3ID", "SNOMEDID", "ICD-O-3_CODE",
})
"""Attributes that are kept unless others are asked for: what the concept is called in other registers."""
# fmt: on
INVERSES: Mapping[str, str] = {
    "isa": "inverse_isa",
    "narrower_than": "broader_than",
    "allowed_qualifier_of": "qualified_by",
    **{RELATIONS[rel]: RELATIONS[rel] for rel in ("RO", "RL", "RQ", "SY", "SIB")},
}
"""Inverses that hold without MRDOC; a relation that is its own is kept in one direction."""
NAME_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("AB", "ACR", "MTH_ACR", "VAB", "RAB", "AA"), "abbr"),
    **{"BT": "broad", "NT": "narrow", "RT": "related"},
}
"""Kind of a name by its term type (TTY); all others are synonyms."""
UNWANTED: Mapping[str, tuple[str, str]] = {
    "sibling_of": ("siblings", "sibling (SIB)"),
    "allowed_qualifier_of": ("qualifiers", "qualifier (AQ, QB)"),
    "qualified_by": ("qualifiers", "qualifier (AQ, QB)"),
    "not_related_to": ("", "not related, or deleted (XR, DEL)"),
    "deleted": ("", "not related, or deleted (XR, DEL)"),
}
"""Relation → (the option that keeps it, the reason for which it is skipped)."""
TWICE, NO_CONCEPT = "stated more than once", "about a concept that was not kept"
SUPPRESSED, TO_ITSELF = "suppressible", "from a concept to itself"
OTHER_SAB, OTHER_LANGUAGE = "of a source vocabulary that was not asked for", "in a language that was not asked for"
Also: TypeAlias = Literal["suppressible", "siblings", "qualifiers", "self-loops"]


class Atom(NamedTuple):
    """One name of a concept; the least is the preferred one."""

    order: tuple[Any, ...]
    text: str
    language: str
    kind: str
    origin: str


@dataclass(slots=True)
class Concept:
    """What is known of a CUI so far."""

    id: str
    iri: str
    atoms: list[Atom] = field(default_factory=list)
    spare: Atom | None = None
    """The best of the suppressed atoms: the name of a concept that has no others."""
    is_obsolete: bool = True
    """No atom so far that is not obsolete."""
    definitions: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    attributes: dict[tuple[str, str, str], None] = field(default_factory=dict)
    """(attribute, source vocabulary, value)."""


@dataclass(frozen=True)
class Selection:
    """The part of a release that is wanted; an empty field wants all."""

    sab: frozenset[str]
    languages: tuple[str, ...]
    attributes: frozenset[str]
    also: frozenset[Also]

    @classmethod
    def of(
        cls, sab: tuple[str, ...], languages: tuple[str, ...], attributes: tuple[str, ...], also: tuple[Also, ...]
    ) -> "Selection":
        """From the options of a load; a language is an LAT (``ENG``) or a tag (``en``)."""
        tags = tuple(LANGUAGES.get(language.upper(), language.lower()) for language in languages)
        unknown = sorted(set(tags) - set(LANGUAGES.values()))
        if unknown:
            raise ConfigError(f"Unknown language {unknown[0]!r}; expected one of: {', '.join(LANGUAGES.values())}")
        return cls(frozenset(sab), tags, frozenset(attributes) or ATTRIBUTES, frozenset(also))

    def wants_source(self, sab: str) -> bool:
        return not self.sab or sab in self.sab


class Metathesaurus:
    """The concepts of one release."""

    def __init__(self, source: str, report: Report, wanted: Selection) -> None:
        self.source, self.report, self.wanted = source, report, wanted
        self.concepts: dict[str, Concept] = {}
        self.others: dict[str, Entity] = {}
        """Semantic types, semantic relations, retired concepts and ends that nothing describes, by id."""
        self.edges: dict[tuple[str, str, str], tuple[str, ...]] = {}
        """(head, relation, tail) → who says so, in which role group and direction, as ``SAB|group|flipped``."""
        self.plain: dict[str, Triple] = {}
        self.inverses = dict(INVERSES)
        self.one_way: set[str] = set()
        """Relations whose inverse is not known."""
        self._relations: dict[str, tuple[str, bool, bool]] = {}
        self._tags: dict[tuple[str, ...], tuple[str, ...]] = {}

    def concept(self, key: str, iri: str = "") -> Concept:
        """The concept of a CUI, new or known."""
        if key not in self.concepts:
            self.concepts[key] = Concept(f"umls:{key}", iri or CONCEPT_IRI + key)
        return self.concepts[key]

    def name(self, concept: Concept, atom: Atom, suppress: str = "N") -> None:
        concept.is_obsolete &= suppress == "O"
        if suppress in ("", "N") or "suppressible" in self.wanted.also:
            concept.atoms.append(atom)
            self.report.keep("name")
        elif concept.spare is None:
            concept.spare = atom  # counted at the end, as the name of the concept or as skipped
        else:
            concept.spare = min(concept.spare, atom)
            self.report.skip(SUPPRESSED)

    def language_order(self, language: str) -> int:
        """English first, or the languages asked for in their order."""
        order = self.wanted.languages or ("en",)
        return order.index(language) if language in order else len(order)

    def define(self, key: str, text: str, order: tuple[Any, ...]) -> None:
        concept = self.concepts.get(key)
        text = plain_text(text)
        if concept is None or not text:
            self.report.skip(NO_CONCEPT if text else "empty definition")
        elif text in concept.definitions:
            concept.definitions[text] = min(order, concept.definitions[text])
            self.report.skip(TWICE)
        else:
            concept.definitions[text] = order
            self.report.keep("definition")

    def attribute(self, key: str, attribute: str, sab: str, value: str, *, is_wanted: bool = False) -> None:
        concept = self.concepts.get(key)
        if not is_wanted and self.wanted.attributes.isdisjoint((attribute, "all")):
            self.report.skip("attribute that was not asked for")
        elif concept is None:
            self.report.skip(NO_CONCEPT)
        elif (attribute, sab, value) in concept.attributes:
            self.report.skip(TWICE)
        else:
            concept.attributes[attribute, sab, value] = None  # kept as property or tail: known at the end

    def relate(self, head: str, name: str, tail: str, sab: str, group: str = "") -> None:
        """``head name tail``; of a relation and its inverse, one is kept."""
        option, reason = UNWANTED.get(name, (None, ""))
        if option is not None and option not in self.wanted.also:
            self.report.skip(reason)
            return
        if head == tail and "self-loops" not in self.wanted.also:
            self.report.skip(TO_ITSELF)
            return
        one, other = self.concepts.get(head), self.concepts.get(tail)
        if one is None or other is None:
            self.report.skip("an end is a concept that was not kept")
            return
        if name not in self._relations:
            self._relations[name] = self._relation(name)
        relation, flip, symmetric = self._relations[name]
        flip = one.id > other.id if symmetric else flip
        key = (other.id, relation, one.id) if flip else (one.id, relation, other.id)
        known = self.edges.get(key, ())
        said = f"{sab}|{group}|"
        if f"{said}{flip}" in known:
            self.report.skip(TWICE)
        elif f"{said}{not flip}" in known:
            self.report.skip("inverse of one that is kept")
        else:
            tags = (*known, f"{said}{flip}")
            self.edges[key] = self._tags.setdefault(tags, tags)
            self.report.keep("relationship")

    def _relation(self, name: str) -> tuple[str, bool, bool]:
        """(relationship type, whether it runs the other way, whether it is its own inverse)."""
        inverse = self.inverses.get(name) or next((a for a, b in self.inverses.items() if b == name), None)
        if inverse is None:
            inverse = inverse_by_name(name)
        if inverse is None:
            self.one_way.add(name)
            inverse = name
        chosen = min(name, inverse, key=rank_of_two)
        symmetric = name == inverse and name not in self.one_way
        return "SUBCLASS_OF" if chosen == "isa" else upper_snake(chosen), chosen != name, symmetric

    def has_type(self, key: str, type_id: str, name: str = "", tree_number: str = "") -> None:
        """A concept's semantic type."""
        concept = self.concepts.get(key)
        if concept is None:
            self.report.skip(NO_CONCEPT)
            return
        if f"umls:{type_id}" not in self.others:
            self.describe(type_id, "SemanticType", name, tree_number=tree_number)
        self.link(concept.id, "INSTANCE_OF", f"umls:{type_id}")

    def describe(self, key: str, kind: str, name: str, definition: str = "", **properties: Scalar) -> None:
        """A part of the Semantic Network: a type, or a relation between types."""
        self.others[f"umls:{key}"] = Entity(
            id=f"umls:{key}",
            iri=TYPE_IRI + key,
            source=self.source,
            kinds=(kind,),
            name=name or None,
            names=(Name(text=name, kind="pref", language="en"),) if name else (),
            definition=definition or None,
            definitions=(definition,) if definition else (),
            properties={key: value for key, value in properties.items() if value},
        )

    def link(self, head: str, relation: str, tail: str, **properties: PropertyValue) -> None:
        """A relationship as it stands, between ids."""
        triple = self._triple(head, relation, tail, properties)
        self.report.skip(TWICE) if triple.sid in self.plain else self.report.keep("relationship")
        self.plain[triple.sid] = triple

    def retire(self, key: str, version: str, rel: str, successor: str) -> None:
        """A CUI that is no more: merged into another (SY), or deleted, perhaps with one to look at instead."""
        if key in self.concepts:
            self.report.skip("retired CUI that is a concept of this release")
            return
        if (self.wanted.sab or self.wanted.languages) and successor not in self.concepts:
            self.report.skip(NO_CONCEPT)
            return
        if successor == key:
            self.report.skip(TO_ITSELF)
            return
        iri, known = CONCEPT_IRI + key, self.others.get(f"umls:{key}")
        versions = [version] + ([str(known.properties["retired_in"])] if known and known.properties else [])
        self.others[f"umls:{key}"] = Entity(
            id=f"umls:{key}",
            iri=iri,
            source=self.source,
            kinds=("Concept", "Deprecated"),
            properties={"retired_in": max(versions)},
        )
        if not successor:
            self.report.keep("node label")
            return
        if rel == "SY":
            self.link(f"umls:{key}", "REPLACED_BY", f"umls:{successor}")
        else:
            self.link(f"umls:{key}", "CONSIDER", f"umls:{successor}", rel=rel)
        if successor not in self.concepts and f"umls:{successor}" not in self.others:
            self.others[f"umls:{successor}"] = Entity(
                id=f"umls:{successor}", iri=CONCEPT_IRI + successor, source=self.source, kinds=("Stub",)
            )

    def items(self) -> Iterator[Entity | Triple]:
        """All that was gathered; to be called once, since it completes the report."""
        several = self._several_valued()
        for key in list(self.concepts):
            concept = self.concepts.pop(key)
            yield self._entity(concept, several)
        yield from self.others.values()
        for (head, relation, tail), tags in self.edges.items():
            said = [tag.split("|") for tag in tags]
            properties: dict[str, PropertyValue] = {"sab": sorted({sab for sab, _, _ in said if sab})}
            groups = sorted({group for _, group, _ in said if group})
            yield self._triple(head, relation, tail, {**properties, **({"rg": groups} if groups else {})})
        yield from self.plain.values()
        yield from self._tree()

    def _several_valued(self) -> set[str]:
        """Attributes that are no property: some concept has two values, or one that is too long."""
        found: set[str] = set()
        keys: dict[str, set[str]] = defaultdict(set)
        for concept in self.concepts.values():
            counts = Counter(attribute for attribute, _, _ in concept.attributes)
            found |= {attribute for attribute, count in counts.items() if count > 1}
            found |= {name for name, _, value in concept.attributes if len(value) > MAX_PROPERTY}
            for name, _, _ in concept.attributes:
                keys[property_key(name)].add(name)
        return found.union(*(names for key, names in keys.items() if len(names) > 1 or key in RESERVED))

    def _entity(self, concept: Concept, several: set[str]) -> Entity:
        kinds = ("Concept", "Deprecated") if concept.is_obsolete else ("Concept",)
        if concept.atoms:
            self.report.skip(SUPPRESSED, 1 if concept.spare else 0)
        elif concept.spare is not None:
            concept.atoms.append(concept.spare)
            self.report.keep("name")
        names: dict[tuple[str, str], Name] = {}
        origins: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        languages: set[str] = set()
        for atom in sorted(concept.atoms):
            said = (atom.text, atom.language)
            origins[said][atom.origin] = None
            kind = atom.kind if atom.language in languages else "pref"
            names.setdefault(said, Name(text=atom.text, kind=kind, language=atom.language))
            languages.add(atom.language)
        properties: dict[str, Scalar] = {}
        tail = []
        for attribute, sab, value in concept.attributes:
            if attribute in several:
                tail.append(f"{sab}:{attribute}={value}")
            else:
                properties[property_key(attribute)] = value
        self.report.keep("tail", len(tail))
        self.report.keep("property", len(properties))
        texts = sorted(concept.definitions, key=lambda text: (concept.definitions[text], text))
        return Entity(
            id=concept.id,
            iri=concept.iri,
            source=self.source,
            kinds=kinds,
            name=next((name.text for name in names.values()), None),
            names=tuple(
                Name(text=name.text, kind=name.kind, language=name.language, origin="|".join(origins[said]))
                for said, name in names.items()
            ),
            definition=texts[0] if texts else None,
            definitions=tuple(texts),
            properties=properties,
            tail=tuple(sorted(tail)),
        )

    def _tree(self) -> Iterator[Triple]:
        """Where the Semantic Network itself is not there: each type below the nearest one by tree number."""
        if any(triple.relation == "SUBCLASS_OF" for triple in self.plain.values()):
            return
        types = {str(e.properties["tree_number"]): e.id for e in self.others.values() if "tree_number" in e.properties}
        for number, type_id in types.items():
            above = next((types[step] for step in steps_above(number) if step in types), None)
            if above is not None:
                yield self._triple(type_id, "SUBCLASS_OF", above, {"derived": True})

    def _triple(self, head: str, relation: str, tail: str, properties: Mapping[str, PropertyValue]) -> Triple:
        canonical = f"{head} {relation} {tail} {sorted(properties.items())}"
        sid = blake2b(canonical.encode(), digest_size=16).hexdigest()
        return Triple(head=head, relation=relation, tail=tail, source=self.source, sid=sid, properties=properties)


def inverse_by_name(relation: str) -> str | None:
    """By the habit of the sources: ``inverse_x`` of ``x``, ``has_x`` of ``x_of``."""
    if relation.startswith("inverse_"):
        return relation.removeprefix("inverse_")
    if relation.startswith("has_"):
        return relation.removeprefix("has_") + "_of"
    return "has_" + relation.removesuffix("_of") if relation.endswith("_of") else None


def rank_of_two(relation: str) -> tuple[bool, bool, bool, bool, str]:
    """Of a relation and its inverse, the lower one is kept: ``isa``, ``part_of``, ``may_treat``."""
    prefixes = (relation.startswith("inverse_"), relation.startswith("has_"))
    return (relation not in INVERSES, *prefixes, relation.endswith("_by"), relation)


def property_key(attribute: str) -> str:
    return re.sub(r"\W", "_", attribute)


def steps_above(number: str) -> Iterator[str]:
    """``B2.2.1`` → ``B2.2``, ``B2``, ``B``."""
    while "." in number:
        number = number.rpartition(".")[0]
        yield number
    if len(number) > 1:
        yield number[0]


_TAG = re.compile(r"</?(?:p|br|b|i|u|em|strong|sub|sup|a|ul|ol|li|div|span|h\d|t[rdh]|table)(?:\s[^<>]*)?/?>", re.I)
_ENTITY = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&apos;": "'", "&nbsp;": " ", "&amp;": "&"}


def plain_text(text: str) -> str:
    """A definition without the HTML that some sources put in it."""
    if "<" in text:
        text = _TAG.sub("", text)
    if "&" in text:
        for entity, character in _ENTITY.items():
            text = text.replace(entity, character)
    return text.strip()
