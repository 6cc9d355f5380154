"""Labelled examples: one reader function per format, all in one table."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from kg.errors import ConfigError, InputError
from models.examples import Example, Splits, read_json_lines, read_lines, stratified_split, tag_words
from models.readers import education, finance, law, medicine, patents, relations
from models.table_reader import Columns, table


def sample_desks(path: Path) -> Splits:
    """The project's own sample, each sentence with the coverage desk that it goes to."""
    return _by_split(
        path,
        ("id", "text", "label"),
        lambda row: Example(id=str(row["id"]), text=str(row["text"]), label=str(row["label"])),
    )


def sample_tags(path: Path) -> Splits:
    """The project's own sample, with its entity spans as IOB2 tags."""

    def example(row: dict[str, object]) -> Example:
        text, spans = str(row["text"]), row["entities"]
        assert isinstance(spans, list)
        words, tags = tag_words(text, [(span["start"], span["end"], span["type"]) for span in spans])
        return Example(id=str(row["id"]), text=text, words=words, tags=tags)

    return _by_split(path, ("id", "text", "entities"), example)


def phrasebank(path: Path) -> Splits:
    """Financial PhraseBank, ``text@label`` in latin-1, 80/20 stratified; a tenth of the 80 becomes validation."""
    examples, seen = [], set()
    for number, line in enumerate(read_lines(path, encoding="latin-1"), 1):
        text, at, label = line.rpartition("@")
        if not at or label not in {"negative", "neutral", "positive"}:
            raise InputError(path, f"expected text@label, got {line[:60]!r}", line=number)
        if text not in seen:  # a sentence on both sides of the split would be a leak
            seen.add(text)
            examples.append(Example(id=f"{number}", text=text, label=label))
    train, test = stratified_split(examples, share=0.2, seed=0)
    train, validation = stratified_split(train, share=0.1, seed=0)
    return Splits(train=train, validation=validation, test=test)


def conll_folder(path: Path) -> Splits:
    """CoNLL-2003 columns (word … tag, IOB1) in ``train/*.txt`` and ``test/*.txt``; a tenth of train is validation."""
    parts = {name: sorted((path / name).glob("*.txt")) for name in ("train", "test")}
    if not all(parts.values()):
        raise InputError(path, "expected the folders train and test with .txt files in CoNLL format")
    read = {name: tuple(example for file in files for example in _columns(file)) for name, files in parts.items()}
    train, validation = stratified_split(read["train"], share=0.1, seed=0)
    return Splits(train=train, validation=validation, test=read["test"])


def bio_folder(path: Path) -> Splits:
    """``word<TAB>tag`` in ``train.tsv``, ``devel.tsv`` and ``test.tsv``; a blank line ends a sentence."""
    train, validation, test = (tuple(_columns(path / f"{name}.tsv")) for name in ("train", "devel", "test"))
    return Splits(train=train, validation=validation, test=test)


Reader: TypeAlias = Callable[[Path], Splits]
READERS: Mapping[str, Reader] = {
    "sample_desks": sample_desks,
    "sample_tags": sample_tags,
    "phrasebank": phrasebank,
    "conll_folder": conll_folder,
    "bio_folder": bio_folder,
    **relations.READERS,
    **finance.READERS,
    **law.READERS,
    **medicine.READERS,
    **patents.READERS,
    **education.READERS,
    "table": table,
}


def read_task(reader: str, path: Path, columns: Columns | None = None) -> Splits:
    """Read a task's splits.

    Args:
        columns: of the reader ``table``.

    Raises:
        ConfigError: no such reader. InputError: the data is not there or not of its format.
    """
    if reader not in READERS:
        raise ConfigError(f"There is no reader {reader!r}; known: {', '.join(READERS)}.")
    splits = table(path, columns) if reader == "table" else READERS[reader](path)
    if not splits.train or not splits.test:
        found = f"{len(splits.train)} training and {len(splits.test)} test examples"
        raise InputError(path, f"reader {reader!r} found {found}; expected some of both")
    return splits


def _by_split(path: Path, keys: Sequence[str], example: Callable[[dict[str, object]], Example]) -> Splits:
    """The examples of a JSON lines file whose rows say to which split they belong."""
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for number, row in read_json_lines(path, ("split", *keys)):
        split = str(row["split"])
        if split not in parts:
            raise InputError(path, f"split {split!r}; expected {', '.join(parts)}", line=number)
        parts[split].append(example(row))
    return Splits(**{name: tuple(examples) for name, examples in parts.items()})


def _columns(path: Path) -> Iterator[Example]:
    """Sentences of a column file: first column the word, last one the tag; IOB1 becomes IOB2."""
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_lines(path), ""], 1):
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            if len(columns) < 2:
                raise InputError(path, f"expected a word and a tag, got {line!r}", line=number)
            tag = columns[-1]
            if not re.fullmatch(r"O|[BI]-.+", tag):
                raise InputError(path, f"expected a tag O, B-… or I-…, got {tag!r}", line=number)
            if tag.startswith("I-") and (not tags or tags[-1][1:] != tag[1:]):
                tag = "B-" + tag[2:]
            words.append(columns[0])
            tags.append(tag)
        elif words:
            yield Example(id=f"{path.stem}:{number}", text=" ".join(words), words=tuple(words), tags=tuple(tags))
            words, tags = [], []
