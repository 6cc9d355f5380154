"""Names for anonymous nodes by what is said of them, so that equal ones are equal in every release and file."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from kg.errors import InputError

BATCH = 50_000
"""Lines that are held or given at once."""
NESTED = "holds a triple within a triple (RDF 1.2); expected RDF 1.1"


class Loose:
    """Lines that touch anonymous nodes, which have names only when all of the file is read; many go to a file."""

    def __init__(self, file: Path) -> None:
        self.file, self.lines, self.saved = file, list[str](), False

    def append(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == BATCH:
            self.save()

    def save(self) -> str | None:
        """The name of the file with all the lines; None where there are none."""
        if self.lines:
            with self.file.open("a" if self.saved else "w", encoding="utf-8", newline="\n") as out:
                out.writelines(line + "\n" for line in self.lines)
            self.saved = True
            self.lines.clear()
        return str(self.file) if self.saved else None

    def __iter__(self) -> Iterator[str]:
        if self.saved:
            yield from lines_of_files([str(self.file)])
        yield from self.lines


def lines_of_files(files: Sequence[str]) -> Iterator[str]:
    for file in files:
        with Path(file).open(encoding="utf-8", newline="\n") as lines:
            yield from (line.rstrip("\n") for line in lines)


def without_loose(block: bytes, loose: Loose) -> bytes:
    """The canonical lines that touch no anonymous node; the others go to ``loose``."""
    if b"_:" not in block:
        return block
    rest = []
    for line in block.decode().split("\n"):
        if line.startswith("_:") or ("> _:" in line and line.split(" ", 2)[2].startswith("_:")):
            loose.append(line)
        else:
            rest.append(line)
    return "\n".join(rest).encode()


def named_blocks(lines: Iterable[str], file: str) -> Iterator[bytes]:
    """Lines with their anonymous nodes named by what they say; ``lines`` is gone through twice."""
    names = blank_names(lines, file)
    block: list[str] = []
    for line in lines:
        subject, predicate, object_ = line[:-2].split(" ", 2)
        if subject.startswith("_:"):
            subject = names[subject]
        if object_.startswith("_:"):
            object_ = names.get(object_, LEAF)
        elif object_.startswith("<<("):
            raise InputError(file, NESTED)
        block.append(f"{subject} {predicate} {object_} .\n")
        if len(block) == BATCH:
            yield "".join(block).encode()
            block.clear()
    yield "".join(block).encode()


def blank_names(lines: Iterable[str], file: str) -> dict[str, str]:
    """``_:h<hash>`` for each anonymous subject: the hash of the tree below it, so that equal ones are equal in every
    release. All of which nothing is said are LEAF.

    In a cycle there is no bottom to start from; its nodes are named by file and order instead.
    """
    below: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        if line.startswith("_:"):
            subject, predicate, object_ = line[:-2].split(" ", 2)
            below.setdefault(subject, []).append((predicate[1:-1], object_))
    order = {node: number for number, node in enumerate(below)}
    names: dict[str, str] = {}

    def visit(start: str) -> None:
        stack: list[tuple[str, bool]] = [(start, False)]
        open_: set[str] = set()
        while stack:
            node, ready = stack.pop()
            if node in names:
                continue
            children = [object_ for _, object_ in below[node] if object_ in below]
            if not ready:
                if any(child in open_ for child in children) or node in open_:
                    names[node] = "_:h" + _digest(f"{file} {order[node]}")
                    continue
                open_.add(node)
                stack.append((node, True))
                stack.extend((child, False) for child in children if child not in names)
                continue
            open_.discard(node)
            said = {
                f"{predicate} {names.get(object_, LEAF) if object_.startswith('_:') else object_}"
                for predicate, object_ in below[node]
            }
            names[node] = "_:h" + _digest("\n".join(sorted(said)))

    for node in below:
        visit(node)
    return names


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


LEAF = "_:h" + _digest("")
"""The name of all anonymous nodes of which nothing is said."""
