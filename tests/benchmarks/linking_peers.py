"""Ways to find names in text, each a function that makes an index of names.tsv in a folder and one that loads it.

Everything is imported where it is used, so that a process has only the memory of the system that it is about.
"""

import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

K = 30
"""Candidates of an unseen string; scispaCy's default."""
JACCARD, FUZZY_JACCARD = 0.9, 0.7
"""Of QuickUMLS in texts, and for unseen strings: 0.7, its default, is 7 times as slow and less exact in texts."""
EF_CONSTRUCTION = 200
"""Of scispaCy's index; its own value, 2000, takes hours."""
SNAPSHOT = "v1"
Doc: TypeAlias = Mapping[str, Any]
"""``text`` and ``mentions``, the strings that a system without mention detection is given."""
Found: TypeAlias = Sequence[Any]


class Loaded(NamedTuple):
    """What can be asked of a system."""

    match: Callable[[Doc], Found]
    """Names found in a text."""
    candidates: Callable[[str], list[str]] | None = None
    """Entities for one string, K at most."""


@dataclass(frozen=True)
class System:
    """A way to find names."""

    title: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    """Imported before memory is first looked at."""
    load: Callable[[Path], Loaded]
    build: Callable[[Path], Mapping[str, Any] | None] | None = None
    """Says what its parts took; None where an index cannot be saved: then ``load`` builds it from the names."""
    note: str = ""


