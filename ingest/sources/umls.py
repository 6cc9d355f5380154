"""UMLS: Rich Release Format (``MRCONSO.RRF`` and its fellows, plain or packed), or the Turtle that umls2rdf writes.

Columns as in the UMLS Reference Manual, chapter 3 (ncbi.nlm.nih.gov/books/NBK9685), or as the release's MRFILES says.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from ingest.compression import PACKED, numbered
from ingest.names import upper_snake
from ingest.parser import rdf_suffix
from ingest.report import Report
from ingest.sources.metathesaurus import (
    LANGUAGES,
    LICENCE,
    NAME_KINDS,
    OTHER_LANGUAGE,
    OTHER_SAB,
    RELATIONS,
    SUPPRESSED,
    Also,
    Atom,
    Metathesaurus,
    Selection,
)
from ingest.sources.reading import Reading
from ingest.sources.umls2rdf import read as read_turtle
from kg.errors import ConfigError, InputError

COLUMNS: Mapping[str, str] = {
    "MRFILES": "FIL DES FMT CLS RWS BTS",
    "MRDOC": "DOCKEY VALUE TYPE EXPL",
    "MRSAB": "VCUI RCUI VSAB RSAB SON SF SVER VSTART VEND IMETA RMETA SLC SCC SRL TFR CFR CXTY TTYL ATNL LAT CENC "
    "CURVER SABIN SSN SCIT",
    "MRRANK": "RANK SAB TTY SUPPRESS",
    "MRCONSO": "CUI LAT TS LUI STT SUI ISPREF AUI SAUI SCUI SDUI SAB TTY CODE STR SRL SUPPRESS CVF",
    "SRDEF": "RT UI NAME STN DEF EX UN NH ABR RIN",
    "SRSTR": "ONE RL TWO LS",
    "MRSTY": "CUI TUI STN STY ATUI CVF",
    "MRDEF": "CUI AUI ATUI SATUI SAB DEF SUPPRESS CVF",
    "MRREL": "CUI1 AUI1 STYPE1 REL CUI2 AUI2 STYPE2 RELA RUI SRUI SAB SL RG DIR SUPPRESS CVF",
    "MRSAT": "CUI LUI SUI METAUI STYPE CODE ATUI SATUI ATN SAB ATV SUPPRESS CVF",
    "MRCUI": "CUI1 VER REL RELA MAPREASON CUI2 MAPIN",
}
"""The files that are read, in this order, and their columns."""
MAX_LINE, MAX_RELATION = 1 << 20, 100
NOISE = frozenset({"SIB", "AQ", "QB", "XR", "DEL"})
"""Values of REL that say what a row is, whatever RELA says."""
KEPT_SUPPRESS = ("", "N")


def read(
    paths: Sequence[Path],
    source_id: str,
    report: Report,
    prefix: str,
    *,
    sab: tuple[str, ...] = (),
    languages: tuple[str, ...] = (),
    attributes: tuple[str, ...] = (),
    also: tuple[Also, ...] = (),
) -> Reading:
    """One release below ``paths``; the ids are ``umls:`` and the CUI, whatever ``prefix`` says.

    Raises:
        InputError: no MRCONSO and no Turtle, several releases, or a file that cannot be read.
    """
    wanted = Selection.of(sab, languages, attributes, also)
    files, turtle = find_files(paths)
    if "MRCONSO" in files:
        if turtle:
            report.notes.append(f"not read, since the RRF files say more: {', '.join(file.name for file in turtle)}")
        return _Release(files, source_id, report, wanted).reading()
    if turtle:
        return read_turtle(turtle, source_id, report, wanted)
    raise InputError(paths[0], "holds neither MRCONSO.RRF (or .gz) nor Turtle of umls2rdf (.ttl)")


def find_files(paths: Sequence[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """RRF files by table, and Turtle files."""
    tables: dict[str, list[Path]] = defaultdict(list)
    turtle: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            table = file.name.split(".")[0].upper()
            if table in COLUMNS and file.is_file() and not (file.suffix in PACKED and file.with_suffix("").is_file()):
                tables[table].append(file)
            elif file.is_file() and rdf_suffix(file) == ".ttl":
                turtle.append(file)
    folders = sorted({str(file.parent) for file in tables["MRCONSO"]})
    if len(folders) > 1:
        raise InputError(paths[0], f"holds several releases ({', '.join(folders)}); name one of them")
    return {table: found for table, found in tables.items() if found}, turtle


class _Release:
    """One pass over the files of a release, in the order of COLUMNS: each needs what the ones before it said."""

    def __init__(self, files: Mapping[str, Sequence[Path]], source: str, report: Report, wanted: Selection) -> None:
        self.files, self.source, self.report, self.wanted = files, source, report, wanted
        self.made = Metathesaurus(source, report, wanted)
        self.layout = {table: columns.split() for table, columns in COLUMNS.items()}
        self.place = (Path(), 0)
        self.ranks: dict[tuple[str, str], int] = {}
        self.levels: dict[str, str] = {}
        self.used: set[str] = set()
        self.release = ""

    def reading(self) -> Reading:
        for step in (self._files, self._documentation, self._sources, self._ranks, self._names, self._network):
            step()
        for step in (self._types, self._definitions, self._relations, self._attributes, self._retired):
            step()
        if self.made.one_way and "MRDOC" not in self.files:
            unknown = ", ".join(sorted(self.made.one_way))
            self.report.notes.append(f"no MRDOC.RRF to say the inverse of, so kept as they come: {unknown}")
        levels = ", ".join(f"{sab} {self.levels.get(sab) or 'unknown'}" for sab in sorted(self.used))
        licence = f"{LICENCE}; restriction levels: {levels}"
        return Reading(release=self.release or self._named(), items=self.made.items(), licence=licence)

    def rows(self, table: str, *columns: str) -> Iterator[tuple[str, ...]]:
        """These columns of each row of ``table``; the first two must have a value."""
        if table not in self.files:
            return
        layout = self.layout[table]
        missing = sorted(set(columns) - set(layout))
        if missing:
            raise InputError(self.files[table][0], f"has no column {missing[0]}, says MRFILES")
        pick, width = itemgetter(*map(layout.index, columns)), len(layout)
        for file in self.files[table]:
            for number, raw in numbered(file, MAX_LINE):
                self.report.read += 1
                if len(raw) == MAX_LINE:
                    self.report.quarantine(file, number, f"a line longer than {MAX_LINE:,} bytes")
                    continue
                try:
                    row = raw.decode("utf-8").rstrip("\r\n").split("|")
                except UnicodeDecodeError as error:
                    self.report.quarantine(file, number, f"not UTF-8: {error.reason}")
                    continue
                # a later MRSAB has more than the manual's columns, and none of those behind them is needed
                if row.pop() or not (len(row) == width or (table == "MRSAB" and len(row) > width)):
                    self.report.quarantine(file, number, f"expected {width} columns, a | after each, got {len(row)}")
                    continue
                picked = pick(row)
                if picked[0] and picked[1]:
                    self.place = (file, number)
                    yield picked
                else:
                    self.report.quarantine(file, number, f"expected {columns[0]} and {columns[1]}, one is empty")

    def _files(self) -> None:
        for name, _, form in self.rows("MRFILES", "FIL", "DES", "FMT"):
            table = name.split(".")[0]
            if table in self.layout and form:
                self.layout[table] = form.split(",")
            self.report.keep("columns of a file")

    def _documentation(self) -> None:
        for kind, _, value, text in self.rows("MRDOC", "TYPE", "DOCKEY", "VALUE", "EXPL"):
            if kind == "rela_inverse" and text:
                self.made.inverses[value] = text
                self.report.keep("inverse of a relation")
            elif value == "umls.release.name":
                self.release = text
                self.report.keep("release")
            else:
                self.report.skip("documentation of values")

    def _sources(self) -> None:
        for sab, _, level, encoding in self.rows("MRSAB", "RSAB", "VSAB", "SRL", "CENC"):
            self.levels[sab] = level if encoding == "UTF-8" else ""  # else the columns are not where they should be
            self.report.keep("source vocabulary")

    def _ranks(self) -> None:
        for rank, sab, term_type, suppress in self.rows("MRRANK", "RANK", "SAB", "TTY", "SUPPRESS"):
            if not rank.isdecimal():
                self.report.quarantine(*self.place, f"expected a number as RANK, got {rank[:20]!r}")
                continue
            key = (sab, term_type)
            if suppress in KEPT_SUPPRESS or key not in self.ranks:
                self.ranks[key] = int(rank)
            self.report.keep("rank")

    def _names(self) -> None:
        columns = ("CUI", "STR", "LAT", "TS", "STT", "ISPREF", "AUI", "SAB", "TTY", "CODE", "SUPPRESS")
        present, used = set[str](), self.used
        wanted, made = self.wanted, self.made
        for cui, text, lat, ts, stt, preferred, aui, sab, tty, code, suppress in self.rows("MRCONSO", *columns):
            present.add(sab)
            language = LANGUAGES.get(lat, lat.lower())
            if not wanted.wants_source(sab):
                self.report.skip(OTHER_SAB)
                continue
            if wanted.languages and language not in wanted.languages:
                self.report.skip(OTHER_LANGUAGE)
                continue
            flags = (ts != "P", stt != "PF", preferred != "Y")
            rank = self.ranks.get((sab, tty), 0)
            order = (made.language_order(language), any(flags), -rank, flags, aui)
            atom = Atom(order, text, language, NAME_KINDS.get(tty, "syn"), f"{sab}/{tty}/{code}")
            made.name(made.concept(cui), atom, suppress)
            used.add(sab)
        unknown = sorted(wanted.sab - present)
        if unknown:
            raise ConfigError(
                f"No name is of the source vocabulary {unknown[0]}; there are: {', '.join(sorted(present))}"
            )
        if not made.concepts and not wanted.languages:
            raise InputError(self.files["MRCONSO"][0], "no row of it has a CUI and a name")

    def _network(self) -> None:
        """Semantic types and the relations between them."""
        ids: dict[str, str] = {}
        types: set[str] = set()
        for kind, ui, name, number, definition in self.rows("SRDEF", "RT", "UI", "NAME", "STN", "DEF"):
            ids[name] = f"umls:{ui}"
            self.report.keep("semantic type" if kind == "STY" else "semantic relation")
            if kind == "STY":
                types.add(name)
                self.made.describe(ui, "SemanticType", name, definition, tree_number=number)
            else:
                self.made.describe(ui, "ObjectProperty", name, definition, relation=upper_snake(name))
        for one, relation, two, status in self.rows("SRSTR", "ONE", "RL", "TWO", "LS"):
            if status == "B":
                self.report.skip("relation of semantic types that is blocked")
            elif not two:
                self.report.keep("root of the semantic network")
            elif not {one, two} <= ids.keys() or relation not in ids.keys() | {"isa"}:
                self.report.skip("relation of a semantic type that SRDEF does not define")
            else:
                above = "SUBCLASS_OF" if one in types else "SUBPROPERTY_OF"
                self.made.link(ids[one], above if relation == "isa" else upper_snake(relation), ids[two])

    def _types(self) -> None:
        for cui, tui, number, name in self.rows("MRSTY", "CUI", "TUI", "STN", "STY"):
            self.made.has_type(cui, tui, name, number)

    def _definitions(self) -> None:
        best: dict[str, int] = defaultdict(int)
        for (sab, _), rank in self.ranks.items():
            best[sab] = max(best[sab], rank)
        columns = ("CUI", "DEF", "SAB", "ATUI", "SUPPRESS")
        for cui, text, sab, atui, suppress in self.rows("MRDEF", *columns):
            if self._is_wanted(sab, suppress):
                self.made.define(cui, text, (-best[sab], atui))

    def _relations(self) -> None:
        columns = ("CUI1", "CUI2", "REL", "RELA", "SAB", "RG", "SUPPRESS")
        for first, second, rel, rela, sab, group, suppress in self.rows("MRREL", *columns):
            if len(rela or rel) > MAX_RELATION or not (rela or rel):
                self.report.quarantine(*self.place, f"expected a relation, got {(rela or rel)[:20]!r}")
            elif self._is_wanted(sab, suppress):
                name = RELATIONS[rel] if rel in NOISE else rela or RELATIONS.get(rel, rel)
                self.made.relate(second, name, first, sab, group)

    def _attributes(self) -> None:
        columns = ("CUI", "ATN", "SAB", "ATV", "SUPPRESS")
        for cui, attribute, sab, value, suppress in self.rows("MRSAT", *columns):
            if self._is_wanted(sab, suppress):
                self.made.attribute(cui, attribute, sab, value)

    def _retired(self) -> None:
        for cui, rel, version, successor in self.rows("MRCUI", "CUI1", "REL", "VER", "CUI2"):
            self.made.retire(cui, version, rel, successor)

    def _is_wanted(self, sab: str, suppress: str) -> bool:
        if suppress not in KEPT_SUPPRESS and "suppressible" not in self.wanted.also:
            self.report.skip(SUPPRESSED)
        elif not self.wanted.wants_source(sab):
            self.report.skip(OTHER_SAB)
        else:
            return True
        return False

    def _named(self) -> str:
        """The release by ``release.dat``, or by a folder that is called ``2025AA`` or ``2016-09``."""
        folder = self.files["MRCONSO"][0].absolute().parent
        for file in (folder / "release.dat", folder.parent / "release.dat"):
            if file.is_file():
                said = re.search(r"^umls\.release\.name\s*=\s*(\S+)", file.read_text("utf-8", "replace"), re.M)
                if said:
                    return said[1]
        names = (re.fullmatch(r"(?:19|20)\d\d(?:A[A-C]|-\d\d)", part.name) for part in (folder, folder.parent))
        return next((name[0] for name in names if name), "")
