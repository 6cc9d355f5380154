"""Readers of legal texts: contracts are on one side only, and what is marked in them is not shown."""

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from kg.errors import InputError
from models.data import read_task
from tests.models.files import everything, put, rows

CUAD = ("Document Name", "Parties", "Agreement Date", "Effective Date", "Expiration Date", "Governing Law", "Insurance")


def cuad(folder: Path, count: int = 10, insurance: str = "['{n} insures.', 'Laws of Utah govern {n}.']") -> Path:
    header = ",".join(["Filename", *(f"{name},{name}-Answer" for name in CUAD)])
    table, contracts = [header], []
    for n in range(count):
        cells = {
            "Document Name": ("['AGREEMENT']", "AGREEMENT"),
            "Parties": (f"['Acme{n} Inc.', 'Lender']", f"Acme{n} Inc. (Lender)"),
            "Agreement Date": ("['May 1, 2001']", "5/1/2001"),
            "Governing Law": (f"['Laws of Utah govern {n}.']", "Utah"),
            "Insurance": (insurance.format(n=n), "Yes"),
        }
        values = [value for name in CUAD for value in cells.get(name, ("[]", ""))]
        table.append(",".join([f"A&{n}.pdf", *(f'"{value}"' for value in values)]))
        padding = " ".join(f"Filler {n} {i}." for i in range(200))
        text = f"AGREEMENT of May 1, 2001 by Acme{n} Inc. as Lender. {padding} Laws of Utah govern {n}."
        contracts.append({"name": f"A_{n}.txt", "text": text})
    put(folder / "master_clauses.csv", "\n".join(table) + "\n")
    (folder / "contracts.jsonl.gz").write_bytes(gzip.compress(rows(*contracts).encode()))
    return folder


def test_cuad_clauses_are_split_by_contract_and_know_all_their_types(tmp_path: Path) -> None:
    splits = read_task("cuad_clauses", cuad(tmp_path))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [21, 3, 6]
    first = [(e.text.rstrip(".0123456789"), e.label, e.labels) for e in splits.test[:3]]
    both = ("Governing Law", "Insurance")
    assert first == [("Laws of Utah govern ", label, both) for label in both] + [(first[2][0], "Insurance", both[1:])]
    contracts = [{e.id.split(":")[0] for e in part} for part in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*contracts)) == sum(map(len, contracts))


def test_cuad_questions_are_about_windows_with_and_without_an_answer(tmp_path: Path) -> None:
    splits = read_task("cuad_questions", cuad(tmp_path))
    asked = [e for e in everything(splits) if e.id.startswith("3:")]
    found = {e.second: [words for _, words in e.answers] for e in asked if e.answers}
    assert found == {
        "Who are the parties?": ["Acme1 Inc.", "Lender"],
        "What is the date of the agreement?": ["May 1, 2001"],
        "Which law governs the agreement?": ["Utah"],
    }
    assert Counter(bool(e.answers) for e in asked) == {True: 3, False: 3}
    assert all(e.text.startswith(words, start) for e in asked for start, words in e.answers)
    assert all(len(e.text) <= 1200 for e in asked)


def test_a_cell_of_cuad_that_is_no_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clauses.csv:2: expected a list of texts in each column \(SyntaxError"):
        read_task("cuad_clauses", cuad(tmp_path, insurance="['"))


def contracts(first: int, count: int, hypotheses: Sequence[str] = ("It ends.", "It begins.")) -> dict:
    """Of ContractNLI: the first hypothesis is entailed by the last sentence of each contract."""
    long = "Contract {} is secret. " + "It is a contract of contracts. " * 30
    texts = [long.format(i) + f"Termination: after {i} days." for i in range(first, first + count)]
    choices = [{"choice": "Entailment", "spans": [31]}, {"choice": "NotMentioned", "spans": []}]
    annotations = {f"nda-{number}": choice for number, choice in enumerate(choices)}
    return {
        "documents": [
            {
                "id": i,
                "text": text,
                "spans": [[m.start(), m.end()] for m in re.finditer(r"[^.]+\.", text)],
                "annotation_sets": [{"annotations": annotations}],
            }
            for i, text in enumerate(texts)
        ],
        "labels": {f"nda-{number}": {"hypothesis": words} for number, words in enumerate(hypotheses)},
    }


def test_contract_nli_trains_on_test_and_tests_on_dev(tmp_path: Path) -> None:
    put(tmp_path / "test.json", contracts(0, 10))
    put(tmp_path / "dev.json", contracts(50, 2))
    splits = read_task("contract_nli", tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [18, 2, 4]
    example = splits.test[0]
    assert (example.second, example.label) == ("It ends.", "Entailment")


def test_contract_nli_reads_what_was_marked_in_other_contracts(tmp_path: Path) -> None:
    put(tmp_path / "test.json", contracts(0, 10))
    put(tmp_path / "dev.json", contracts(50, 2))
    splits = read_task("contract_nli", tmp_path)
    entailed = [example.text for example in (*splits.train, *splits.test) if example.label == "Entailment"]
    assert all(len(text) <= 800 and "Termination" in text for text in entailed)


def test_contract_nli_names_hypotheses_that_were_not_learnt(tmp_path: Path) -> None:
    put(tmp_path / "test.json", contracts(0, 10))
    put(tmp_path / "dev.json", contracts(50, 2, hypotheses=("It ends.", "It lasts.")))
    with pytest.raises(
        InputError, match=r"expected 5 or more contracts .* the hypotheses of those \(KeyError: 'It las"
    ):
        read_task("contract_nli", tmp_path)


def test_policyqa_refuses_an_answer_that_is_not_where_it_says(tmp_path: Path) -> None:
    def site(name: str, start: int = 3) -> dict:
        asked = {"id": f"q{name}", "question": "What?", "answers": [{"answer_start": start, "text": name}]}
        return {"title": name, "paragraphs": [{"context": f"At {name} we care.", "qas": [asked]}]}

    put(tmp_path / "dev.json", {"data": [site(f"site{i}") for i in range(10)]})
    put(tmp_path / "test.json", {"data": [site("other")]})
    splits = read_task("policyqa", tmp_path)
    assert [len(splits.train), len(splits.validation), splits.test[0].answers] == [9, 1, ((3, "other"),)]
    put(tmp_path / "test.json", {"data": [site("other", start=4)]})
    with pytest.raises(InputError, match=r"test.json: expected the form of SQuAD.*'other' is not where it should be"):
        read_task("policyqa", tmp_path)