def read_names(folder: Path) -> Iterator[list[str]]:
    """Rows of (entity, name, kind)."""
    with (folder / "names.tsv").open(encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")


def peak_mb() -> int:
    """Resident at most; ``getrusage`` would count what the parent had before this program began."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def build_ours(folder: Path) -> Mapping[str, Any]:
    from linking_names import write_names_snapshot

    from kg.linking import Linker

    before = time.process_time()
    write_names_snapshot(folder, folder / SNAPSHOT)
    snapshot = {"snapshot_cpu_s": round(time.process_time() - before, 1), "snapshot_peak_mb": peak_mb()}
    Linker.load(folder / SNAPSHOT)  # compiles the names
    return snapshot


def load_ours(folder: Path, ranker: Path | None = None) -> Loaded:
    linker = _linker(folder / SNAPSHOT, ranker)

    def candidates(string: str) -> list[str]:
        linker.max_candidates = K  # not before, since texts are linked with the default
        return [candidate.id for candidate in linker.candidates(string)]

    return Loaded(lambda doc: linker.link(doc["text"]), candidates)


def load_ours_matching(folder: Path, ranker: Path | None = None) -> Loaded:
    return Loaded(partial(ours_matching, _linker(folder / SNAPSHOT, ranker)))


def ours_matching(linker: Any, doc: Doc) -> Found:
    """Mentions without ranking, by what there is for it inside the linker."""
    from kg.linking.tokens import tokens_of

    return list(linker._reader.proposals(tokens_of(doc["text"])))


def _linker(snapshot: Path, ranker: Path | None) -> Any:
    from kg.linking import Linker

    return Linker.load(snapshot, **({"ranker": ranker} if ranker else {}))


def build_spacy(folder: Path) -> None:
    import spacy
    from spacy.matcher import PhraseMatcher

    nlp = spacy.blank("en")
    matcher = PhraseMatcher(nlp.vocab, attr="LOWER")
    for entity, name, _ in read_names(folder):
        matcher.add(entity, [nlp.make_doc(name)])
    (folder / "index.pickle").write_bytes(pickle.dumps((nlp.vocab, matcher)))


def load_spacy(folder: Path) -> Loaded:
    import spacy
    from spacy.util import filter_spans

    vocab, matcher = _unpickle(folder)
    nlp = spacy.blank("en", vocab=vocab)
    return Loaded(lambda doc: filter_spans(matcher(nlp.make_doc(doc["text"]), as_spans=True)))


def build_quickumls(folder: Path) -> None:
    from quickumls.install import parse_and_encode_ngrams

    for flag, value in {"lowercase": "", "language": "ENG", "database_backend": "unqlite"}.items():
        (folder / f"{flag}.flag").write_text(value)
    terms = sorted({(name.lower(), entity) for entity, name, _ in read_names(folder)})
    rows = ((name, entity, {"T047"}, 1) for name, entity in terms)
    parse_and_encode_ngrams(rows, str(folder / "umls-simstring.db"), str(folder / "cui-semtypes.db"), "unqlite")


def load_quickumls(folder: Path) -> Loaded:
    """With spaCy's blank English for its tagger and spaCy's stop words for NLTK's: both are downloads."""
    import nltk
    import spacy
    from quickumls import QuickUMLS
    from spacy.lang.en.stop_words import STOP_WORDS

    nltk.corpus.stopwords = SimpleNamespace(words=lambda *_: sorted(STOP_WORDS))
    spacy.load = lambda _: spacy.blank("en")
    matcher = QuickUMLS(str(folder), threshold=JACCARD, similarity_name="jaccard")

    def candidates(string: str) -> list[str]:
        matcher.ss_db.db.threshold = FUZZY_JACCARD
        found = matcher._get_all_matches([(0, len(string), string)])
        return list(dict.fromkeys(match["cui"] for match in found[0]))[:K] if found else []

    return Loaded(lambda doc: matcher.match(doc["text"]), candidates)


def build_flashtext(folder: Path) -> None:
    from flashtext import KeywordProcessor

    processor = KeywordProcessor()
    for entity, name, _ in read_names(folder):
        processor.add_keyword(name, entity)
    sys.setrecursionlimit(100_000)  # a dictionary of dictionaries, as deep as the longest name
    (folder / "index.pickle").write_bytes(pickle.dumps(processor))


def load_flashtext(folder: Path) -> Loaded:
    processor = _unpickle(folder)
    return Loaded(lambda doc: processor.extract_keywords(doc["text"], span_info=True))


def load_flashtext2(folder: Path) -> Loaded:
    from flashtext2 import KeywordProcessor

    processor = KeywordProcessor(case_sensitive=False)
    processor.add_keywords_with_clean_word_from_iter((name, entity) for entity, name, _ in read_names(folder))
    return Loaded(lambda doc: processor.extract_keywords_with_span(doc["text"]))


def build_ahocorasick(folder: Path) -> None:
    import ahocorasick

    automaton = ahocorasick.Automaton()
    for entity, name, _ in read_names(folder):
        automaton.add_word(name.lower(), (len(name.lower()), entity))
    automaton.make_automaton()
    automaton.save(str(folder / "automaton"), pickle.dumps)


def load_ahocorasick(folder: Path) -> Loaded:
    import ahocorasick

    automaton = ahocorasick.load(str(folder / "automaton"), pickle.loads)

    def match(doc: Doc) -> Found:
        text = doc["text"].lower()
        return longest(text, ((end + 1 - size, end + 1, entity) for end, (size, entity) in automaton.iter(text)))

    return Loaded(match)


def load_ahocorasick_rs(folder: Path) -> Loaded:
    from ahocorasick_rs import AhoCorasick, Implementation

    entities = {name.lower(): entity for entity, name, _ in read_names(folder)}
    automaton, of = AhoCorasick(entities, implementation=Implementation.ContiguousNFA), list(entities.values())

    def match(doc: Doc) -> Found:
        text = doc["text"].lower()
        found = automaton.find_matches_as_indexes(text, overlapping=True)
        return longest(text, ((start, end, of[key]) for key, start, end in found))

    return Loaded(match)


def longest(text: str, found: Iterator[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Leftmost longest of what is found on word boundaries."""
    chosen, position = [], 0
    for start, end, entity in sorted(found, key=lambda span: (span[0], -span[1])):
        if start < position or (start and text[start - 1].isalnum() and text[start].isalnum()):
            continue
        if end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
            continue
        chosen.append((start, end, entity))
        position = end
    return chosen


def build_scispacy(folder: Path) -> None:
    """As ``create_tfidf_ann_index`` does, which refuses the scipy of Python 3.11; vectors keep their 32-bit floats."""
    import joblib
    import nmslib
    import numpy as np
    import scipy.sparse
    from scispacy.candidate_generation import LinkerPaths
    from sklearn.feature_extraction.text import TfidfVectorizer

    aliases: dict[str, dict[str, Any]] = {}
    for entity, name, _ in read_names(folder):
        aliases.setdefault(entity, {"concept_id": entity, "canonical_name": name, "aliases": []})["aliases"].append(
            name
        )
    (folder / "kb.jsonl").write_text("".join(json.dumps(row) + "\n" for row in aliases.values()))
    strings = list(dict.fromkeys(name for _, name, _ in read_names(folder)))
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), min_df=10, dtype=np.float32)
    vectors = vectorizer.fit_transform(strings)
    kept = np.flatnonzero(vectors.getnnz(axis=1))
    index = nmslib.init(method="hnsw", space="cosinesimil_sparse", data_type=nmslib.DataType.SPARSE_VECTOR)
    index.addDataPointBatch(vectors[kept])
    index.createIndex({"M": 100, "indexThreadQty": 1, "efConstruction": EF_CONSTRUCTION, "post": 0})
    paths = LinkerPaths.from_directory(folder)
    index.saveIndex(paths.ann_index)
    joblib.dump(vectorizer, paths.tfidf_vectorizer)
    scipy.sparse.save_npz(paths.tfidf_vectors, vectors[kept])
    Path(paths.concept_aliases_list).write_text(json.dumps([strings[row] for row in kept]))


def load_scispacy(folder: Path) -> Loaded:
    from scispacy.candidate_generation import CandidateGenerator, LinkerPaths
    from scispacy.linking_utils import KnowledgeBase

    aliases, vectorizer, index = LinkerPaths.from_directory(folder).load()
    on_one_thread = SimpleNamespace(knnQueryBatch=partial(index.knnQueryBatch, num_threads=1))  # it would use all cores
    generator = CandidateGenerator(on_one_thread, vectorizer, aliases, KnowledgeBase(str(folder / "kb.jsonl")))

    def candidates(string: str) -> list[str]:
        best = sorted(generator([string], K)[0], key=lambda candidate: -max(candidate.similarities))
        return [candidate.concept_id for candidate in best]

    return Loaded(lambda doc: [found for found in generator(list(doc["mentions"]), K) if found], candidates)


SYSTEMS: Mapping[str, System] = {
    "ours": System("kgfuse, links", (), ("kg.linking",), load_ours, build_ours),
    "ours-matching": System("kgfuse, mentions alone", (), ("kg.linking",), load_ours_matching, build_ours),
    "spacy": System("spaCy PhraseMatcher, LOWER", ("spacy",), ("spacy",), load_spacy, build_spacy),
    "quickumls": System(
        f"QuickUMLS, jaccard {JACCARD}",
        ("quickumls", "quickumls-simstring"),
        ("spacy", "nltk", "quickumls.install"),
        load_quickumls,
        build_quickumls,
        f"no tagger; unseen strings with jaccard {FUZZY_JACCARD}",
    ),
    "flashtext": System("FlashText", ("flashtext",), ("flashtext",), load_flashtext, build_flashtext),
    "flashtext2": System("flashtext2", ("flashtext2",), ("flashtext2",), load_flashtext2),
    "ahocorasick": System("pyahocorasick", ("pyahocorasick",), ("ahocorasick",), load_ahocorasick, build_ahocorasick),
    "ahocorasick-rs": System("ahocorasick-rs", ("ahocorasick-rs",), ("ahocorasick_rs",), load_ahocorasick_rs),
    "scispacy": System(
        "scispaCy candidates",
        ("scispacy", "nmslib-metabrainz"),
        ("scispacy.candidate_generation",),
        load_scispacy,
        build_scispacy,
        f"given the mentions of each text; efConstruction {EF_CONSTRUCTION}, not 2000",
    ),
}


def _unpickle(folder: Path) -> Any:
    with (folder / "index.pickle").open("rb") as stream:
        return pickle.load(stream)
