"""Medical texts: relations of chemicals and proteins, questions about abstracts, notes of a consultation."""

import re
from collections.abc import Iterator
from pathlib import Path

from kg.errors import InputError
from models.examples import (
    Example,
    Mention,
    Splits,
    apart,
    expecting,
    read_csv,
    read_json,
    read_json_lines,
    stratified_split,
)

_MARKER = re.compile(r"<< | >>|\[\[ | \]\]")
_OPENING = {"<< ": " >>", "[[ ": " ]]"}
NOTES = ("TrainingSet", "ValidationSet", "TestSet-1-MEDIQA-Chat-2023")


def chemprot(path: Path) -> Splits:
    """ChemProt in the form of SciBERT (arXiv 1903.10676): a pair marked in a sentence, 13 relations, its own split."""
    return apart(*(list(_marked(path / f"{part}.txt")) for part in ("train", "dev", "test")))


def _marked(file: Path) -> Iterator[Example]:
    for number, row in read_json_lines(file, ("text", "label")):
        marked, text, last = str(row["text"]), "", 0
        places: dict[str, int] = {}
        for marker in _MARKER.finditer(marked):
            text += marked[last : marker.start()]
            places[marker.group()] = len(text)
            last = marker.end()
        text += marked[last:]
        if len(places) != 4:
            raise InputError(file, f"expected << one >> and [[ another ]] entity, got {marked[:60]!r}", line=number)
        head, tail = (Mention(start=places[opens], end=places[ends], entity=None) for opens, ends in _OPENING.items())
        yield Example(id=f"{file.stem}:{number}", text=text, label=str(row["label"]), pair=(head, tail))


def pubmedqa(path: Path) -> Splits:
    """PubMedQA (arXiv 1909.06146): does the abstract answer the question with yes, no or maybe; its own 500 test ones.

    The conclusion of the abstract (``LONG_ANSWER``) is left out: it is the answer in words.
    """
    tested = read_json(path / "test_ground_truth.json")
    file = path / "ori_pqal.json"
    train, test = list[Example](), list[Example]()
    for key, row in read_json(file).items():
        with expecting(file, f"a question with contexts and a decision at {key!r}"):
            text, label = " ".join(row["CONTEXTS"]), str(row["final_decision"])
            (test if key in tested else train).append(Example(id=key, text=text, second=row["QUESTION"], label=label))
    kept, validation = stratified_split(train, share=0.1, seed=0)
    return apart(kept, validation, test)


def mts_dialog(path: Path) -> Splits:
    """MTS-Dialog (EACL 2023): the section of a note that a dialogue gives; its own split with test set 1.

    The label is the section's header.
    """
    return apart(*(list(_notes(path / f"MTS-Dialog-{part}.csv")) for part in NOTES))


def _notes(file: Path) -> Iterator[Example]:
    for number, row in read_csv(file, ("ID", "section_header", "section_text", "dialogue")):
        if not row["dialogue"].strip() or not row["section_text"].strip():
            raise InputError(file, "expected a dialogue and the text of a section", line=number)
        yield Example(
            id=f"{file.stem}:{row['ID']}",
            text=row["dialogue"],
            label=row["section_header"],
            target=" ".join(row["section_text"].split()),
        )


READERS = {"chemprot": chemprot, "pubmedqa": pubmedqa, "mts_dialog": mts_dialog}
