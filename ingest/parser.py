"""Files of RDF to canonical statements, in a process of its own: a parser that crashes takes nothing with it.

The parent (``ingest.rdf``) starts ``python -m ingest.parser OUT`` with one file name a line on its standard input.
Statements go to ``OUT`` (Arrow IPC); what there is to say goes to standard output, one JSON object a line.
"""

import hashlib
import json
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyoxigraph as ox

from ingest.compression import PACKED, UNPACKING_ERRORS, open_bytes, unpacked_name
from ingest.screen import screen_xml
from kg.errors import InputError

SCHEMA = pa.schema(
    [
        ("subject", pa.string()),
        ("predicate", pa.string()),
        ("object", pa.string()),
        ("kind", pa.string()),
        ("language", pa.string()),
        ("datatype", pa.string()),
        ("sid", pa.binary(16)),
        ("file", pa.string()),
    ]
)
"""``kind`` of the object: ``iri``, ``blank`` or ``literal``. ``sid`` hashes the statement in N-Triples form."""

MAX_MEMORY, MAX_DECOMPRESSED, CHUNK = 8 << 30, 4 << 30, 1 << 20
FORMATS = {
    ".ttl": ox.RdfFormat.TURTLE,
    ".nt": ox.RdfFormat.N_TRIPLES,
    ".nq": ox.RdfFormat.N_QUADS,
    ".trig": ox.RdfFormat.TRIG,
    ".rdf": ox.RdfFormat.RDF_XML,
    ".owl": ox.RdfFormat.RDF_XML,
    ".xml": ox.RdfFormat.RDF_XML,
    ".jsonld": ox.RdfFormat.JSON_LD,
}
Bad: TypeAlias = Callable[[Path, int, str], None]


def rdf_suffix(path: Path) -> str:
    """``.ttl`` of ``a.ttl`` and of ``a.ttl.gz``."""
    return unpacked_name(path).suffix.lower()


def statements(path: Path, bad: Bad, prefixes: dict[str, str]) -> Iterator[ox.Triple]:
    """Triples of one file; ``bad`` is told of each line that is lost, ``prefixes`` gets what the file declares.

    Raises:
        InputError: the file cannot be read, is hostile, or does not parse (line-based formats go on after a bad line).
    """
    suffix = rdf_suffix(path)
    if suffix not in FORMATS:
        raise InputError(path, f"its ending is none of {', '.join(FORMATS)} (or those with .gz, .bz2, .zst)")
    content = _read(path)
    if suffix in (".nt", ".nq"):
        for line, block in _blocks(content):
            yield from _lines(path, block, line, FORMATS[suffix], bad)
        return
    if FORMATS[suffix] == ox.RdfFormat.RDF_XML:
        screen_xml(path, content)
    try:
        parser = ox.parse(content, format=FORMATS[suffix], base_iri=path.absolute().as_uri())
        for quad in parser:
            yield quad.triple
        prefixes.update(parser.prefixes)
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", None)
        raise InputError(path, f"{error.args[0] if error.args else error}", line=number) from error


def _read(path: Path) -> bytes:
    try:
        if path.suffix not in PACKED:
            return path.read_bytes()
        with open_bytes(path) as stream:
            content = bytearray()  # piece by piece: a buffered stream allocates at once all that it is asked for
            while len(content) <= MAX_DECOMPRESSED and (piece := stream.read(CHUNK)):
                content += piece
    except UNPACKING_ERRORS as error:
        raise InputError(path, f"cannot be read: {error}") from error
    if len(content) > MAX_DECOMPRESSED:
        raise InputError(path, f"unpacks to more than {MAX_DECOMPRESSED >> 30} GiB; refused")
    return bytes(content)


