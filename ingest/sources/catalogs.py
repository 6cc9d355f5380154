"""Where the ontologies that a file imports are on disk, by the catalogs beside them; nothing is fetched, ever.

A catalog (``catalog-v001.xml``, OASIS XML Catalogs 1.1, written by Protégé) maps the IRI of an ontology to a file. It
may come from anywhere, so an entry counts only if it names a file within the catalog's own folder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

from ingest.screen import screen_xml
from kg.errors import InputError

NAME = "catalog-v001.xml"
RDF, OWL = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://www.w3.org/2002/07/owl#"
Start: TypeAlias = Callable[[str, dict[str, str]], None]
CATALOG = "urn:oasis:names:tc:entity:xmlns:xml:catalog"


@dataclass
class Closure:
    """Files, and those that they import, and so on."""

    files: list[Path]
    """Those given first, then the others as they were found."""
    refused: dict[str, str] = field(default_factory=dict)
    """IRI → why the file that a catalog names for it is never read, imported or not."""


def closure(paths: Sequence[Path], files: Sequence[Path]) -> Closure:
    """Add to RDF/XML ``files`` all that they import, as far as catalogs below ``paths`` or above them know where it is.

    Raises:
        InputError: a catalog or a file is hostile, or not XML.
    """
    places: dict[str, Path | str] = {}
    for catalog in _catalogs(paths):
        for iri, place in _entries(catalog):
            if isinstance(places.get(iri, ""), str):  # what one catalog has in vain, another may know
                places[iri] = place
    found = Closure(list(files), {iri: place for iri, place in places.items() if isinstance(place, str)})
    on_disk = {iri: place for iri, place in places.items() if isinstance(place, Path)}
    known = {file.resolve() for file in files}
    if known.issuperset(on_disk.values()):
        return found
    for file in found.files:  # grows
        for iri in _imports(file):
            if iri in on_disk and on_disk[iri] not in known:
                known.add(on_disk[iri])
                found.files.append(on_disk[iri])
    return found


def _catalogs(paths: Sequence[Path]) -> Iterator[Path]:
    """Below folders; beside files and above them, from the nearest one on as long as each folder has one."""
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob(NAME), key=lambda catalog: (len(catalog.parts), catalog))
            continue
        any_so_far = False
        for folder in path.absolute().parents:
            if (folder / NAME).is_file():
                any_so_far = True
                yield folder / NAME
            elif any_so_far:
                break


def _entries(catalog: Path) -> Iterator[tuple[str, Path | str]]:
    """IRI → file, or why there is none."""
    folder, entries = catalog.parent.resolve(), list[tuple[str, str]]()

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag in (f"{CATALOG}uri", "uri") and {"name", "uri"} <= attributes.keys():
            entries.append((attributes["name"], attributes["uri"]))

    _parse(catalog, catalog.read_bytes(), start)
    for iri, uri in entries:
        place = _place(folder, uri)
        yield iri, place if isinstance(place, Path) else f"{catalog} names {uri}{place}"


def _place(folder: Path, uri: str) -> Path | str:
    """The file in ``folder`` that an entry names, or what is wrong with it."""
    try:
        parts = urlsplit(uri)
        if parts.scheme or parts.netloc:
            return "; expected a relative path"
        place = (folder / unquote(parts.path)).resolve()
        if not place.is_relative_to(folder):
            return ", which is outside of its folder"
        if place.is_file() and place.suffix == ".rdf":
            return place
    except (ValueError, OSError, RuntimeError):  # no address, a NUL, too long for a disk, a link to itself
        pass
    return ", which is no .rdf file on disk"


def _imports(file: Path) -> list[str]:
    """What an RDF/XML file imports."""
    content, found = file.read_bytes(), list[str]()
    last = content.rfind(b"imports")
    if last < 0:
        return found

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == f"{OWL}imports" and (iri := attributes.get(f"{RDF}resource")):
            found.append(iri)

    # The imports are at the head of a file that may be long.
    _parse(file, content, start, content.find(b">", last) + 1 or len(content))
    return found


def _parse(file: Path, content: bytes, start: Start, end: int | None = None) -> None:
    """Call ``start`` for the elements that begin before ``end``, names with namespaces in full; screened first."""
    screen_xml(file, BytesIO(content))
    parser = expat.ParserCreate(namespace_separator="")
    parser.StartElementHandler = start
    try:
        parser.Parse(content[:end], end is None)
    except expat.ExpatError as error:
        raise InputError(file, f"not XML: {expat.errors.messages[error.code]}", line=error.lineno) from error
