"""Anybody's own table becomes examples, and what is wrong with it is named by file, line and column."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kg.errors import ConfigError, InputError
from models.data import read_task
from models.examples import Example, Mention, Splits
from models.recipe import load_recipe
from models.table_reader import Columns, table

TEN_LINES = """
name = "mine"
summary = "Our own reviews."
graph = {{ source = "rdf", paths = ["graph.ttl"], source_id = "ours" }}

[[tasks]]
name = "polarity"
kind = "sequence_classification"
reader = "table"
path = "{path}"
columns = {{ text = "sentence", label = "polarity" }}
"""
ROWS = [{"sentence": f"Text, {i}\nin two lines.", "polarity": "good" if i % 4 else "bad"} for i in range(40)]


def csv_of(file: Path, rows: list[dict[str, Any]], sign: str = ",") -> Path:
    quoted = [[json.dumps(str(v), ensure_ascii=False).replace("\\n", "\n") for v in row.values()] for row in rows]
    file.write_text("\n".join(sign.join(cells) for cells in [list(rows[0]), *quoted]) + "\n", encoding="utf-8")
    return file


def json_of(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def texts(splits: Splits) -> dict[str, list[str]]:
    return {part: [example.text for example in getattr(splits, part)] for part in Splits.PARTS}


def test_ten_lines_make_a_task_of_a_table_whatever_its_format(tmp_path: Path) -> None:
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    files = [
        csv_of(tmp_path / "a.csv", ROWS),
        csv_of(tmp_path / "a.tsv", ROWS, "\t"),
        json_of(tmp_path / "a.jsonl", ROWS),
    ]
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(files[0].read_bytes()))
    found = []
    for file in (*files, parquet, packed):
        recipe = tmp_path / "mine.toml"
        recipe.write_text(TEN_LINES.format(path=file), encoding="utf-8")
        (task,) = load_recipe(str(recipe)).tasks
        splits = read_task(task.reader, file, task.columns)
        found.append(texts(splits))
    assert all(one == found[0] for one in found)
    assert [len(found[0][part]) for part in Splits.PARTS] == [32, 4, 4]
    assert Counter(example.label for example in splits.test) == {"good": 3, "bad": 1}
    assert sorted(text for part in found[0].values() for text in part) == sorted(row["sentence"] for row in ROWS)


def test_rows_or_files_may_say_to_which_part_they_belong(tmp_path: Path) -> None:
    rows = [{"text": f"{part} {i}", "label": "x", "split": part} for part in ("train", "dev", "test") for i in range(2)]
    found = texts(table(json_of(tmp_path / "a.jsonl", rows)))
    assert found == {"train": ["train 0", "train 1"], "validation": ["dev 0", "dev 1"], "test": ["test 0", "test 1"]}
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in ("train", "test"):
        json_of(folder / f"{part}.jsonl", [{"text": f"{part} {i}", "label": "x"} for i in range(10)])
    splits = table(folder)
    assert [len(getattr(splits, part)) for part in Splits.PARTS] == [9, 1, 10]
    assert len({example.id for part in Splits.PARTS for example in getattr(splits, part)}) == 20
    (folder / "test.jsonl").rename(folder / "held.jsonl")
    with pytest.raises(InputError, match=r"expected the files train and test, .* got \['held', 'train'\]"):
        table(folder)


def test_all_that_is_asked_of_one_text_is_on_one_side(tmp_path: Path) -> None:
    rows = [{"text": f"text {i % 20}", "second": f"question {i}", "answers": "text"} for i in range(60)]
    found = texts(table(json_of(tmp_path / "a.jsonl", rows)))
    assert not set(found["train"]) & set(found["test"])
    assert len(found["test"]) == 6


@pytest.mark.parametrize("as_csv", [False, True])
def test_each_field_is_read_as_its_kind_needs_it(as_csv: bool, tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "text": "Acme owns Borealis",
        "labels": ["a", "b"],
        "value": 1.5,
        "words": ["Acme", "owns"],
        "tags": ["B-ORG", "O"],
        "head": [0, 4, "ex:0"],
        "tail": [10, 18],
        "answers": {"text": ["owns"], "answer_start": [5]},
        "choices": ["yes", "no"],
        "label": 1,
        "target": "It owns it.",
    }
    file = tmp_path / ("a.csv" if as_csv else "a.jsonl")
    if as_csv:
        said = {name: json.dumps(v) if isinstance(v, list | dict) else str(v) for name, v in row.items()}
        said |= {"labels": "a|b", "words": "Acme owns", "tags": "B-ORG O"}
        cells = ['"' + value.replace('"', '""') + '"' for value in said.values()]
        file.write_text("\n".join([",".join(said), ",".join(cells)]), encoding="utf-8")
    else:
        json_of(file, [row])
    (example,) = table(file).train
    assert example == Example(
        id="2" if as_csv else "1",
        text="Acme owns Borealis",
        labels=("a", "b"),
        value=1.5,
        words=("Acme", "owns"),
        tags=("B-ORG", "O"),
        pair=(Mention(start=0, end=4, entity="ex:0"), Mention(start=10, end=18, entity=None)),
        answers=((5, "owns"),),
        choices=("yes", "no"),
        label="no",
        target="It owns it.",
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"value": "high"}, "column 'value': expected a number, got 'high'"),
        ({"value": "nan"}, "column 'value': expected a number"),
        ({"words": ["a"], "tags": ["O", "O"]}, "column 'tags': expected one for each of the 1 words, got 2"),
        ({"labels": 3}, "column 'labels': expected a list"),
        ({"head": [0, 4]}, "column 'head': expected head and tail"),
        ({"head": [0, 4], "tail": [5, 90]}, "expected head and tail, each .* within the 9 signs"),
        ({"head": [0, 4], "tail": [2, 6]}, r"'tail': expected it apart from the head, got \(2, 6\) over \(0, 4\)"),
        ({"answers": "Borealis"}, "column 'answers': 'Borealis' does not stand there in the text"),
        ({"answers": [[1, "Acme"]]}, "column 'answers': 'Acme' does not stand there"),
        ({"choices": ["a", "b"], "label": "c"}, "column 'label': expected one of the 2 choices or its number, got 'c'"),
        ({"split": "exam"}, "column 'split': expected train, validation, test, .*, got 'exam'"),
        ({"id": "first"}, "column 'id': 'first' was there before"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    first = {"text": "Acme rose", **dict.fromkeys(row), "id": "first"}
    if "split" in row:
        first["split"] = "train"
    file = json_of(tmp_path / "a.jsonl", [first, {"text": "Acme rose", **row}])
    with pytest.raises(InputError, match=said) as caught:
        table(file)
    assert str(caught.value).startswith(f"{file}:2: column ")


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    file = csv_of(tmp_path / "a.csv", ROWS)
    with pytest.raises(InputError, match=r"no column 'mood', which columns.label names; it has \['sentence', 'pol"):
        table(file, Columns(text="sentence", label="mood"))
    with pytest.raises(InputError, match="has no column 'text'; name the one with the texts in columns.text"):
        table(file)


@pytest.mark.parametrize(
    "given",
    [
        {"answers": "Acme"},
        {"second": "Who?"},
        {"label": "x"},
        {"labels": ["x"]},
        {"choices": ["x", "y"], "label": "x"},
        {"head": [0, 4], "tail": [5, 9]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_line_of_json_that_lacks_a_field_takes_it_from_no_other(given: dict[str, Any], tmp_path: Path) -> None:
    """A column is known by any row that has it, not by the first."""
    splits = table(json_of(tmp_path / "a.jsonl", [{"text": "No answer."}, {"text": "Acme rose", **given}]))
    _, second = sorted((*splits.train, *splits.validation, *splits.test), key=lambda example: example.id)
    bare = Example(id="2", text="Acme rose")
    assert {name for name in vars(bare) if getattr(second, name) != getattr(bare, name)} == (
        {"pair"} if "head" in given else set(given)
    )


def test_a_table_that_is_none_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(InputError, match="a table is one of .csv, .tsv, .jsonl, .parquet; this is '.xlsx'"):
        table(tmp_path / "a.xlsx")
    (tmp_path / "b.csv").write_text("text,label\na,x\nb\n")
    with pytest.raises(InputError, match="b.csv:3: expected 2 fields"):
        table(tmp_path / "b.csv")
    for name in ("c.parquet", "d.csv.gz"):
        (tmp_path / name).write_text("nonsense")
        with pytest.raises(InputError, match="cannot be read"):
            table(tmp_path / name)


def test_unknown_fields_of_columns_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(TEN_LINES.format(path="a.csv").replace("label =", "lable ="), encoding="utf-8")
    with pytest.raises(ConfigError, match="tasks.0.columns.lable"):
        load_recipe(str(recipe))