def _blocks(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about a chunk at a time, with the number of the first line."""
    start, line = 0, 1
    while start < len(content):
        end = content.find(b"\n", start + CHUNK)
        end = len(content) if end < 0 else end + 1
        yield line, content[start:end]
        line += content.count(b"\n", start, end)
        start = end


def _lines(path: Path, block: bytes, first: int, form: ox.RdfFormat, bad: Bad) -> Iterator[ox.Triple]:
    """A block of lines at once; line by line when one of them is bad, since the parser loses all that follows it."""
    try:
        yield from [quad.triple for quad in ox.parse(block, format=form)]
        return
    except (SyntaxError, ValueError, MemoryError):
        pass
    for number, line in enumerate(block.split(b"\n"), first):
        try:
            yield from [quad.triple for quad in ox.parse(line, format=form)]
        except (SyntaxError, ValueError, MemoryError) as error:
            bad(path, number, str(error.args[0] if error.args else error))


def rows_of(triples: list[ox.Triple], file: str) -> Iterator[dict[str, Any]]:
    """Canonical rows of one file, its blank nodes named by what they say."""
    names = blank_names(triples, file)
    for triple in triples:
        subject, predicate, object_ = triple.subject, triple.predicate, triple.object
        if isinstance(subject, ox.Triple) or isinstance(object_, ox.Triple):
            raise InputError(file, "holds a triple within a triple (RDF 1.2); expected RDF 1.1")
        row = {
            "subject": names[subject.value] if isinstance(subject, ox.BlankNode) else subject.value,
            "predicate": predicate.value,
            "object": object_.value,
            "kind": "iri",
            "language": None,
            "datatype": None,
            "file": file,
        }
        if isinstance(object_, ox.BlankNode):
            row |= {"kind": "blank", "object": names[object_.value]}
        elif isinstance(object_, ox.Literal):
            datatype = None if object_.language else object_.datatype.value
            row |= {"kind": "literal", "language": object_.language, "datatype": datatype}
        canonical = "\x1f".join(
            str(row[key] or "") for key in ("subject", "predicate", "kind", "object", "language", "datatype")
        )
        yield {**row, "sid": bytes.fromhex(_digest(canonical))}


def blank_names(triples: list[ox.Triple], file: str) -> dict[str, str]:
    """``_:h<hash>`` for each blank node: the hash of the tree below it, so that equal ones are equal in every release.

    In a cycle there is no bottom to start from; its nodes are named by file and order instead.
    """
    below: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    order: dict[str, int] = {}
    for triple in triples:
        for term in (triple.subject, triple.object):
            if isinstance(term, ox.BlankNode):
                order.setdefault(term.value, len(order))
        if isinstance(triple.subject, ox.BlankNode):
            below[triple.subject.value].append((triple.predicate.value, triple.object))
    names: dict[str, str] = {}

    def visit(start: str) -> None:
        stack: list[tuple[str, bool]] = [(start, False)]
        open_: set[str] = set()
        while stack:
            node, ready = stack.pop()
            if node in names:
                continue
            children = [o.value for _, o in below[node] if isinstance(o, ox.BlankNode)]
            if not ready:
                if any(child in open_ for child in children) or node in open_:
                    names[node] = "_:h" + _digest(f"{file} {order[node]}")
                    continue
                open_.add(node)
                stack.append((node, True))
                stack.extend((child, False) for child in children if child not in names)
                continue
            open_.discard(node)
            said = sorted(
                f"{predicate} {names[o.value] if isinstance(o, ox.BlankNode) else o}" for predicate, o in below[node]
            )
            names[node] = "_:h" + _digest("\n".join(said))

    for node in order:
        visit(node)
    return names


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    sys.setrecursionlimit(10_000)

    def say(**what: Any) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    def bad(path: Path, line: int, reason: str) -> None:
        say(bad=str(path), line=line, reason=reason)

    prefixes: dict[str, str] = {}
    with pa.OSFile(sys.argv[1], "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for name in (line.rstrip("\n") for line in sys.stdin):
            say(file=name)
            try:
                rows = list(rows_of(list(statements(Path(name), bad, prefixes)), name))
            except InputError as error:
                say(error=error.reason, file=name, line=error.line)
                return
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    say(prefixes=prefixes)


if __name__ == "__main__":
    main()
