"""Short names for IRIs: CURIEs for entities, UPPER_SNAKE types for predicates, keys for literals."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc

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


class Curies:
    """CURIEs of the IRIs of a release, each unique and the same in whatever order the IRIs come.

    Where two IRIs of a prefix end alike, both get the step before: ``fibo:Relations.hasTag``; an IRI of no known
    namespace is its own id. Show all IRIs to ``look``, then, if any ``are_crowded``, all of them again to ``compare``,
    then ``settle``. Only IRIs that could end like another are remembered: within one namespace those without a further
    ``/`` or ``#`` cannot.
    """

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        """Args:
        prefixes: prefix → namespace as declared by the files; ``WELL_KNOWN`` goes first.
        """
        spaces = {**{space: prefix for prefix, space in sorted(prefixes.items()) if prefix and space}, **WELL_KNOWN}
        self._spaces = {space: spaces[space] for space in sorted(spaces, key=len, reverse=True)}
        self._open_ended = tuple(space for space in self._spaces if space[-1] not in "/#")
        self._space_of = lru_cache(1 << 16)(self._longest_space)
        self._used: dict[str, set[str]] = defaultdict(set)
        self._crowded: set[str] = set()
        self._compared: list[pa.Array] = []
        self._told_apart: dict[str, str] = {}

    def __call__(self, iri: str) -> str:
        return self._told_apart.get(iri) or self._plain(iri)

    def look(self, iris: pa.Array) -> None:
        """Learn which namespaces hold IRIs that may end alike."""
        for head in pc.unique(pc.replace_substring_regex(iris, pattern="[^/#]+$", replacement="")).to_pylist():
            space = self._space_of(head)
            if space:
                prefix = self._spaces[space]
                self._used[prefix].add(space)
                if space != head or len(self._used[prefix]) > 1 or head.startswith(self._open_ended):
                    self._crowded.add(prefix)
        for space in self._open_ended:
            self._crowded.add(self._spaces[space])
        # an IRI that ends as a namespace does is no member of it, but one of the namespace before
        ends = pc.or_(pc.ends_with(iris, "/"), pc.ends_with(iris, "#"))
        self._crowded |= {self._prefix(iri) for iri in pc.unique(iris.filter(ends)).to_pylist()}
        self._crowded.discard("")

    @property
    def are_crowded(self) -> bool:
        return bool(self._crowded)

    def compare(self, iris: pa.Array) -> None:
        """Remember those that may end like others."""
        found = [iri for iri in pc.unique(iris).to_pylist() if self._prefix(iri) in self._crowded]
        self._compared.append(pa.array(found, pa.string()))

    def settle(self) -> None:
        """Give those that end alike CURIEs of their own."""
        iris = pc.unique(pa.chunked_array(self._compared, pa.string()))
        self._compared.clear()
        short = pa.array(map(self._plain, iris.to_pylist()), pa.string())
        counts = short.value_counts()
        shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        claims: dict[str, list[str]] = defaultdict(list)
        for iri in iris.filter(pc.is_in(short, value_set=shared)).to_pylist():
            claims[self._plain(iri)].append(iri)
        longer = {iri: _with_step_before(curie, iri) for curie, claimants in claims.items() for iri in claimants}
        asked = pa.array(longer.values(), pa.string())
        taken = Counter(longer.values()) + Counter(asked.filter(pc.is_in(asked, value_set=short)).to_pylist())
        self._told_apart = {iri: curie if taken[curie] == 1 else iri for iri, curie in longer.items()}

    def _plain(self, iri: str) -> str:
        cut = max(iri.rfind("/"), iri.rfind("#")) + 1
        if cut == len(iri) or iri.startswith(self._open_ended):
            prefix, name = self._prefix(iri), local_name(iri)
        else:
            space = self._space_of(iri[:cut])
            prefix, name = self._spaces[space] if space else "", iri[cut:]
        return f"{prefix}:{name}" if prefix else iri

    def _prefix(self, iri: str) -> str:
        """Prefix of the longest namespace that the IRI is a member of; empty where there is none."""
        cut = max(iri.rfind("/"), iri.rfind("#")) + 1
        if cut < len(iri) and not iri.startswith(self._open_ended):
            space = self._space_of(iri[:cut])
        else:
            space = next((space for space in self._spaces if iri.startswith(space) and iri != space), "")
        return self._spaces[space] if space else ""

    def _longest_space(self, head: str) -> str:
        return next((space for space in self._spaces if head.startswith(space)), "")


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


def _with_step_before(curie: str, iri: str) -> str:
    body = iri.rstrip("/#")
    cut = max(body.rfind("/"), body.rfind("#"))
    prefix, name = curie.split(":", 1)
    return f"{prefix}:{local_name(body[:cut].rstrip('/#')) if cut > 0 else ''}.{name}"
