"""Short names for IRIs: CURIEs for entities, UPPER_SNAKE types for predicates, keys for literals."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b

WELL_KNOWN: Mapping[str, str] = {
    "https://spec.edmcouncil.org/fibo/ontology/": "fibo",
    "https://www.omg.org/spec/Commons/": "cmns",
    "https://www.omg.org/spec/LCC/": "lcc",
    "http://www.w3.org/2002/07/owl#": "owl",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "http://www.w3.org/2000/01/rdf-schema#": "rdfs",
    "http://www.w3.org/2001/XMLSchema#": "xsd",
    "http://www.w3.org/2004/02/skos/core#": "skos",
    "http://purl.org/dc/terms/": "dct",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://xmlns.com/foaf/0.1/": "foaf",
    "https://schema.org/": "schema",
    "http://schema.org/": "schema",
    "http://www.wikidata.org/entity/": "wd",
    "http://www.wikidata.org/prop/direct/": "wdt",
    "http://purl.obolibrary.org/obo/": "obo",
    "https://uts.nlm.nih.gov/uts/umls/concept/": "umls",
    "http://purl.bioontology.org/ontology/STY/": "umls",
}
"""Namespaces whose prefix is fixed, whatever a file calls it."""


def local_name(iri: str) -> str:
    """What follows the last ``#`` or ``/``; an ontology's IRI keeps its closing slash."""
    body = iri.rstrip("/#")
    name = body[max(body.rfind("/"), body.rfind("#")) + 1 :]
    return name + "/" if iri.endswith(("/", "#")) else name


def curies(iris: Iterable[str], prefixes: Mapping[str, str]) -> dict[str, str]:
    """A CURIE for each IRI, the same whatever the order.

    Where two IRIs of a namespace end alike, both get the step before: ``fibo:Relations.hasTag``; an IRI of no known
    namespace is its own id.

    Args:
        prefixes: prefix → namespace as declared by the files; ``WELL_KNOWN`` goes first.
    """
    spaces = {**{space: prefix for prefix, space in sorted(prefixes.items()) if prefix and space}, **WELL_KNOWN}
    longest = sorted(spaces, key=len, reverse=True)
    short: dict[str, str] = {}
    claims: dict[str, list[str]] = defaultdict(list)
    for iri in sorted(set(iris)):
        space = next((space for space in longest if iri.startswith(space) and len(iri) > len(space)), None)
        if space is None:
            short[iri] = iri
        else:
            claims[f"{spaces[space]}:{local_name(iri)}"].append(iri)
    for curie, claimants in claims.items():
        if len(claimants) == 1:
            short[claimants[0]] = curie
            continue
        prefix, name = curie.split(":", 1)
        longer = {iri: f"{prefix}:{_step_before(iri)}.{name}" for iri in claimants}
        for iri in claimants:
            unique = list(longer.values()).count(longer[iri]) == 1 and longer[iri] not in claims
            short[iri] = longer[iri] if unique else iri
    return short


def relation_types(predicates: Mapping[str, str], taken: Collection[str] = ()) -> dict[str, str]:
    """``hasReferenceCurrency`` → ``HAS_REFERENCE_CURRENCY``; predicates that would share a type get longer ones.

    Args:
        predicates: IRI → CURIE.
        taken: types with a fixed meaning.
    """
    claims: dict[str, list[str]] = defaultdict(list)
    for iri in sorted(predicates):
        claims[upper_snake(local_name(iri))].append(iri)
    types = {claimants[0]: name for name, claimants in claims.items() if len(claimants) == 1 and name not in taken}
    longer = {iri: upper_snake(predicates[iri]) for iri in sorted(predicates) if iri not in types}
    used = Counter([*types.values(), *taken, *longer.values()])
    for iri, name in longer.items():
        types[iri] = name if used[name] == 1 else f"{name}_{blake2b(iri.encode(), digest_size=4).hexdigest().upper()}"
    return types


def upper_snake(name: str) -> str:
    """``isA-partOf`` → ``IS_A_PART_OF``; Wikidata's ``P17`` stays."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"\W+", "_", words).strip("_").upper() or "RELATED"


def _step_before(iri: str) -> str:
    body = iri.rstrip("/#")
    cut = max(body.rfind("/"), body.rfind("#"))
    return local_name(body[:cut].rstrip("/#")) if cut > 0 else ""
