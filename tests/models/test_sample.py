"""The sample in ``models/recipes/sample`` keeps what its README promises: the default run rests on it."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyoxigraph as ox
import pytest

from models.corpus import read_corpus
from models.data import read_task
from models.recipe import RECIPES

SAMPLE = RECIPES / "sample"
SPACE = "https://kgfuse.example/sample/"
FIBO = "https://spec.edmcouncil.org/fibo/ontology/"
OWL = "http://www.w3.org/2002/07/owl#"
TYPE = ox.NamedNode("http://www.w3.org/1999/02/22-rdf-syntax-ns#type")
LABEL = ox.NamedNode("http://www.w3.org/2000/01/rdf-schema#label")
SUBCLASS = ox.NamedNode("http://www.w3.org/2000/01/rdf-schema#subClassOf")
ALIAS = ox.NamedNode("http://www.w3.org/2004/02/skos/core#altLabel")
DEFINITION = ox.NamedNode("http://www.w3.org/2004/02/skos/core#definition")
INDIVIDUAL, CLASS, PROPERTY = (ox.NamedNode(OWL + name) for name in ("NamedIndividual", "Class", "ObjectProperty"))
AUDITED = ox.NamedNode(SPACE + "isAuditedBy")

CLASSES_OF_DESK = {
    "banking": {"Bank", "CommercialBank", "InvestmentBank", "BankHoldingCompany", "CreditUnion"},
    "insurance": {"InsuranceCompany"},
    "funds": {"ManagementCompany", "FundManager", "InvestmentCompany"},
    "markets": {
        "RegulatedExchange",
        "MultilateralTradingFacility",
        "CentralCounterpartyClearingHouse",
        "ClearingHouse",
        "CentralSecuritiesDepository",
        "SwapDataRepository",
    },
    "corporate": {"PubliclyHeldCompany", "PrivatelyHeldCompany"},
}
TELLING = re.compile(
    r"\b(banks?|bank(ing|er)s?|lend\w*|lent|loans?|mortgages?|deposit\w*|branch(es)?|credits?|savers?|savings|borrow\w*"
    r"|insur\w*|reinsur\w*|premiums?|claims?|polic(y|ies)|policyholders?|underw\w*|annuit\w*|actuar\w*"
    r"|funds?|portfolios?|assets?|investors?|fees?|trackers?|redemptions?"
    r"|exchanges?|clear(ing|s)|venues?|listings?|margins?|settle\w*|trad(e|es|ed|ing)|brokers?|depositor\w*"
    r"|ships?|shipping|vessels?|drugs?|stores?|oil|factor(y|ies)|mines?|airlines?|vans?|milk)\b",
    re.IGNORECASE,
)
"""Words that would give the desk away; no sentence whose desk rests on the entity alone may have one."""


@pytest.fixture(scope="module")
def graph() -> ox.Store:
    store = ox.Store()
    store.load(path=str(SAMPLE / "graph.ttl"), format=ox.RdfFormat.TURTLE)
    return store


@pytest.fixture(scope="module")
def sentences() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLE / "sentences.jsonl").read_text(encoding="utf-8").splitlines()]


def subjects(graph: ox.Store, kind: ox.NamedNode) -> set[str]:
    return {quad.subject.value for quad in graph.quads_for_pattern(None, TYPE, kind, None)}


def literals(graph: ox.Store, subject: str, predicate: ox.NamedNode) -> list[str]:
    return [quad.object.value for quad in graph.quads_for_pattern(ox.NamedNode(subject), predicate, None, None)]


def desks_of_companies(graph: ox.Store) -> dict[str, str]:
    """Company IRI → desk, by class; a listed bank is also a publicly held company, so that class decides last."""
    desks = {}
    for company in {quad.subject.value for quad in graph.quads_for_pattern(None, AUDITED, None, None)}:
        classes = {iri.rsplit("/", 1)[-1] for iri in literals(graph, company, TYPE)}
        desks[company] = next(desk for desk, known in CLASSES_OF_DESK.items() if classes & known)
    return desks


def entity_ids(rows: list[dict[str, Any]], split: str) -> set[str]:
    return {span["id"] for row in rows if row["split"] == split for span in row["entities"] if span["id"]}


def test_graph_is_as_large_and_dense_as_promised_and_stays_compact(graph: ox.Store) -> None:
    individuals = subjects(graph, INDIVIDUAL)
    relations = [
        quad
        for quad in graph
        if quad.subject.value in individuals and isinstance(quad.object, ox.NamedNode) and quad.predicate != TYPE
    ]
    assert len(individuals) >= 320
    assert len(relations) >= 900
    assert {quad.object.value for quad in relations} <= individuals
    assert (SAMPLE / "graph.ttl").stat().st_size < 250_000


def test_individuals_get_curies_of_the_prefix_that_the_sentences_use() -> None:
    parser = ox.parse(path=str(SAMPLE / "graph.ttl"), format=ox.RdfFormat.TURTLE)
    list(parser)
    assert parser.prefixes["sample"] == SPACE
    assert not any(space.startswith(FIBO) for prefix, space in parser.prefixes.items() if prefix)


def test_everything_in_the_graph_is_declared_and_named(graph: ox.Store) -> None:
    individuals, classes, properties = (subjects(graph, kind) for kind in (INDIVIDUAL, CLASS, PROPERTY))
    for subject in individuals | classes | properties:
        assert len(literals(graph, subject, LABEL)) == 1, subject
    for subject in classes | properties:
        assert len(literals(graph, subject, DEFINITION)) == 1, subject
    used_types = {iri for subject in individuals for iri in literals(graph, subject, TYPE)}
    assert used_types - {INDIVIDUAL.value} <= classes
    vocabulary = {TYPE.value, LABEL.value, SUBCLASS.value, ALIAS.value, DEFINITION.value}
    assert {quad.predicate.value for quad in graph} - vocabulary == properties


def test_companies_of_every_group_have_short_names_and_a_definition(graph: ox.Store) -> None:
    desks = desks_of_companies(graph)
    assert min(Counter(desks.values()).values()) >= 12
    assert set(Counter(desks.values())) == set(CLASSES_OF_DESK)
    for company in desks:
        assert literals(graph, company, ALIAS), company
        assert len(literals(graph, company, DEFINITION)) == 1, company


def test_about_half_of_the_definitions_do_not_name_the_group(graph: ox.Store) -> None:
    words = {
        "banking": "bank|lender",
        "insurance": "insur",
        "funds": "fund|asset|invest",
        "markets": "exchang|deposito",
    }
    silent = defaultdict(list)
    for company, desk in desks_of_companies(graph).items():
        if desk in words:
            silent[desk].append(not re.search(words[desk], literals(graph, company, DEFINITION)[0], re.IGNORECASE))
    for desk, found in silent.items():
        assert 0.4 <= sum(found) / len(found) <= 0.7, desk


def test_some_short_names_belong_to_two_entities_of_different_desks(graph: ox.Store) -> None:
    desks = desks_of_companies(graph)
    bearers: dict[str, set[str]] = defaultdict(set)
    for subject in subjects(graph, INDIVIDUAL):
        for name in literals(graph, subject, ALIAS) + literals(graph, subject, LABEL):
            bearers[name].add(subject)
    shared = [found for found in bearers.values() if len(found) > 1]
    assert len(shared) >= 8
    assert sum(len({desks[company] for company in found if company in desks}) > 1 for found in shared) >= 6


def test_fibo_and_commons_know_the_classes_and_properties(graph: ox.Store, data: Path) -> None:
    known = ox.Store()
    for folder in ("fibo_2026-07", "omg_commons_lcc"):
        for file in sorted((data / "kg" / folder).rglob("*.rdf")):
            known.bulk_load(path=str(file), format=ox.RdfFormat.RDF_XML, base_iri=f"file:///{file.name}")
    ours = {iri for kind in (CLASS, PROPERTY) for iri in subjects(graph, kind) if not iri.startswith(SPACE)}
    for iri in ours:
        assert literals(graph, iri, LABEL)[0] in literals(known, iri, LABEL), iri
    stated = {(quad.subject, quad.object) for quad in known.quads_for_pattern(None, SUBCLASS, None, None)}
    assert {(quad.subject, quad.object) for quad in graph.quads_for_pattern(None, SUBCLASS, None, None)} <= stated


def test_sentences_are_unique_and_as_many_as_promised_in_each_split(sentences: list[dict[str, Any]]) -> None:
    assert len(sentences) >= 420
    assert len({row["text"] for row in sentences}) == len({row["id"] for row in sentences}) == len(sentences)
    splits = Counter(row["split"] for row in sentences)
    assert splits["train"] >= 250
    assert splits["validation"] >= 60
    assert splits["test"] >= 110
    assert set(splits) == {"train", "validation", "test"}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_desks_and_the_need_for_the_entity_are_balanced(sentences: list[dict[str, Any]], split: str) -> None:
    rows = [row for row in sentences if row["split"] == split]
    desks = Counter(row["label"] for row in rows)
    assert set(desks) == set(CLASSES_OF_DESK)
    assert max(desks.values()) <= 1.1 * min(desks.values())
    for desk in desks:
        needs = [row["needs_entity"] for row in rows if row["label"] == desk]
        assert 0.45 <= sum(needs) / len(needs) <= 0.58


def test_spans_lie_in_the_text_in_order_and_name_what_the_graph_calls_so(
    sentences: list[dict[str, Any]], graph: ox.Store
) -> None:
    individuals = subjects(graph, INDIVIDUAL)
    for row in sentences:
        end = 0
        for span in row["entities"]:
            assert end <= span["start"] < span["end"] <= len(row["text"]), row["id"]
            end = span["end"]
            surface = row["text"][span["start"] : end]
            assert surface == surface.strip()
            assert span["type"] in {"ORG", "INSTRUMENT", "PERSON", "PLACE"}
            if span["id"] is not None:
                iri = SPACE + span["id"].removeprefix("sample:")
                assert iri in individuals, span["id"]
                names = {name.casefold() for name in literals(graph, iri, LABEL) + literals(graph, iri, ALIAS)}
                assert surface.casefold() in names, (row["id"], surface)


def test_some_sentences_have_no_known_entity_and_some_mentions_are_unknown(sentences: list[dict[str, Any]]) -> None:
    assert sum(not row["entities"] for row in sentences) >= 50
    assert sum(span["id"] is None for row in sentences for span in row["entities"]) >= 20


def test_desk_of_an_entity_dependent_sentence_is_that_of_its_company(
    sentences: list[dict[str, Any]], graph: ox.Store
) -> None:
    desks = desks_of_companies(graph)
    for row in sentences:
        assert (row["about"] is not None) == row["needs_entity"]
        if row["needs_entity"]:
            assert row["about"] in {span["id"] for span in row["entities"]}, row["id"]
            assert desks[SPACE + row["about"].removeprefix("sample:")] == row["label"], row["id"]


def test_wording_of_an_entity_dependent_sentence_does_not_tell_the_desk(sentences: list[dict[str, Any]]) -> None:
    told = [
        (row["id"], match[0]) for row in sentences if row["needs_entity"] and (match := TELLING.search(row["text"]))
    ]
    assert told == []


def test_most_entity_dependent_test_sentences_are_about_companies_never_trained_on(
    sentences: list[dict[str, Any]],
) -> None:
    trained = entity_ids(sentences, "train")
    about = [row["about"] for row in sentences if row["split"] == "test" and row["needs_entity"]]
    assert sum(company not in trained for company in about) / len(about) >= 0.4


def test_corpus_is_new_text_that_names_no_company_kept_for_testing(
    sentences: list[dict[str, Any]], graph: ox.Store
) -> None:
    corpus = list(read_corpus(SAMPLE / "corpus.txt"))
    assert len(set(corpus)) == len(corpus) >= 150
    assert not set(corpus) & {row["text"] for row in sentences}
    names = {
        subject: literals(graph, subject, LABEL) + literals(graph, subject, ALIAS)
        for subject in subjects(graph, INDIVIDUAL)
    }
    kept = {
        SPACE + row["about"].removeprefix("sample:") for row in sentences if row["about"] and row["split"] == "test"
    }
    kept -= {SPACE + one.removeprefix("sample:") for one in entity_ids(sentences, "train")}
    open_names = {name for subject, found in names.items() if subject not in kept for name in found}
    mentioning = 0
    for text in corpus:
        known = [name for name in open_names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
        mentioning += bool(known)
        rest = text
        for name in sorted(known, key=len, reverse=True):
            rest = rest.replace(name, "")
        for company in kept:
            for name in names[company]:
                assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", rest), (name, text)
    assert mentioning >= 150


@pytest.mark.parametrize("reader", ["sample_desks", "sample_tags"])
def test_readers_give_every_sentence_in_its_split(sentences: list[dict[str, Any]], reader: str) -> None:
    splits = read_task(reader, SAMPLE / "sentences.jsonl")
    for name in ("train", "validation", "test"):
        assert len(getattr(splits, name)) == sum(row["split"] == name for row in sentences)


def test_tags_begin_once_for_each_span(sentences: list[dict[str, Any]]) -> None:
    splits = read_task("sample_tags", SAMPLE / "sentences.jsonl")
    tags = Counter(tag for example in (*splits.train, *splits.validation, *splits.test) for tag in example.tags)
    spans = Counter(span["type"] for row in sentences for span in row["entities"])
    assert {tag[2:]: count for tag, count in tags.items() if tag.startswith("B-")} == spans
