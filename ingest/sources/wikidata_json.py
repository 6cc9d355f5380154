"""The JSON dump of Wikidata to records: an entity a line, in an array or not, or one file of Special:EntityData."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.compression import MAX_LINE, UNPACKING_ERRORS, open_bytes
from ingest.report import Report
from ingest.sources.reading import parse_json
from ingest.sources.wikidata_record import NODE_ID, Record, Statement, Value, as_qualifiers, as_text, of_snak
from kg.errors import InputError

MAX_SKIPPED = 1 << 30
RANKS = ("preferred", "normal", "deprecated")
MISSHAPEN = (KeyError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading foreign JSON raises where something in it is not of the shape that Wikibase writes."""


def records(
    paths: Sequence[Path],
    report: Report,
    *,
    properties: Collection[str] = (),
    wanted: Callable[[bytes], bool] = lambda line: True,
) -> Iterator[Record]:
    """Every item, property and redirect; what else there is is counted in ``report``, and what is bad quarantined.

    Args:
        properties: only statements of these; empty for all.
        wanted: a look at a line before it is parsed.
    """
    for path in paths:
        for line, entity in _entities(path, report, wanted):
            try:
                yield from _record(entity, path, line, report, properties)
            except MISSHAPEN as error:
                _bad(report, path, line, _reason(error))


def _entities(path: Path, report: Report, wanted: Callable[[bytes], bool]) -> Iterator[tuple[int, Any]]:
    """(line, what it holds)."""
    for number, line in _lines(path, report):
        if not wanted(line):
            continue
        try:
            found = _parse(line)
        except ValueError as error:
            _bad(report, path, number, f"not JSON: {error}")
            continue
        for entity in found if isinstance(found, list) else [found]:
            inner = entity.get("entities") if isinstance(entity, dict) else None
            yield from ((number, each) for each in (inner.values() if isinstance(inner, dict) else [entity]))


