"""From a corpus to the two tables that ``python -m ingest load table`` reads."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import Progress

from ingest.mining.corpus import Sentence, find_corpus, sentences
from ingest.mining.relations import Edge, find_relations
from ingest.mining.terms import Term, Words, find_terms
from ingest.sources.reading import slug
from kg.errors import ConfigError, InputError

EVIDENCE = ("mined", "method", "count", "score", "document", "example")
"""Properties of each relationship."""
MAX_EXAMPLE = 300
Row: TypeAlias = Sequence[object]


def mine(paths: Sequence[Path], out: Path, *, limit: int, min_count: int, spacy_model: str | None) -> tuple[int, int]:
    """Write ``names.tsv`` and ``edges.tsv`` to ``out``; the same corpus gives the same bytes.

    Returns:
        How many terms and relations.

    Raises:
        InputError: a file cannot be read, or no term is in them; nothing is written.
        ConfigError: ``out`` cannot be written, or there is no such spaCy pipeline.
    """
    files = find_corpus(paths)
    with _reading("terms", files) as found:
        terms = find_terms(found, limit=limit, min_count=min_count, spacy_model=spacy_model)
    if not terms:
        raise InputError(paths[0], f"no term occurs {min_count} times in it; give more text, or a lower --min-count")
    with _reading("relations", files) as found:
        edges = find_relations(found, terms, min_count=min_count)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out) as work:
            for name, rows in (("names.tsv", _names(terms)), ("edges.tsv", _edges(edges))):
                text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
                (Path(work) / name).write_text(text, encoding="utf-8")
            for name in ("names.tsv", "edges.tsv"):
                (Path(work) / name).replace(out / name)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); name another folder with --out.") from error
    return len(terms), len(edges)


@contextmanager
def _reading(what: str, files: Sequence[Path]) -> Iterator[Iterable[Sentence]]:
    """The sentences, under a bar of the bytes that have been read."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=sum(file.stat().st_size for file in files))
        yield sentences(files, lambda count: progress.advance(task, count))


def _names(terms: dict[Words, Term]) -> Iterator[Row]:
    yield "id", "name", "kind", "source"
    for key, term in terms.items():
        yield slug(" ".join(key)), term.name, "P", "mined"
        for form in dict.fromkeys(" ".join(form) for form in term.forms):
            if form != term.name:
                yield slug(" ".join(key)), form, "S", "mined"


def _edges(edges: Sequence[Edge]) -> Iterator[Row]:
    yield "head", "tail", "relation", *EVIDENCE
    for edge in edges:
        ends = slug(" ".join(edge.head)), slug(" ".join(edge.tail))
        example = (edge.example.document, edge.example.text[:MAX_EXAMPLE]) if edge.example else ("", "")
        score = f"{edge.score:.2f}" if edge.score else ""
        yield *ends, edge.relation, "true", ", ".join(sorted(edge.methods)), edge.count, score, *example
