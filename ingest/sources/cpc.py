"""The Cooperative Patent Classification: codes with titles and definitions, what each is below, what it refers to."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.report import Report
from ingest.sources.reading import Making, Reading, json_lines
from kg.types import Name

LICENCE = "CPC scheme and definitions of the EPO and the USPTO (cooperativepatentclassification.org)"
SECTIONS = {
    "A": "Human necessities",
    "B": "Performing operations; transporting",
    "C": "Chemistry; metallurgy",
    "D": "Textiles; paper",
    "E": "Fixed constructions",
    "F": "Mechanical engineering; lighting; heating; weapons; blasting",
    "G": "Physics",
    "H": "Electricity",
    "Y": "General tagging of new technological developments",
}
_CODE = re.compile(r"([A-HY])(?:(\d\d)(?:([A-Z])(?:(\d+)/(\d+))?)?)?")


def read(paths: Sequence[Path], source_id: str, report: Report, prefix: str) -> Reading:
    """JSON lines of code, title, definition and refs, also packed; of a code that comes twice, the first is read.

    A group is below its main group, for the dots that place it among its fellows are not in this data; a main group is
    below its subclass, that below its class and section. References to codes without a definition are left out.

    Raises:
        InputError: a file cannot be read.
    """
    made = Making(source_id, prefix, report)
    found: dict[str, list[str]] = {}
    for path in paths:
        for number, row in json_lines(path, ("code", "title", "definition", "refs"), report):
            code, refs = str(row["code"]), row["refs"]
            if not _CODE.fullmatch(code) or not isinstance(refs, list):
                report.quarantine(path, number, f"expected a code such as A01B1/02 and a list of refs, got {code!r}")
                continue
            report.read += len(refs)
            if code in found:
                report.skip("code that was described before", 1 + len(refs))
                continue
            report.keep("definition")
            found[code] = [str(ref) for ref in refs]
            title = plain(str(row["title"]))
            definition = (
                str(row["definition"]).removeprefix("Definition statement ").removeprefix("This place covers: ")
            )
            names = [Name(title), Name(code, "syn")] if title else [Name(code)]
            made.entity(code, names=names, definition=definition or None, kinds=("Class",))
    for code, refs in found.items():
        for below, above in above_it(code, found):
            if above in SECTIONS:
                made.entity(above, name=SECTIONS[above], kinds=("Class",))
            made.edge(made.id(below), "SUBCLASS_OF", made.id(above))
        known = [ref for ref in refs if ref in found and ref != code]
        report.keep("reference", len(known))
        report.skip("reference to itself, or to a code without a definition", len(refs) - len(known))
        for ref in known:
            made.edge(made.id(code), "REFERS_TO", made.id(ref))
    return Reading(release="", items=made.items(), licence=LICENCE)


def above_it(code: str, known: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Steps from a code up to its section, over main groups that are known."""
    main = code.partition("/")[0] + "/00"
    steps = [main, code[:4], code[:3], code[0]]
    for above in steps:
        if above != code and len(above) < len(code) + (above == main) and (above != main or main in known):
            yield code, above
            code = above


def plain(title: str) -> str:
    """A title without references in brackets and without the braces of what only the CPC has."""
    return " ".join(re.sub(r"\([^()]*\)", " ", re.sub(r"[{}]", "", title)).split()).strip(" ;,")
