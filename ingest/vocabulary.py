"""The words of RDF, RDFS, OWL and SKOS, and what each of them is in the graph."""

from collections.abc import Callable, Mapping

from ingest.names import local_name
from kg.types import Scalar

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
    SKOS + "exactMatch": "SAME_AS",
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
DEFINITIONS = (
    SKOS + "definition",
    "http://purl.obolibrary.org/obo/IAO_0000115",
    DCT + "description",
    RDFS + "comment",
    SKOS + "scopeNote",
)
"""Predicates of definitions, best first."""
DEPRECATED = OWL + "deprecated"
SHAPE = ("predicate", "language", "datatype")
"""What decides on a literal."""
BOOKKEEPING = frozenset({"id", "iri", "sources", "hashes", "claims", "gone_in", "gone_from"})
"""Keys of a node that say nothing of the entity."""
RESERVED = BOOKKEEPING | {
    *("name", "names", "name_kinds", "name_origins", "definition", "definitions", "tail", "relation"),
}
"""Keys that no literal of a source becomes: such a predicate goes to the tail."""
MAX_PROPERTY = 8000
"""Longer values go to the tail; an index entry of Neo4j ends at about 8 kB."""


def is_true(text: str) -> bool:
    return text == "true"


NATIVE: Mapping[str, Callable[[str], Scalar]] = {
    XSD + "boolean": is_true,
    **{XSD + name: int for name in ("integer", "int", "long", "short", "nonNegativeInteger", "positiveInteger")},
    **{XSD + name: str for name in ("string", "anyURI", "dateTime", "date", "gYear")},
}
"""Datatypes whose literals can be values of properties, and how."""
INTEGER = "^(0|[1-9][0-9]{0,18})$"
"""Integers that are written as they are printed."""


def is_name(predicate: str) -> bool:
    """True when its literals are names, definitions or "deprecated", never properties."""
    return local_name(predicate) in NAME_KINDS or predicate in DEFINITIONS or predicate == DEPRECATED
