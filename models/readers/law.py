"""Legal texts: clauses, parties and dates of contracts, inference, policies, plain-English summaries."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from models.examples import Example, Splits, expecting, read_csv, read_json, read_json_lines, split_groups
from models.retrieval import word_grams

NO_CLAUSES = frozenset({"Document Name", "Parties", "Agreement Date", "Effective Date", "Expiration Date"})
"""Columns of CUAD that are names and dates; the other 36 are types of clauses."""
QUESTIONS = {
    "Parties": "Who are the parties?",
    "Agreement Date": "What is the date of the agreement?",
    "Effective Date": "When does the agreement take effect?",
    "Expiration Date": "When does the agreement expire?",
    "Governing Law": "Which law governs the agreement?",
}
WINDOW = 1200
"""Characters of a contract that are read at a time, about 300 tokens."""
READ = 800
"""Characters of a contract that are read for a hypothesis: 95 % of what is entailed then has evidence in them."""
FOLDS = 5
"""Parts of the training contracts, each read by what was learnt from the others."""


def cuad_clauses(path: Path) -> Splits:
    """CUAD (arXiv 2103.06268): the type of a clause, 36 of them, split by contract; clauses of one contract are alike.

    A clause with several types is an example for each of them; ``labels`` are all.
    """
    return split_groups(_clauses(path))


def _clauses(path: Path) -> Iterator[tuple[str, Example]]:
    for number, contract, spans, _ in _contracts(path):
        types = defaultdict[str, list[str]](list)
        for column, texts in spans.items():
            for text in () if column in NO_CLAUSES else texts:
                types[text].append(column)
        for place, (text, labels) in enumerate(types.items()):
            for label in labels:
                name = f"{number}:{place}:{label}"
                yield contract, Example(id=name, text=text, label=label, labels=tuple(labels))


def _contracts(path: Path) -> Iterator[tuple[int, str, dict[str, list[str]], dict[str, str]]]:
    """Line, contract, what was marked in it, and the answers in a common form; the last two by column."""
    file = path / "master_clauses.csv"
    for number, row in read_csv(file, ("Filename", *QUESTIONS, *(f"{column}-Answer" for column in QUESTIONS))):
        with expecting(file, "a list of texts in each column", line=number):
            spans = {
                column: [str(text) for text in ast.literal_eval(value)] if value else []
                for column, value in row.items()
                if column != "Filename" and not column.endswith("-Answer")
            }
        yield number, row["Filename"], spans, {column: row[f"{column}-Answer"] for column in spans}


def cuad_questions(path: Path) -> Splits:
    """CUAD: parties, dates and governing law of a contract as questions about a window of its text, by contract.

    For each question that the contract answers, the first window with an answer and one without.
    """
    contracts = {
        _letters(str(row["name"])): str(row["text"])
        for _, row in read_json_lines(path / "contracts.jsonl.gz", ("name", "text"))
    }
    return split_groups(
        (contract, example)
        for number, contract, spans, short in _contracts(path)
        for example in _questions(number, contracts.get(_letters(contract), ""), spans, short)
    )


def _letters(name: str) -> str:
    """What is left of a file name when systems have changed its punctuation."""
    return re.sub(r"[\W_]+", "", name.rpartition(".")[0]).casefold()


def _questions(number: int, text: str, spans: dict[str, list[str]], short: dict[str, str]) -> Iterator[Example]:
    windows = [match.group().strip() for match in re.finditer(rf"(?s).{{1,{WINDOW}}}(?=\s|$)", text)]
    for column, question in QUESTIONS.items():
        found = [tuple(_answers(window, spans[column], short[column])) for window in windows]
        having, lacking = (
            [i for i, answers in enumerate(found) if bool(answers) is wanted] for wanted in (True, False)
        )
        drawn = int.from_bytes(blake2b(f"{number} {column}".encode(), digest_size=8).digest())
        for i in (*having[:1], *([lacking[drawn % len(lacking)]] if having and lacking else [])):
            yield Example(id=f"{number}:{column}:{i}", text=windows[i], second=question, answers=found[i])


def _answers(window: str, spans: Sequence[str], short: str) -> Iterator[tuple[int, str]]:
    """Where the marked texts are; of a whole sentence only the name of the law or the date in it, where it has that."""
    for span in spans:
        start = window.find(span)
        if start >= 0:
            inner = span.find(short) if short else -1
            yield (start + inner, short) if inner >= 0 else (start, span)


def contract_nli(path: Path) -> Splits:
    """ContractNLI (arXiv 2110.01799): what a contract says of 17 hypotheses; trained on ``test``, tested on ``dev``.

    Its training part is not at hand. The text is what ``Evidence`` finds for the hypothesis in the contract, learnt
    from other contracts of ``test``: the marked evidence itself would give away which have none.
    """
    known, asked = (_documents(path / part) for part in ("test.json", "dev.json"))
    grouped = []
    with expecting(path, f"{FOLDS} or more contracts in test.json, and in dev.json the hypotheses of those"):
        for fold in range(FOLDS):
            others = [document for number, document in enumerate(known) if number % FOLDS != fold]
            grouped += list(_inferences(known[fold::FOLDS], Evidence(others)))
        test = [example for _, example in _inferences(asked, Evidence(known))]
    return split_groups(grouped, test=test)


class Marked(NamedTuple):
    """A contract of ContractNLI."""

    name: str
    sentences: list[str]
    choices: dict[str, str]
    """By hypothesis."""
    evidence: dict[str, set[int]]
    """By hypothesis, the sentences that were marked."""


def _documents(file: Path) -> list[Marked]:
    content, documents = read_json(file), []
    with expecting(file, "documents and labels with hypotheses"):
        hypotheses = {key: str(label["hypothesis"]) for key, label in content["labels"].items()}
        for number, document in enumerate(content["documents"], 1):
            with expecting(file, f"text, spans and annotations in document {number}"):
                said = {hypotheses[key]: one for key, one in document["annotation_sets"][0]["annotations"].items()}
                documents.append(
                    Marked(
                        name=f"{file.stem}:{document['id']}",
                        sentences=[document["text"][start:end] for start, end in document["spans"]],
                        choices={hypothesis: str(one["choice"]) for hypothesis, one in said.items()},
                        evidence={hypothesis: set(one["spans"]) for hypothesis, one in said.items()},
                    )
                )
    return documents


class Evidence:
    """Which sentences of a contract say something of a hypothesis: words and word pairs with ridge regression."""

    def __init__(self, documents: Sequence[Marked]) -> None:
        self.hypotheses = sorted({hypothesis for document in documents for hypothesis in document.evidence})
        marked = [
            [i in document.evidence.get(hypothesis, ()) for hypothesis in self.hypotheses]
            for document in documents
            for i in range(len(document.sentences))
        ]
        self.model = make_pipeline(word_grams(), Ridge(solver="sparse_cg"))
        self.model.fit([sentence for document in documents for sentence in document.sentences], np.array(marked, float))

    def of(self, document: Marked) -> dict[str, str]:
        """For each hypothesis the likeliest sentences, in their order, up to ``READ`` characters."""
        scores = self.model.predict(document.sentences).reshape(len(document.sentences), -1)
        return {
            hypothesis: _likeliest(document.sentences, scores[:, number])
            for number, hypothesis in enumerate(self.hypotheses)
        }


def _likeliest(sentences: Sequence[str], scores: NDArray[np.float64]) -> str:
    room, chosen = READ, []
    for i in np.argsort(-scores, kind="stable").tolist():
        if len(sentences[i]) <= room:
            chosen.append(i)
            room -= len(sentences[i]) + 1
    return " ".join(sentences[i].strip() for i in sorted(chosen))


def _inferences(documents: Sequence[Marked], evidence: Evidence) -> Iterator[tuple[str, Example]]:
    for document in documents:
        texts = evidence.of(document)
        for number, (hypothesis, choice) in enumerate(document.choices.items()):
            identifier = f"{document.name}:{number}"
            yield document.name, Example(id=identifier, text=texts[hypothesis], second=hypothesis, label=choice)


def policyqa(path: Path) -> Splits:
    """PolicyQA (Findings of EMNLP 2020), in the form of SQuAD; trained on ``dev``, tested on the sites of ``test``."""
    return split_groups(_squad(path / "dev.json"), test=[example for _, example in _squad(path / "test.json")])


def _squad(file: Path) -> Iterator[tuple[str, Example]]:
    content = read_json(file)
    with expecting(file, "the form of SQuAD: data, paragraphs, qas, answers"):
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                text = paragraph["context"]
                for asked in paragraph["qas"]:
                    answers = tuple((int(answer["answer_start"]), str(answer["text"])) for answer in asked["answers"])
                    if wrong := [words for start, words in answers if not text.startswith(words, start)]:
                        raise ValueError(f"{asked['id']}: {wrong[0]!r} is not where it should be")
                    yield (
                        article["title"],
                        Example(id=asked["id"], text=text, second=asked["question"], answers=answers),
                    )


def legal_summaries(path: Path) -> Splits:
    """Plain English summaries of terms (NLLP 2019); parts of one agreement, or of one site's, stay together."""
    file, grouped = path / "all_v1.json", []
    for key, row in read_json(file).items():
        with expecting(file, f"original_text, reference_summary and doc at {key!r}"):
            example = Example(id=key, text=str(row["original_text"]), target=str(row["reference_summary"]))
            grouped.append((str(row.get("urls") or row["doc"]), example))
    return split_groups(grouped)


READERS = {
    "cuad_clauses": cuad_clauses,
    "cuad_questions": cuad_questions,
    "contract_nli": contract_nli,
    "policyqa": policyqa,
    "legal_summaries": legal_summaries,
}
