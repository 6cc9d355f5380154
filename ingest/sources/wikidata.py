"""Wikidata: the JSON dump or truthy N-Triples, whole or a named slice; the mapping is the table in ``ingest.md``.

A statement with one value is a typed property, one with several goes to the tail: that rule looks at one entity alone,
so a dump of any size goes through in one pass, and an entity is the same in a slice and in the whole.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

from ingest.compression import unpacked_name
from ingest.parser import FORMATS
from ingest.rdf import parse
from ingest.report import Report
from ingest.sources.metathesaurus import CONCEPT_IRI
from ingest.sources.reading import Reading
from ingest.sources.wikidata_json import records as json_records
from ingest.sources.wikidata_record import ENTITY, NODE_ID, Record, Statement
from ingest.sources.wikidata_truthy import records as truthy_records
from kg.errors import ConfigError, InputError
from kg.types import Entity, Name, PropertyValue, Triple

FIXED_TYPES = {"P31": "INSTANCE_OF", "P279": "SUBCLASS_OF"}
UMLS_CUI = "P2892"
ANY_LANGUAGE = "mul"
"""Wikidata's tag for labels that hold in every language."""
_ID_IN_LINE = re.compile(rb'"id"\s*:\s*"([QP]\d+)"')
_CUI = re.compile(r"C\d{7}")
_SOME_BIT = re.compile(rb"[^\0]")
_DATE = re.compile(r"(20\d\d)-?([01]\d)-?([0-3]\d)")
Records: TypeAlias = Callable[[Report, Callable[[bytes], bool]], Iterator[Record]]
"""Reads the input; may leave out what does not pass a look at its line."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The part of Wikidata to load; descriptions of properties are always kept, since they name the relationships."""

    classes: tuple[str, ...] = ()
    """Items of these classes and of what the input says are their subclasses; empty for all."""
    properties: tuple[str, ...] = ()
    """Statements of these properties, and P31 and P279; empty for all."""
    languages: tuple[str, ...] = ("en",)
    """Labels, aliases and descriptions in these languages, best first; ``("all",)`` for every one."""
    ids: tuple[str, ...] = ()
    """Files with an id a line: those entities, and those that they state a kept relationship to."""

    def __post_init__(self) -> None:
        for name, letter in (("classes", "Q"), ("properties", "P")):
            for id_ in getattr(self, name):
                if not NODE_ID.fullmatch(id_) or id_[0] != letter:
                    raise ConfigError(f"--{name}: expected ids such as {letter}31, got {id_!r}")
        if not self.languages:
            raise ConfigError("--languages: expected at least one, such as en, or all")

    def listed(self) -> set[str]:
        """The ids in the files; ``wd:`` before them and what follows them on the line are allowed."""
        found: set[str] = set()
        for file in map(Path, self.ids):
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(file, f"cannot be read: {error}") from error
            for number, line in enumerate(lines, 1):
                words = line.partition("#")[0].split()
                if not words:
                    continue
                if not NODE_ID.fullmatch(id_ := words[0].removeprefix("wd:")):
                    raise InputError(file, f"expected an id such as Q42, got {words[0]!r}", line=number)
                found.add(id_)
        if self.ids and not found:
            raise InputError(self.ids[0], "names no id")
        return found


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str, **options: tuple[str, ...]) -> Reading:
    """The dump files of ``paths``; ids are ``wd:Q42`` whatever ``prefix`` says.

    Args:
        options: the fields of ``Slice``.

    Raises:
        InputError: a file cannot be read, or JSON and RDF are mixed.
    """
    part = Slice(**options)
    files = _files(paths)
    properties = {*part.properties, *FIXED_TYPES} if part.properties else set()
    rdf = [file for file in files if unpacked_name(file).suffix in FORMATS]
    dates = sorted("-".join(match.groups()) for file in files if (match := _DATE.search(file.name)))
    release = dates[-1] if dates else ""
    if not rdf:

        def from_json(said: Report, wanted: Callable[[bytes], bool]) -> Iterator[Record]:
            return json_records(files, said, properties=properties, wanted=wanted)

        return Reading(release=release, items=_Mapping(source_id, report, part, counted=False).items(from_json))
    if len(rdf) < len(files):
        raise InputError(rdf[0], "RDF beside JSON; load the two apart")
    statements = parse(rdf, report)

    def from_rdf(said: Report, wanted: Callable[[bytes], bool]) -> Iterator[Record]:
        return truthy_records(statements, said, properties=properties)

    items = _Mapping(source_id, report, part, counted=True).items(from_rdf)
    return Reading(release=release, items=items, statements=statements)


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder")
        inside = (file for file in sorted(path.rglob("*")) if unpacked_name(file).suffix in (".json", ".nt"))
        found += [file for file in inside if file.is_file()] if path.is_dir() else [path]
    if not found:
        raise InputError(paths[0], "holds no .json or .nt file (plain, .gz, .bz2 or .zst)")
    return found


