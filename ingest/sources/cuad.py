"""CUAD (arXiv 2103.06268) as a party graph: contracts, their types, parties, governing law, dates."""

import csv
import re
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from ingest.report import Report
from ingest.sources.reading import Making, Reading, slug
from kg.errors import InputError
from kg.types import Name

LICENCE = "CC BY 4.0 (CUAD v1, The Atticus Project)"
DATES = ("Agreement Date", "Effective Date", "Expiration Date")
COLUMNS = (
    "Filename",
    "Document Name-Answer",
    "Parties-Answer",
    "Governing Law-Answer",
    *(f"{d}-Answer" for d in DATES),
)
_PARTY = re.compile(r"\s*([^(;]*[^(;\s])\s*(?:\(([^()]*)\))?")


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """Folders with ``master_clauses.csv``, or that file: what its answers say of the 510 contracts.

    A party is named in another way for each role, so that ``Licensor`` is on the edge and not a name of the company.
    Whoever trains the extraction of parties on the same contracts must not use this graph: it knows the answers.

    Raises:
        InputError: the file is missing or has no such columns.
    """
    made = Making(source_id, prefix, report)
    for path in paths:
        for row in _rows(path / "master_clauses.csv" if path.is_dir() else path, report):
            _contract(row, made)
    return Reading(release="", items=made.items(), licence=LICENCE)


def _rows(file: Path, report: Report) -> Iterator[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise InputError(file, f"expected the columns {', '.join(COLUMNS)}", line=1)
            for row in reader:
                report.read += 1
                if None in row.values() or not row["Filename"]:
                    report.quarantine(
                        file, reader.line_num, f"expected {len(reader.fieldnames or ())} fields and a name"
                    )
                else:
                    report.keep("contract")
                    yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(file, f"cannot be read: {error}") from error


def _contract(row: dict[str, str], made: Making) -> None:
    said = {column: " ".join(row[f"{column}-Answer"].split()) for column in ("Document Name", "Governing Law", *DATES)}
    properties = {slug(column).replace("-", "_"): iso(said[column]) for column in DATES if said[column]}
    if said["Document Name"]:
        properties["title"] = said["Document Name"]
    stem = re.sub(r"(?<=.)\.[A-Za-z]{1,5}$", "", row["Filename"])
    contract = made.entity(slug(stem), name=stem, properties=properties)
    for kind in types(stem):
        made.edge(contract, "INSTANCE_OF", made.entity(f"type-{slug(kind)}", name=kind, kinds=("Class",)))
    for law in filter(re.compile(r"[^\W\d_]").search, map(str.strip, said["Governing Law"].split(";"))):
        made.edge(contract, "GOVERNED_BY", made.entity(f"law-{slug(law)}", name=law))
    for name, called in parties(" ".join(row["Parties-Answer"].split())):
        shared = set(slug(name).split("-")) & set(slug(called).split("-"))
        names = [Name(name), *([Name(called, "syn")] if shared else [])]
        party = made.entity(f"party-{slug(name)}", names=names)
        made.edge(contract, "HAS_PARTY", party, **({"role": called} if called and not shared else {}))


def types(stem: str) -> list[str]:
    """``…_EX-10.10_Co-Branding Agreement_ Agency Agreement`` is of two types."""
    parts = [part for part in re.split(r"_| - |-(?=[A-Z]{3})", stem) if "agreement" in part.casefold()]
    return [re.sub(r"^.*EX-[^-]*-|\W*\d*\W*$", "", part).strip().title() for part in parts]


def parties(answer: str) -> Iterator[tuple[str, str]]:
    """Name of each party and what the contract calls it: ``I-ESCROW, INC. ("i-Escrow"); …``."""
    for part in answer.split(";"):
        match = _PARTY.match(part)
        if match and not re.search(r"\b(?:part(?:y|ies)|collectively|individually)\b|\[", match[1], re.IGNORECASE):
            said = re.findall(r'["“]([^"”]+)["”]', match[2] or "")
            yield match[1].rstrip(","), said[0].strip() if said else ""


def iso(said: str) -> str:
    """``6/21/1999`` → ``1999-06-21``; what is no date (``perpetual``, a blank in it) as it is."""
    match = re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})", said)
    try:
        century = 0 if match is None or len(match[3]) == 4 else 1900 if int(match[3]) > 50 else 2000
        return date(int(match[3]) + century, int(match[1]), int(match[2])).isoformat() if match else said
    except ValueError:
        return said
