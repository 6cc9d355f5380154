"""Financial texts: scores of opinions, questions about reports, credit risk."""

import re
from collections.abc import Iterator
from pathlib import Path

from kg.errors import InputError
from models.examples import Example, Splits, apart, expecting, read_csv, read_json, split_groups, stratified_split

RISKS = {"0": "neutral", "1": "positive", "2": "risk"}
"""Codes in the file; its README has -1 where the file has 2."""


def fiqa(path: Path) -> Splits:
    """FiQA 2018, task 1: headlines and posts, the company that is spoken of, and a score in [-1, 1]; its own split.

    One sentence may speak of two companies with two scores, so the company is written before it.
    """
    parts = {
        part: [pair for kind in ("headline", "post") for pair in _scores(path / f"task1_{kind}_ABSA_{part}.json")]
        for part in ("train", "test")
    }
    return split_groups(parts["train"], test=[example for _, example in parts["test"]])


def _scores(file: Path) -> Iterator[tuple[str, Example]]:
    for key, row in read_json(file).items():
        with expecting(file, f"a sentence with targets and scores at {key!r}"):
            for number, said in enumerate(row["info"]):
                yield (
                    row["sentence"],
                    Example(
                        id=f"{file.stem}:{key}:{number}",
                        text=f"{said['target']}: {row['sentence']}",
                        value=float(said["sentiment_score"]),
                    ),
                )


def tatqa(path: Path) -> Splits:
    """TAT-QA (arXiv 2105.07624), questions that a span of the text answers; train on ``dev``, test on ``test_gold``.

    The passage is the paragraphs that the data calls relevant: reading, not retrieval. An answer that its annotator
    worded anew is nowhere in them and left out.
    """
    train, test = (list(_spans(path / f"tatqa_dataset_{part}.json")) for part in ("dev", "test_gold"))
    return split_groups(train, test=[example for _, example in test])


def _spans(file: Path) -> Iterator[tuple[str, Example]]:
    for number, context in enumerate(read_json(file), 1):
        with expecting(file, f"paragraphs and questions in context {number}"):
            paragraphs = {str(paragraph["order"]): paragraph["text"] for paragraph in context["paragraphs"]}
            for question in context["questions"]:
                if (question["answer_type"], question["answer_from"]) != ("span", "text"):
                    continue
                text = "\n".join(paragraphs[order] for order in question["rel_paragraphs"])
                found = re.search(re.escape(question["answer"][0]), text, re.IGNORECASE)
                if found:
                    answers = ((found.start(), found.group()),)
                    asked = question["question"]
                    yield context["table"]["uid"], Example(id=question["uid"], text=text, second=asked, answers=answers)


def credit_risk(path: Path) -> Splits:
    """Sentences of Chinese annual reports with their bearing on credit risk, 80/20 stratified; a tenth validates."""
    examples: dict[str, Example] = {}
    for number, row in read_csv(path, ("sentences", "sign")):
        if row["sign"] not in RISKS:
            raise InputError(path, f"sign {row['sign']!r}; expected {', '.join(RISKS)}", line=number)
        text = row["sentences"]
        examples.setdefault(text, Example(id=str(number), text=text, label=RISKS[row["sign"]]))
    train, test = stratified_split(tuple(examples.values()), share=0.2, seed=0)
    train, validation = stratified_split(train, share=0.1, seed=0)
    return apart(train, validation, test)


READERS = {"fiqa": fiqa, "tatqa": tatqa, "credit_risk": credit_risk}