def _lines(path: Path, report: Report) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, without brackets and commas of the array; an indented file is one line."""
    number, array, ahead = 0, b"", b""
    try:
        with open_bytes(path) as stream:
            while line := ahead or stream.readline(MAX_LINE):
                number, ahead = number + 1, b""
                if len(line) == MAX_LINE and not line.endswith(b"\n"):
                    _bad(report, path, number, f"longer than {MAX_LINE >> 20} MiB")
                    _skip_line(stream, path, number)
                    continue
                line = line.removeprefix(b"\xef\xbb\xbf").strip().removesuffix(b",")
                if line == b"{" and (ahead := stream.readline(MAX_LINE)).lstrip()[:1] == b'"':
                    rest = stream.read(MAX_LINE)
                    if stream.read(1):
                        raise InputError(path, f"an indented file of more than {MAX_LINE >> 20} MiB", line=number)
                    yield number, array + line + ahead + rest.rstrip()
                    return
                if line == b"[":
                    array = line
                elif line not in (b"", b"]"):
                    yield number, line
    except UNPACKING_ERRORS as error:
        if number == 0:
            raise InputError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        _bad(report, path, number + 1, f"the file breaks off here: {error}")


def _skip_line(stream: Any, path: Path, number: int) -> None:
    skipped = 0
    while (part := stream.readline(MAX_LINE)) and not part.endswith(b"\n"):
        skipped += len(part)
        if skipped > MAX_SKIPPED:
            raise InputError(path, f"a line of more than {MAX_SKIPPED >> 30} GiB; refused", line=number)


def _parse(line: bytes) -> Any:
    if line[:1] == b"[" and line[-1:] != b"]":
        line = line[1:]
    elif line[-1:] == b"]" and line[:1] != b"[":
        line = line[:-1]
    return parse_json(line)


def _record(entity: Any, path: Path, line: int, report: Report, properties: Collection[str]) -> Iterator[Record]:
    if not isinstance(entity, dict):
        raise TypeError(f"expected an entity, got {type(entity).__name__}")
    if "redirect" in entity:
        yield _redirect(entity["entity"], entity["redirect"])
        return
    id_ = entity.get("id")
    if not isinstance(id_, str):
        raise TypeError("expected an entity with an id")
    letters = {"Q": "item", "P": "property", "L": "lexeme", "M": "mediainfo"}
    kind = entity.get("type") or letters.get(id_[:1], "unknown")
    if kind not in ("item", "property") or "missing" in entity:
        report.read += 1
        report.skip(f"entity of type {kind}" if "missing" not in entity else "entity that is marked as missing")
        return
    if not NODE_ID.fullmatch(id_) or letters[id_[0]] != kind:
        raise ValueError(f"expected the id of an {kind}, got {id_[:60]!r}")
    if moved := entity.get("redirects"):
        yield _redirect(moved["from"], moved["to"])
    record = Record(id_, kept=Counter({"node label": 1}))  # one for the entity itself
    if kind == "property":
        record.datatype = str(entity.get("datatype") or "")
    reading = _Reading(record, path, line, report)
    reading.texts(entity)
    reading.claims(entity, properties)
    yield record


def _redirect(old: str, new: str) -> Record:
    if not NODE_ID.fullmatch(old) or not NODE_ID.fullmatch(new):
        raise ValueError(f"expected a redirect between two entities, got {old!r} to {new!r}")
    return Record(old, replaced_by=new)


class _Reading:
    """One entity being read; what is bad in it is quarantined with the line of the entity, and the rest kept."""

    def __init__(self, record: Record, path: Path, line: int, report: Report) -> None:
        self.record, self.path, self.line, self.report = record, path, line, report

    def texts(self, entity: Mapping[str, Any]) -> None:
        record = self.record
        for key, texts in (("labels", record.labels), ("descriptions", record.descriptions)):
            for language, said in self._map(entity, key).items():
                try:
                    texts.append((as_text(said["language"]), as_text(said["value"])))
                except MISSHAPEN as error:
                    self._bad(f"{key} {language}", error)
        for language, several in self._map(entity, "aliases").items():
            try:
                record.aliases += [(as_text(said["language"]), as_text(said["value"])) for said in several]
            except MISSHAPEN as error:
                self._bad(f"aliases {language}", error)
        if "sitelinks" in entity:
            record.sitelinks = len(self._map(entity, "sitelinks"))
            record.skipped["title of a page (their number is kept)"] += record.sitelinks

    def claims(self, entity: Mapping[str, Any], properties: Collection[str]) -> None:
        for name, group in self._map(entity, "claims").items():
            if not isinstance(group, list):
                self._bad(name, TypeError(f"expected a list of statements, got {type(group).__name__}"))
            elif properties and name not in properties:
                self.record.skipped["statement of a property that was not asked for"] += sum(map(_size, group))
            else:
                self._group(name, group)

    def _group(self, name: str, group: Sequence[Any]) -> None:
        """Statements of one property: the preferred ones, else the normal ones."""
        skipped = self.record.skipped
        ranked: dict[str, list[Any]] = {rank: [] for rank in RANKS}
        for claim in group:
            try:
                ranked[claim.get("rank") or "normal"].append(claim)
            except MISSHAPEN as error:
                self._bad(name, error)
        best = "preferred" if ranked["preferred"] else "normal"
        if best == "preferred" and ranked["normal"]:
            skipped["normal rank beside a preferred one"] += sum(map(_size, ranked["normal"]))
        if ranked["deprecated"]:
            skipped["deprecated rank"] += sum(map(_size, ranked["deprecated"]))
        for claim in ranked[best]:
            try:
                self._statement(name, claim, best)
            except MISSHAPEN as error:
                self._bad(name, error)

    def _statement(self, name: str, claim: Mapping[str, Any], rank: str) -> None:
        if not NODE_ID.fullmatch(name) or name[0] != "P":
            raise ValueError("expected the id of a property")
        value = of_snak(claim["mainsnak"])
        qualifiers: dict[str, list[Value]] = {}
        for key, snaks in (claim.get("qualifiers") or {}).items():
            for snak in snaks:
                try:
                    found = of_snak(snak)
                    qualifiers.setdefault(str(snak.get("property") or key), []).append(found)
                except MISSHAPEN as error:
                    self._bad(f"{name} {key}", error)
        self.record.kept["qualifier"] += sum(map(len, qualifiers.values()))
        if references := len(claim.get("references") or ()):
            self.record.skipped["reference"] += references
        self.record.statements.append(Statement(name, value, rank, as_qualifiers(qualifiers) if qualifiers else {}))

    def _map(self, entity: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """An empty map is written as ``[]`` in many dumps."""
        found = entity.get(key) or {}
        if not isinstance(found, dict):
            self._bad(key, TypeError(f"expected a map, got {type(found).__name__}"))
            return {}
        return found

    def _bad(self, where: str, error: Exception) -> None:
        _bad(self.report, self.path, self.line, f"{self.record.id} {where}: {_reason(error)}")


def _size(claim: Any) -> int:
    """How many statements it counts for: itself, its qualifiers, its references."""
    if not isinstance(claim, dict):
        return 1
    qualifiers = claim.get("qualifiers") or {}
    inner = sum(len(snaks) for snaks in qualifiers.values()) if isinstance(qualifiers, dict) else 0
    return 1 + inner + len(claim.get("references") or ())


def _bad(report: Report, path: Path, line: int, reason: str) -> None:
    report.read += 1
    report.quarantine(path, line, reason)


def _reason(error: Exception) -> str:
    return f"has no {error}" if isinstance(error, KeyError) else str(error)
