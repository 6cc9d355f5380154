"""What RDFS, OWL and SKOS mean in the graph, row by row of the mapping, with nothing lost on the way."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ingest.names import Curies, local_name, relation_types, upper_snake
from ingest.owl import to_graph
from ingest.rdf import Statements, find_files, parse
from ingest.report import Report
from ingest.survey import Seen
from ingest.vocabulary import MAX_PROPERTY, RDF, RESERVED
from kg.types import Entity, Triple

PREFIXES = """
@prefix ex: <http://e/> .
@prefix other: <http://other/> .
@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix dct: <http://purl.org/dc/terms/> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
"""


class Mapped:
    """A mapped text: entities by id, triples, report."""

    def __init__(self, file: Path, source: str) -> None:
        self.report = Report(source)
        self.read(parse([file], self.report), source)

    def read(self, statements: Any, source: str) -> None:
        items = list(to_graph(statements, source, self.report))
        self.triples = [item for item in items if isinstance(item, Triple)]
        entities = [item for item in items if isinstance(item, Entity)]
        self.entities = {entity.id: entity for entity in entities}
        assert len(self.entities) == len(entities)
        assert len({entity.iri for entity in entities}) == len(entities)
        assert len({triple.sid for triple in self.triples}) == len(self.triples)
        assert all(end in self.entities for triple in self.triples for end in (triple.head, triple.tail))
        assert self.report.balances, self.report.as_json()

    @property
    def edges(self) -> set[tuple[str, str, str]]:
        return {(triple.head, triple.relation, triple.tail) for triple in self.triples}

    def properties(self, head: str, relation: str, tail: str) -> dict[str, Any]:
        (found,) = [t.properties for t in self.triples if (t.head, t.relation, t.tail) == (head, relation, tail)]
        return dict(found)


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[[str], Mapped]:
    def run(turtle: str) -> Mapped:
        file = tmp_path / "in.ttl"
        file.write_text(PREFIXES + turtle, encoding="utf-8")
        return Mapped(file, "test")

    return run


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("owl:Class", "Class"),
        ("rdfs:Class", "Class"),
        ("owl:NamedIndividual", "Individual"),
        ("owl:ObjectProperty", "ObjectProperty"),
        ("owl:DatatypeProperty", "DatatypeProperty"),
        ("owl:AnnotationProperty", "AnnotationProperty"),
        ("rdf:Property", "Property"),
        ("rdfs:Datatype", "Datatype"),
        ("owl:Ontology", "Ontology"),
        ("skos:Concept", "Concept"),
    ],
)
def test_a_type_of_the_language_becomes_a_kind(type_: str, kind: str, mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(f"ex:a a {type_} .")
    assert (graph.entities["ex:a"].kinds, graph.entities["ex:a"].iri) == ((kind,), "http://e/a")
    assert graph.edges == set()


def test_a_type_of_the_source_becomes_a_relationship(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:a a ex:Bank . ex:b a owl:NamedIndividual , ex:Bank . ex:p a owl:TransitiveProperty . ex:c ex:q 1 ."
    )
    assert graph.edges == {
        ("ex:a", "INSTANCE_OF", "ex:Bank"),
        ("ex:b", "INSTANCE_OF", "ex:Bank"),
        ("ex:p", "INSTANCE_OF", "owl:TransitiveProperty"),
    }
    assert graph.entities["ex:a"].kinds == graph.entities["ex:b"].kinds == ("Individual",)
    assert graph.entities["ex:c"].kinds == ("Item",)


def test_what_is_both_class_and_individual_has_both_kinds(mapped: Callable[[str], Mapped]) -> None:
    assert mapped("ex:a a owl:Class , owl:NamedIndividual .").entities["ex:a"].kinds == ("Class", "Individual")


def test_predicates_of_the_languages_have_fixed_types(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:a rdfs:subClassOf ex:b ; owl:sameAs ex:c ; dct:isReplacedBy ex:d ; rdfs:subPropertyOf ex:e ; "
        "owl:imports ex:f ; skos:broader ex:g ; owl:equivalentClass ex:h ."
    )
    assert {relation for _, relation, _ in graph.edges} == {
        *("SUBCLASS_OF", "SAME_AS", "REPLACED_BY", "SUBPROPERTY_OF", "IMPORTS", "BROADER", "EQUIVALENT_CLASS")
    }
    assert all(triple.properties == {} for triple in graph.triples)


def test_an_object_property_is_a_type_in_capitals_and_its_node_says_so(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped("ex:hasReferenceCurrency a owl:ObjectProperty . ex:a ex:hasReferenceCurrency ex:b ; ex:P17 ex:c .")
    assert graph.edges == {("ex:a", "HAS_REFERENCE_CURRENCY", "ex:b"), ("ex:a", "P17", "ex:c")}
    assert graph.entities["ex:hasReferenceCurrency"].properties == {"relation": "HAS_REFERENCE_CURRENCY"}
    assert graph.entities["ex:P17"].kinds == ("Stub",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hasURLAddress", "HAS_URL_ADDRESS"),
        ("isA-partOf", "IS_A_PART_OF"),
        ("has_part", "HAS_PART"),
        ("P17", "P17"),
        ("gehört zu", "GEHÖRT_ZU"),
        ("x`) DETACH DELETE n //", "X_DETACH_DELETE_N"),
        ("+", "RELATED"),
    ],
)
def test_upper_snake(name: str, expected: str) -> None:
    assert upper_snake(name) == expected


def test_predicates_that_end_alike_keep_types_of_their_own(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped("ex:a ex:hasTag ex:b ; other:hasTag ex:c ; ex:alone ex:d .")
    assert graph.edges == {("ex:a", "EX_HAS_TAG", "ex:b"), ("ex:a", "OTHER_HAS_TAG", "ex:c"), ("ex:a", "ALONE", "ex:d")}
    assert graph.entities["other:hasTag"].iri == "http://other/hasTag"


def test_no_predicate_takes_the_type_of_another(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:a a ex:C ; ex:instanceOf ex:D ; ex:tag ex:T ; other:tag ex:U ; ex:exTag ex:V ; rdfs:subClassOf ex:E ."
    )
    assert len({relation for _, relation, _ in graph.edges}) == 6
    assert ("ex:a", "INSTANCE_OF", "ex:C") in graph.edges
    assert ("ex:a", "EX_INSTANCE_OF", "ex:D") in graph.edges
    predicates = {f"http://{host}/{name}": f"x:{name}" for host in "abc" for name in ("p", "q", "xP", "type")}
    types = relation_types(predicates, taken={"TYPE", "X_TYPE"})
    assert len({*types.values(), "TYPE", "X_TYPE"}) == len(predicates) + 2
    assert relation_types(dict(reversed(predicates.items())), taken={"TYPE", "X_TYPE"}) == types


def curies(iris: Iterable[str], prefixes: Mapping[str, str]) -> dict[str, str]:
    together, short = pa.array(sorted(set(iris)), pa.string()), Curies(prefixes)
    short.look(together)
    short.compare(together)
    short.settle()
    return {iri: short(iri) for iri in together.to_pylist()}


def test_ids_are_short_unique_and_the_same_in_every_order() -> None:
    iris = [
        "http://e/x#Term",
        "http://e/y#Term",
        "http://e/Alone",
        "http://e/",
        "http://nowhere/a",
        "http://www.wikidata.org/entity/Q42",
        "https://spec.edmcouncil.org/fibo/ontology/FND/Relations/hasTag",
    ]
    ids = curies(iris, {"ex": "http://e/", "kb": "http://www.wikidata.org/entity/"})
    assert ids == dict(
        zip(
            iris,
            ["ex:x.Term", "ex:y.Term", "ex:Alone", "http://e/", "http://nowhere/a", "wd:Q42", "fibo:hasTag"],
            strict=True,
        )
    )
    assert curies(reversed(iris), {"kb": "http://www.wikidata.org/entity/", "ex": "http://e/"}) == ids


def test_what_skos_says_of_a_concept(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        'ex:a a skos:Concept ; skos:notation "A.1" ; skos:scopeNote "Use for all of it."@en ; skos:broader ex:b ;'
        ' skos:exactMatch other:a ; skos:closeMatch other:b ; skos:inScheme ex:s ; skos:editorialNote "?"@en .'
        'ex:b a skos:Concept ; skos:notation "A" ; skos:definition "All."@en ; skos:scopeNote "In any sense."@en ;'
        " skos:narrower ex:a . ex:s a skos:ConceptScheme ; skos:hasTopConcept ex:b ."
    )
    assert graph.edges == {
        ("ex:a", "BROADER", "ex:b"),
        ("ex:b", "NARROWER", "ex:a"),
        ("ex:a", "SAME_AS", "other:a"),
        ("ex:a", "CLOSE_MATCH", "other:b"),
        ("ex:a", "IN_SCHEME", "ex:s"),
        ("ex:s", "HAS_TOP_CONCEPT", "ex:b"),
        ("ex:s", "INSTANCE_OF", "skos:ConceptScheme"),
    }
    first, second = graph.entities["ex:a"], graph.entities["ex:b"]
    assert (first.kinds, first.properties, first.definition) == (
        ("Concept",),
        {"notation": "A.1"},
        "Use for all of it.",
    )
    assert (second.definition, second.definitions) == ("All.", ("All.", "In any sense."))
    assert first.tail == ("skos:editorialNote=?@en",)


def test_equivalence_of_named_things_is_a_relationship(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:A a owl:Class ; owl:equivalentClass ex:B ; owl:disjointWith ex:C . ex:p owl:equivalentProperty ex:q ;"
        " owl:inverseOf ex:r . ex:x owl:sameAs ex:y ; owl:differentFrom ex:z ."
    )
    assert graph.edges == {
        ("ex:A", "EQUIVALENT_CLASS", "ex:B"),
        ("ex:A", "DISJOINT_WITH", "ex:C"),
        ("ex:p", "EQUIVALENT_PROPERTY", "ex:q"),
        ("ex:p", "INVERSE_OF", "ex:r"),
        ("ex:x", "SAME_AS", "ex:y"),
        ("ex:x", "DIFFERENT_FROM", "ex:z"),
    }
    assert all(triple.properties == {} for triple in graph.triples)


COMMONS = "https://www.omg.org/spec/Commons/AnnotationVocabulary/"
FIBO = "https://spec.edmcouncil.org/fibo/ontology/FND/Utilities/AnnotationVocabulary/"


@pytest.mark.parametrize(
    ("predicate", "kind"),
    [
        (COMMONS + "synonym", "syn"),
        (COMMONS + "abbreviation", "abbr"),
        (COMMONS + "acronym", "abbr"),
        (FIBO + "commonDesignation", "syn"),
        (FIBO + "preferredDesignation", "syn"),
        ("https://www.omg.org/spec/Commons/Designators/hasTextualName", "syn"),
    ],
)
def test_names_of_fibo_are_names(predicate: str, kind: str, mapped: Callable[[str], Mapped]) -> None:
    found = mapped(f'ex:a rdfs:label "bond" ; <{predicate}> "debt security" .').entities["ex:a"]
    assert [(name.text, name.kind) for name in found.names] == [("bond", "pref"), ("debt security", kind)]
    assert (found.name, found.tail) == ("bond", ())


@pytest.mark.parametrize(
    "name", ["explanatoryNote", "adaptedFrom", "usageNote", "directSource", "copyright", "symbol", "logicalDefinition"]
)
def test_notes_and_origins_of_fibo_are_in_the_tail(name: str, mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(f'ex:a <{COMMONS}{name}> "one"@en , "two" . ex:b <{COMMONS}{name}> "three" .')
    assert graph.entities["ex:a"].tail == (f"cmns:{name}=one@en", f"cmns:{name}=two")
    assert graph.entities["ex:b"].tail == (f"cmns:{name}=three",)


def test_the_maturity_of_a_part_of_fibo_is_a_relationship(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(f"ex:o a owl:Ontology ; <{FIBO}hasMaturityLevel> <{FIBO}Release> .")
    assert graph.edges == {("ex:o", "HAS_MATURITY_LEVEL", "fibo:Release")}


def test_namespaces_may_end_anywhere_and_share_a_prefix() -> None:
    iris = ["http://o/X_1", "http://o/X_2", "http://o/Y", "urn:i:1", "http://schema.org/a", "https://schema.org/a"]
    ids = curies(iris, {"x": "http://o/X_", "o": "http://o/", "i": "urn:i:"})
    assert [ids[iri] for iri in iris[:4]] == ["x:X_1", "x:X_2", "o:Y", "i:urn:i:1"]
    assert len(set(ids.values())) == len(iris)


def test_names_have_kind_and_language_and_the_best_one_is_shown(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        'ex:a rdfs:label "Bank"@de , "bank"@en ; skos:altLabel "lender"@en ; skos:prefLabel "the bank"@en-GB ;'
        ' ex:abbreviation "bk" ; ex:synonym "banco"@es ; skos:hiddenLabel " " .'
        ' ex:b skos:altLabel "only this" . ex:c rdfs:label "Zins"@de ; ex:acronym "ZZ" .'
    )
    said = {(name.text, name.kind, name.language) for name in graph.entities["ex:a"].names}
    assert said == {
        ("Bank", "pref", "de"),
        ("bank", "pref", "en"),
        ("lender", "syn", "en"),
        ("the bank", "pref", "en-gb"),
        ("bk", "abbr", ""),
        ("banco", "syn", "es"),
    }
    shown = [graph.entities[f"ex:{letter}"].name for letter in "abc"]
    assert shown == ["bank", "only this", "Zins"]
    assert graph.report.kept["name"] == 9
    assert any(" " in line for line in graph.entities["ex:a"].tail)


def test_the_best_english_definition_is_first_and_others_stay_in_the_tail(mapped: Callable[[str], Mapped]) -> None:
    entity = mapped(
        'ex:a rdfs:comment "a comment" ; skos:definition "the definition"@en , "die Definition"@de ;'
        ' dct:description "d" .'
    ).entities["ex:a"]
    assert entity.definition == "the definition"
    assert entity.definitions == ("the definition", "d", "a comment")
    assert entity.tail == ("skos:definition=die Definition@de",)


def test_a_predicate_with_one_value_of_one_datatype_is_a_typed_property(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        'ex:a ex:size 7 ; ex:open true ; ex:founded "1869-01-01"^^xsd:date ; ex:code "x-1" ; ex:at "2020"^^xsd:gYear .'
        "ex:b ex:size 0 ."
    )
    assert graph.entities["ex:a"].properties == {
        "size": 7,
        "open": True,
        "founded": "1869-01-01",
        "code": "x-1",
        "at": "2020",
    }
    assert graph.entities["ex:b"].properties == {"size": 0}
    assert graph.report.kept["property"] == 6


@pytest.mark.parametrize(
    ("turtle", "tail"),
    [
        ("ex:a ex:n 1 , 2 .", {"ex:n=1^^integer", "ex:n=2^^integer"}),
        ("ex:a ex:n 1 . ex:b ex:n 'x' .", {"ex:n=1^^integer"}),
        ("ex:a ex:n 'x'@en-GB .", {"ex:n=x@en-gb"}),
        ("ex:a ex:n 0.50 .", {"ex:n=0.50^^decimal"}),
        ("ex:a ex:n '007'^^xsd:integer .", {"ex:n=007^^integer"}),
        ("ex:a ex:n 99999999999999999999 .", {"ex:n=99999999999999999999^^integer"}),
        ("ex:a ex:n 'x'^^ex:own .", {"ex:n=x^^http://e/own"}),
        ("ex:a ex:n 1 ; other:n 2 .", {"ex:n=1^^integer", "other:n=2^^integer"}),
        ("ex:a ex:names 'x' ; ex:id 'y' ; ex:sources 'z' .", {"ex:names=x", "ex:id=y", "ex:sources=z"}),
        (f"ex:a ex:n '{'x' * (MAX_PROPERTY + 1)}' .", {"ex:n=" + "x" * (MAX_PROPERTY + 1)}),
    ],
)
def test_every_other_literal_is_in_the_tail_word_for_word(
    turtle: str, tail: set[str], mapped: Callable[[str], Mapped]
) -> None:
    entity = mapped(turtle).entities["ex:a"]
    assert set(entity.tail) == tail
    assert entity.properties.keys() <= {"relation"}


RESTRICTION = "ex:C rdfs:subClassOf [ a owl:Restriction ; owl:onProperty ex:holds ; {} ] ."


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("owl:someValuesFrom ex:D", {"quantifier": "some"}),
        ("owl:allValuesFrom ex:D", {"quantifier": "only"}),
        ("owl:hasValue ex:D", {"quantifier": "value"}),
        ("owl:onClass ex:D ; owl:minQualifiedCardinality '2'^^xsd:nonNegativeInteger", {"quantifier": "min", "n": 2}),
        ("owl:onClass ex:D ; owl:maxQualifiedCardinality 3", {"quantifier": "max", "n": 3}),
        ("owl:onClass ex:D ; owl:qualifiedCardinality 1", {"quantifier": "exact", "n": 1}),
    ],
)
def test_a_restriction_is_the_relationship_that_it_states(
    body: str, expected: dict[str, Any], mapped: Callable[[str], Mapped]
) -> None:
    graph = mapped(RESTRICTION.format(body))
    assert graph.edges == {("ex:C", "HOLDS", "ex:D")}
    assert graph.properties("ex:C", "HOLDS", "ex:D") == {"derived": True, **expected}
    assert graph.entities["ex:holds"].properties.get("relation", "HOLDS") == "HOLDS"


def test_restrictions_on_literals_are_lines_of_the_tail(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        RESTRICTION.format("owl:hasValue 'EUR'")
        + RESTRICTION.format("owl:minCardinality 4")
        + RESTRICTION.format("owl:onDataRange xsd:decimal ; owl:qualifiedCardinality 1")
    )
    assert graph.edges == set()
    graph_of_list = mapped(RESTRICTION.format("owl:someValuesFrom [ a rdfs:Datatype ; owl:oneOf ( 'APO' 'FPO' ) ]"))
    assert graph_of_list.entities["ex:C"].tail == (
        "rdfs:subClassOf ex:holds first=APO",
        "rdfs:subClassOf ex:holds first=FPO",
    )
    tail = " | ".join(graph.entities["ex:C"].tail)
    for said in ("ex:holds hasValue=EUR", "ex:holds minCardinality=4", "ex:holds onDataRange=xsd:decimal"):
        assert said in tail


def test_an_inverse_property_in_a_restriction_is_marked(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:C rdfs:subClassOf [ a owl:Restriction ; owl:onProperty [ owl:inverseOf ex:owns ] ;"
        " owl:someValuesFrom ex:D ] ."
    )
    assert graph.properties("ex:C", "OWNS", "ex:D") == {"derived": True, "quantifier": "some", "inverse": True}


@pytest.mark.parametrize(
    ("predicate", "name"), [("unionOf", "union"), ("intersectionOf", "intersection"), ("oneOf", "one of")]
)
def test_members_of_a_list_share_a_group(predicate: str, name: str, mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(f"ex:C owl:equivalentClass [ a owl:Class ; owl:{predicate} ( ex:D ex:E ex:F ) ] .")
    assert graph.edges == {("ex:C", "EQUIVALENT_CLASS", f"ex:{letter}") for letter in "DEF"}
    groups = {str(triple.properties["group"]) for triple in graph.triples}
    assert len(groups) == 1
    assert all(len(group) == 32 for group in groups)
    assert {triple.properties["connective"] for triple in graph.triples} == {name}


def test_a_restriction_says_what_it_is_within(mapped: Callable[[str], Mapped]) -> None:
    within = "[ a owl:Restriction ; owl:onProperty ex:part ; owl:someValuesFrom {} ]"
    inner = "[ a owl:Restriction ; owl:onProperty ex:holds ; owl:allValuesFrom ex:D ]"
    graph = mapped(
        f"ex:A rdfs:subClassOf {within.format(inner)} . ex:B owl:disjointWith {inner} ."
        f"ex:C rdfs:subClassOf [ owl:complementOf {inner} ] . ex:E rdfs:subClassOf {inner} ."
    )
    assert graph.properties("ex:A", "HOLDS", "ex:D")["via"] == ["PART"]
    assert graph.properties("ex:B", "HOLDS", "ex:D")["via"] == ["DISJOINT_WITH"]
    assert graph.properties("ex:C", "HOLDS", "ex:D")["via"] == ["COMPLEMENT_OF"]
    assert "via" not in graph.properties("ex:E", "HOLDS", "ex:D")


def test_the_order_of_a_property_chain_is_kept(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped("ex:uncle owl:propertyChainAxiom ( ex:parent ex:brother ex:parent ) .")
    assert {(triple.tail, triple.properties["ix"]) for triple in graph.triples} == {
        ("ex:parent", 0),
        ("ex:brother", 1),
        ("ex:parent", 2),
    }


def test_a_datatype_with_limits_has_them_in_its_tail(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:Percent a rdfs:Datatype ; owl:equivalentClass [ a rdfs:Datatype ; owl:onDatatype xsd:integer ;"
        " owl:withRestrictions ( [ xsd:minInclusive 0 ] [ xsd:maxInclusive 100 ] ) ] ."
    )
    assert graph.edges == set()
    assert graph.entities["ex:Percent"].tail == (
        "owl:equivalentClass maxInclusive=100^^integer",
        "owl:equivalentClass minInclusive=0^^integer",
        "owl:equivalentClass onDatatype=xsd:integer",
    )


def test_a_restriction_in_an_intersection_keeps_property_and_group(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:C owl:equivalentClass [ owl:intersectionOf ( ex:D [ a owl:Restriction ; owl:onProperty ex:holds ;"
        " owl:someValuesFrom [ owl:unionOf ( ex:E ex:F ) ] ] ) ] ."
    )
    assert graph.edges == {
        ("ex:C", "EQUIVALENT_CLASS", "ex:D"),
        ("ex:C", "HOLDS", "ex:E"),
        ("ex:C", "HOLDS", "ex:F"),
    }
    assert graph.properties("ex:C", "HOLDS", "ex:E")["quantifier"] == "some"
    assert graph.properties("ex:C", "HOLDS", "ex:E")["connective"] == "union"
    assert "quantifier" not in graph.properties("ex:C", "EQUIVALENT_CLASS", "ex:D")


def test_lists_may_be_long(mapped: Callable[[str], Mapped]) -> None:
    members = " ".join(f"ex:m{number}" for number in range(3000))
    graph = mapped(f"ex:C owl:equivalentClass [ owl:oneOf ( {members} ) ] .")
    assert len(graph.edges) == 3000


@pytest.mark.parametrize(
    "cycle",
    [
        "_:a rdf:first ex:b ; rdf:rest _:a .",
        "_:a rdf:first ex:b ; rdf:rest _:c . _:c rdf:first _:a ; rdf:rest _:a .",
        "_:a rdf:first _:a , ex:b ; rdf:rest _:a .",
    ],
)
def test_a_list_that_is_its_own_rest_ends(cycle: str, mapped: Callable[[str], Mapped]) -> None:
    assert ("ex:s", "P", "ex:b") in mapped(f"ex:s ex:p _:a . {cycle}").edges


@pytest.mark.parametrize(
    ("said", "number"),
    [
        *(("2", 2), ("02", 2), ("9223372036854775807", (1 << 63) - 1)),
        *((said, None) for said in ("9223372036854775808", "1" + "0" * 20, "9" * 5000, "²", "٢", "many")),
    ],
)
def test_a_cardinality_is_a_number_that_neo4j_holds(
    said: str, number: int | None, mapped: Callable[[str], Mapped]
) -> None:
    where = "a owl:Restriction ; owl:onProperty ex:p ; owl:onClass ex:c"
    read = mapped(f'ex:s rdfs:subClassOf [ {where} ; owl:minCardinality "{said}" ] .')
    assert read.properties("ex:s", "P", "ex:c").get("n") == number
    assert f"rdfs:subClassOf ex:p minCardinality={said}" in read.entities["ex:s"].tail


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_the_graph_calls_something_of_its_own_is_in_the_tail(name: str, mapped: Callable[[str], Mapped]) -> None:
    entity = mapped(f"ex:s <http://x/{name}> 7 .").entities["ex:s"]
    assert (entity.properties, entity.tail) == ({}, (f"http://x/{name}=7^^integer",))


def test_an_anonymous_thing_is_folded_with_its_values_and_types(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:a ex:address [ a ex:Address ; ex:city ex:Paris ; ex:street 'Rue' ; ex:geo [ ex:in ex:France ] ] ."
    )
    assert graph.edges == {
        ("ex:a", "ADDRESS", "ex:Address"),
        ("ex:a", "CITY", "ex:Paris"),
        ("ex:a", "IN", "ex:France"),
    }
    assert graph.properties("ex:a", "ADDRESS", "ex:Address") == {"derived": True, "quantifier": "some"}
    assert all(triple.properties["derived"] for triple in graph.triples)
    assert graph.entities["ex:a"].tail == ("ex:address street=Rue",)
    assert graph.report.kept["folded into derived relationships"] == 5


def test_anonymous_nodes_that_share_others_or_form_a_cycle_end(mapped: Callable[[str], Mapped]) -> None:
    steps = "".join(f"_:n{number} ex:p _:n{number + 1} ; ex:q _:n{number + 1} .\n" for number in range(60))
    graph = mapped(f"ex:a ex:r _:n0 . {steps} _:n60 ex:p ex:b .")
    assert ("ex:a", "P", "ex:b") in graph.edges
    cycle = mapped("ex:a ex:r _:x . _:x ex:p _:y . _:y ex:p _:x ; ex:p ex:b .")
    assert ("ex:a", "P", "ex:b") in cycle.edges


def test_an_anonymous_node_that_nothing_refers_to_is_counted(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped("[] a owl:AllDifferent ; owl:distinctMembers ( ex:a ex:b ) .")
    assert graph.triples == []
    (reason,) = graph.report.skipped
    assert "nothing refers to" in reason
    assert graph.report.skipped[reason] == graph.report.read - sum(graph.report.kept.values()) > 0


def test_deprecated_is_a_kind_and_only_when_true(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        "ex:a a owl:Class ; owl:deprecated true ; dct:isReplacedBy ex:b . ex:b a owl:Class ; owl:deprecated false ."
    )
    assert graph.entities["ex:a"].kinds == ("Class", "Deprecated")
    assert graph.entities["ex:b"].kinds == ("Class",)
    assert graph.edges == {("ex:a", "REPLACED_BY", "ex:b")}
    assert graph.entities["ex:b"].tail == ("owl:deprecated=false^^boolean",)


def test_what_is_referred_to_and_not_described_is_a_stub(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped("ex:a ex:knows <http://nowhere/b> .")
    stub = graph.entities["http://nowhere/b"]
    assert (stub.kinds, stub.iri, stub.name, stub.source) == (("Stub",), "http://nowhere/b", None, "test")
    assert graph.entities["ex:a"].kinds == ("Item",)


def test_the_order_of_statements_does_not_matter(tmp_path: Path) -> None:
    text = 'ex:a a ex:C ; rdfs:label "b" , "a" ; ex:n 2 , 1 ; ex:p [ ex:q ex:d , ex:c ] .\nex:b ex:p ex:a ; ex:n 3 .\n'
    seen = []
    for name, lines in (("one", text.splitlines()), ("two", text.splitlines()[::-1])):
        file = tmp_path / f"{name}.ttl"
        file.write_text(PREFIXES + "\n".join(lines))
        graph = Mapped(file, "test")
        seen.append((graph.entities, graph.triples))
    assert seen[0] == seen[1]


@dataclass
class InParts:
    """Statements in as many parts as there are remainders of the place of a subject, its strings as codes or not."""

    whole: Statements
    number: int
    as_codes: bool

    @property
    def prefixes(self) -> dict[str, str]:
        return self.whole.prefixes

    @property
    def blank(self) -> pa.Table:
        return self.coded(self.whole.blank)

    def parts(self) -> Iterator[pa.Table]:
        table = pa.concat_tables(self.whole.parts())
        subjects = pc.unique(table["subject"]).to_pylist()
        for remainder in range(self.number):
            wanted = pa.array(subjects[remainder :: self.number], pa.string())
            yield self.coded(table.filter(pc.is_in(table["subject"], value_set=wanted)))

    def coded(self, table: pa.Table) -> pa.Table:
        """Each chunk with codes of its own, some of them never used."""
        if not self.as_codes:
            return table
        half = table.num_rows // 2
        halves = [piece.to_batches() for piece in (table.slice(0, half), table.slice(half))]
        pieces = []
        for batch in (batch for piece in halves for batch in piece):
            columns = [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in batch.columns]
            pieces.append(pa.Table.from_arrays(columns, names=batch.schema.names))
        return pa.concat_tables(pieces) if pieces else table


PARTED = r"""
@prefix deep: <http://d/> .
ex:a a owl:Class , ex:Kind ; rdfs:label "a" , "A"@de ; ex:one 1 ; ex:two 1 ; ex:mixed "x" ; ex:long "y" ; ex:p ex:b .
ex:b a owl:Class ; rdfs:label "b" ; ex:one 2 ; ex:two 2 , 3 ; ex:mixed 4 ; ex:p ex:nowhere , deep:x\/Same ; ex:q ex:a .
ex:c ex:p ex:nowhere ; ex:one 3 ; owl:deprecated false ; rdfs:comment "c"@en , "k"@de ; other:p ex:nowhere .
ex:d rdfs:subClassOf [ owl:onProperty ex:holds ; owl:someValuesFrom [ owl:unionOf ( ex:a ex:far ) ] ] ; ex:P ex:far .
ex:e ex:p [ ex:q ex:f ; ex:note "n" ] ; ex:one 4 ; ex:two 4 .
deep:y\/Same ex:p deep:z\/Other ; ex:q deep:y.Same . deep:Other rdfs:label "o" . deep:x\/Alone ex:p deep:y\/x\/Same .
deep:k\/Same ex:p deep:l\/k\/Same , deep: .
[] a owl:AllDifferent ; owl:distinctMembers ( ex:a ex:b ) .
"""


@pytest.mark.parametrize("number", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("as_codes", [False, True])
def test_any_number_of_parts_gives_the_same_graph(number: int, as_codes: bool, tmp_path: Path) -> None:
    (tmp_path / "in.ttl").write_text(PREFIXES + PARTED, encoding="utf-8")
    one = Mapped(tmp_path / "in.ttl", "test")
    assert len({entity for entity in one.entities if entity.endswith("Same")}) == 6
    other = Mapped.__new__(Mapped)
    other.report = Report("test")
    other.read(InParts(parse([tmp_path / "in.ttl"], other.report), number, as_codes), "test")
    assert other.entities == one.entities
    assert {triple.sid: triple for triple in other.triples} == {triple.sid: triple for triple in one.triples}
    assert (other.report.kept, other.report.skipped) == (one.report.kept, one.report.skipped)


class Fibo(Mapped):
    """FIBO as it is, with its statements by subject: (predicate, object, kind)."""

    def __init__(self, data: Path) -> None:
        self.report = Report("fibo")
        folders = [data / "kg" / name for name in ("fibo_2026-07", "omg_commons_lcc")]
        files = [file for file in find_files(folders) if file.suffix == ".rdf"]
        statements = parse(files, self.report)
        self.read(statements, "fibo")
        self.said: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
        for part in (*statements.parts(), statements.blank):
            columns = (part[name].to_pylist() for name in ("subject", "predicate", "object", "kind"))
            for subject, *row in zip(*columns, strict=True):
                self.said[subject].append(tuple(row))

    def below(self, node: str) -> set[tuple[str, str, str]]:
        """All that is said of an anonymous node and of those below it."""
        found, waiting, seen = set(), [node], {node}
        while waiting:
            for row in self.said[waiting.pop()]:
                found.add(row)
                if row[2] == "blank" and row[1] not in seen:
                    seen.add(row[1])
                    waiting.append(row[1])
        return found


@pytest.fixture(scope="module")
def fibo(data: Path) -> Fibo:
    return Fibo(data)


def test_every_statement_of_an_anonymous_node_of_fibo_is_in_what_refers_to_it(fibo: Fibo) -> None:
    named = {entity.iri: entity for entity in fibo.entities.values()}
    derived: dict[str, list[Triple]] = defaultdict(list)
    for triple in fibo.triples:
        if triple.properties:
            derived[triple.head].append(triple)
    languages = tuple(f"http://www.w3.org/{name}#" for name in ("2002/07/owl", "2000/01/rdf-schema"))
    checked: Counter[str] = Counter()
    for iri, rows in fibo.said.items():
        for node in {said for _, said, kind in rows if kind == "blank" and not iri.startswith("_:")}:
            entity = named[iri]
            tails = {fibo.entities[triple.tail].iri for triple in derived[entity.id]}
            relations = {triple.relation for triple in derived[entity.id]}
            relations |= {name for triple in derived[entity.id] for name in triple.properties.get("via", ())}
            for predicate, said, kind in fibo.below(node):
                name, lines = local_name(predicate), " | ".join(entity.tail)
                checked[name] += 1
                if kind == "literal":
                    counts = {triple.properties.get("n") for triple in derived[entity.id]}
                    assert f"{name}={said}" in lines or int(said) in counts, (iri, predicate, said)
                elif name == "onProperty" and kind == "iri":
                    relation = named[said].properties.get("relation", upper_snake(local_name(said)))
                    assert relation in relations or f" {named[said].id} " in lines, (iri, said)
                elif kind == "iri" and "XMLSchema#" in said:
                    assert f"{name}=xsd:{local_name(said)}" in lines, (iri, predicate, said)
                elif kind == "iri" and not (name in ("type", "rest") and said.startswith((*languages, RDF))):
                    assert said in tails, (iri, predicate, said)
    assert checked["onProperty"] > 2000
    assert checked["first"] > 200


def test_the_words_of_the_annotation_vocabulary_on_real_fibo(fibo: Fibo) -> None:
    """What the hand-written tests say of one statement, of all of them."""
    names = {(name.text, name.kind) for entity in fibo.entities.values() for name in entity.names}
    rows = [row for rows in fibo.said.values() for row in rows]
    for word, kind in (("synonym", "syn"), ("abbreviation", "abbr"), ("commonDesignation", "syn")):
        texts = {text for predicate, text, _ in rows if local_name(predicate) == word}
        assert len(texts) > 20, word
        assert {(text, kind) for text in texts} <= names
    lines = {line for entity in fibo.entities.values() for line in entity.tail}
    for word in ("explanatoryNote", "adaptedFrom", "usageNote"):
        assert len([line for line in lines if line.startswith(f"cmns:{word}=")]) > 20, word
    mature = {triple.tail for triple in fibo.triples if triple.relation == "HAS_MATURITY_LEVEL"}
    assert {local_name(fibo.entities[level].iri) for level in mature} == {"Release", "Provisional", "Informative"}
    deprecated = [entity for entity in fibo.entities.values() if "Deprecated" in entity.kinds]
    assert len(deprecated) > 50
    assert any(entity.definition for entity in deprecated)


def test_what_was_seen_is_new_once() -> None:
    seen = Seen()
    assert seen.new(["b", "a", "b"]) == ["b", "a"]
    assert seen.new(["c", "a", "b", "c"]) == ["c"]
    assert seen.new([]) == []
    assert seen.new([str(number) for number in range(1000)] + ["c"]) == [str(number) for number in range(1000)]


def test_the_report_accounts_for_every_statement(mapped: Callable[[str], Mapped]) -> None:
    graph = mapped(
        'ex:a a owl:Class , ex:M ; rdfs:label "a" , "a" ; skos:definition "x" ; ex:n 1 ; ex:m 1 , 2 ;'
        " owl:deprecated true ;"
        " ex:p ex:b , [ ex:q ex:c ] . ex:a ex:p ex:b . [] ex:q ex:c ; ex:r ex:d ."
    )
    report = graph.report.as_json()
    assert report["read"] == 15
    assert report["kept"] == {
        "definition": 1,
        "folded into derived relationships": 1,
        "name": 1,
        "node label": 2,
        "property": 1,
        "relationship": 2,
        "relationship of an anonymous node": 1,
        "tail": 2,
    }
    assert report["skipped"]["stated more than once"] == 2
    assert sum(report["skipped"].values()) == 4
    assert (report["balances"], report["quarantined"]) == (True, 0)