class IdSet:
    """A set of items and properties with a bit for each number: all of Wikidata takes 20 MB."""

    def __init__(self) -> None:
        self._bits = {"Q": bytearray(), "P": bytearray()}
        self._far: set[str] = set()

    def add(self, id_: str) -> bool:
        """True when it is new."""
        number = int(id_[1:])
        if number >= 1 << 30:
            new = id_ not in self._far
            self._far.add(id_)
            return new
        bits, byte, bit = self._bits[id_[0]], number >> 3, 1 << (number & 7)
        if byte >= len(bits):
            bits.extend(bytes(byte + (byte >> 3) + 64 - len(bits)))
        new = not bits[byte] & bit
        bits[byte] |= bit
        return new

    def without(self, other: "IdSet") -> Iterator[str]:
        """Those that are not in ``other``, sorted by number."""
        for letter, bits in self._bits.items():
            beside = other._bits[letter]
            for match in _SOME_BIT.finditer(bits):
                place = match.start()
                rest = bits[place] & ~(beside[place] if place < len(beside) else 0)
                yield from (f"{letter}{place * 8 + bit}" for bit in range(8) if rest >> bit & 1)
        yield from sorted(self._far - other._far)


class _Mapping:
    """Records to entities and triples, one at a time; what is referred to and never described comes last."""

    def __init__(self, source: str, report: Report, part: Slice, *, counted: bool) -> None:
        self.source, self.report, self.part = source, report, part
        self.counted = counted
        """True where ``report.read`` holds the whole input already."""
        self.described, self.referred = IdSet(), IdSet()
        self.concepts: set[str] = set()
        """Concepts of UMLS that items are the same as, by CUI."""
        self.order = {language.lower(): place for place, language in enumerate((*part.languages, ANY_LANGUAGE))}

    def items(self, records: Records) -> Iterator[Entity | Triple]:
        chosen = _Chosen(self.part, records)
        for record in records(self.report, lambda line: True):
            kept = chosen.keeps(record)
            new = kept and self.described.add(record.id)
            entity, edges = self._describe(record)
            if not self.counted:
                self.report.read += record.num_read
            if new:
                for outcome, count in record.kept.items():
                    self.report.keep(outcome, count)
                for reason, count in record.skipped.items():
                    self.report.skip(reason, count)
                for edge in edges:
                    prefix, _, id_ = edge.tail.partition(":")
                    if prefix == "wd":
                        self.referred.add(id_)
                    else:
                        self.concepts.add(id_)
                for name in {said.property for said in record.statements if not said.value.missing}:
                    self.referred.add(name)
                yield entity
                yield from edges
            else:
                reason = "entity that was described before" if kept else "entity outside the slice"
                self.report.skip(reason, record.num_read)
        for id_ in self.referred.without(self.described):
            yield Entity(id=f"wd:{id_}", iri=ENTITY + id_, source=self.source, kinds=("Stub",))
        for cui in sorted(self.concepts):
            yield Entity(id=f"umls:{cui}", iri=CONCEPT_IRI + cui, source=self.source, kinds=("Stub",))

    def _describe(self, record: Record) -> tuple[Entity, list[Triple]]:
        names = self._names(record)
        definitions = [text for _, text in self._in_order(record, record.descriptions, "description")]
        record.kept["definition"] += len(definitions)
        properties, tail, edges = self._statements(record)
        if record.sitelinks is not None:
            properties["sitelinks"] = record.sitelinks
        if record.id[0] == "P":
            properties["relation"] = FIXED_TYPES.get(record.id, record.id)
            if record.datatype:
                properties["datatype"] = record.datatype
        kinds = ["Property" if record.id[0] == "P" else "Item"]
        if record.replaced_by:
            kinds.insert(0, "Deprecated")
            edges.append(self._edge(record.id, "REPLACED_BY", f"wd:{record.replaced_by}", {}))
            record.kept["relationship"] += 1
        return Entity(
            id=f"wd:{record.id}",
            iri=ENTITY + record.id,
            source=self.source,
            kinds=tuple(kinds),
            name=names[0].text if names else None,
            names=tuple(sorted(names, key=lambda name: (name.kind, name.language, name.text))),
            definition=definitions[0] if definitions else None,
            definitions=tuple(dict.fromkeys(definitions)),
            properties=properties,
            tail=tuple(sorted(tail)),
        ), edges

    def _names(self, record: Record) -> list[Name]:
        """The one to show first; an entity without a label in the languages asked for keeps one that it has."""
        labels = self._in_order(record, record.labels, "label")
        if not labels and record.labels:
            labels = [min(record.labels)]
            record.skipped["label in another language"] -= 1
        aliases = self._in_order(record, record.aliases, "alias")
        record.kept["name"] += len(labels) + len(aliases)
        named = [Name(text=text, kind="pref", language=language) for language, text in labels if text.strip()]
        named += [Name(text=text, kind="syn", language=language) for language, text in aliases if text.strip()]
        return list(dict.fromkeys(named))

    def _in_order(self, record: Record, texts: Sequence[tuple[str, str]], what: str) -> list[tuple[str, str]]:
        last = len(self.order)
        everything = "all" in self.order
        ranks = {**self.order, "en": min(self.order.get("en", last), 0)} if everything else self.order
        kept = [said for said in texts if everything or said[0].lower() in self.order]
        if len(kept) < len(texts):
            record.skipped[f"{what} in another language"] += len(texts) - len(kept)
        return sorted(kept, key=lambda said: (ranks.get(said[0].lower(), last), said))

    def _statements(self, record: Record) -> tuple[dict[str, PropertyValue], list[str], list[Triple]]:
        edges: dict[str, Triple] = {}
        values: dict[str, list[Statement]] = defaultdict(list)
        lists: dict[str, set[str]] = defaultdict(set)
        tail: list[str] = []
        kept = record.kept
        for said in record.statements:
            if said.value.entity is not None:
                relation = FIXED_TYPES.get(said.property, said.property)
                ranked = {**said.qualifiers, "rank": said.rank} if said.rank != "normal" else said.qualifiers
                edge = self._edge(record.id, relation, f"wd:{said.value.entity}", ranked)
                if edge.sid in edges:
                    record.skipped["stated more than once"] += 1
                else:
                    edges[edge.sid] = edge
                    kept["relationship"] += 1
            elif said.value.missing:
                lists[said.value.missing].add(said.property)
                kept["property"] += 1
                if said.qualifiers:
                    tail.append(f"{said.property}={said.value.missing}{_qualified(said)}")
            else:
                values[said.property].append(said)
                if said.property == UMLS_CUI and _CUI.fullmatch(said.value.lexical):  # and a property, as any other
                    edge = self._edge(record.id, "SAME_AS", f"umls:{said.value.lexical}", {"derived": True})
                    edges[edge.sid] = edge
        properties: dict[str, PropertyValue] = {what: sorted(names) for what, names in lists.items()}
        for name, group in values.items():
            columns = group[0].value.columns
            if columns and len({said.value.lexical for said in group}) == 1:
                properties |= {name + suffix: value for suffix, value in columns.items()}
                tail += [name + _qualified(said) for said in group if said.qualifiers]
                kept["property"] += len(group)
            else:
                tail += [f"{name}={said.value.lexical}{_qualified(said)}" for said in group]
                kept["tail"] += len(group)
        return properties, tail, list(edges.values())

    def _edge(self, head: str, relation: str, tail: str, properties: Mapping[str, PropertyValue]) -> Triple:
        said = f"wd:{head} {relation} {tail}"
        if properties:  # statements that differ in qualifiers alone are relationships of their own
            said += json.dumps(dict(properties), sort_keys=True, ensure_ascii=False)
        sid = blake2b(said.encode(), digest_size=16).hexdigest()
        return Triple(
            head=f"wd:{head}", relation=relation, tail=tail, source=self.source, sid=sid, properties=properties
        )


class _Chosen:
    """Which records a slice keeps; it takes a pass over the input to know subclasses and neighbours."""

    def __init__(self, part: Slice, records: Records) -> None:
        self.ids, self.classes = part.listed(), set(part.classes)
        self.whole = not self.ids and not self.classes
        if self.whole:
            return
        listed = self.ids
        self.ids = set(listed)
        superclasses: dict[str, list[str]] = defaultdict(list)

        def wanted(line: bytes) -> bool:
            if part.classes and b'"P279"' in line:
                return True
            return bool(listed) and any(found.decode() in listed for found in _ID_IN_LINE.findall(line))

        for record in records(Report(""), wanted):
            for said in record.statements:
                if said.value.entity is None:
                    continue
                if said.property == "P279":
                    superclasses[said.value.entity].append(record.id)
                if record.id in listed:
                    self.ids.add(said.value.entity)
        waiting = list(self.classes)
        while waiting:
            below = set(superclasses.get(waiting.pop(), ())) - self.classes
            self.classes |= below
            waiting += below

    def keeps(self, record: Record) -> bool:
        if self.whole or record.id[0] == "P":
            return True
        if self.ids and record.id not in self.ids:
            return False
        return not self.classes or record.id in self.classes or not self.classes.isdisjoint(_types(record))


def _types(record: Record) -> Collection[str]:
    return {said.value.entity for said in record.statements if said.property == "P31" and said.value.entity}


def _qualified(said: Statement) -> str:
    """Qualifiers of a value that is no relationship, in the tail: `` q_P585=2015-00-00T00:00:00Z/9``."""
    return "".join(
        f" {name}={value if isinstance(value, str) else ', '.join(value)}" for name, value in said.qualifiers.items()
    )
