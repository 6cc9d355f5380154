"""Texts come out of every format as they went in, one at a time, and what cannot be read is named."""

import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kg.errors import InputError
from models.corpus import html_text, read_corpus

TEXTS = ["Première ligne", 'a "quoted", comma', "two\nlines", "Zürich — ½"]


def written(file: Path, texts: list[str], key: str = "text") -> Path:
    if file.suffix == ".jsonl":
        rows = (json.dumps({key: text, "id": number}) + "\n" for number, text in enumerate(texts))
        file.write_text("".join(rows), encoding="utf-8")
    elif file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"id": range(len(texts)), key: texts}), file, row_group_size=2)
    else:
        with file.open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
            rows.writerows([("id", key), *enumerate(texts)])
    return file


def lines(file: Path, *texts: str, encoding: str = "utf-8") -> Path:
    file.write_text("".join(text + "\n" for text in texts), encoding=encoding)
    return file


def zipped(file: Path) -> Path:
    target = file.with_name(file.name + ".gz")
    target.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return target


PACKED = pytest.mark.parametrize("packed", [lambda file: file, zipped], ids=["plain", "gz"])
Packed = Callable[[Path], Path]


@PACKED
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_a_table_gives_back_the_texts_that_were_written(suffix: str, packed: Packed, tmp_path: Path) -> None:
    file = packed(written(tmp_path / f"a{suffix}", [*TEXTS, "", "x" * 200_000]))
    assert list(read_corpus(file)) == [*TEXTS, "x" * 200_000]
    other = packed(written(tmp_path / f"b{suffix}", TEXTS, key="body"))
    assert list(read_corpus(other, key="body")) == TEXTS


@PACKED
def test_a_text_file_has_a_text_a_line(packed: Packed, tmp_path: Path) -> None:
    file = packed(lines(tmp_path / "a.txt", "Première ligne", "", "second line"))
    assert list(read_corpus(file)) == ["Première ligne", "second line"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(str.strip), max_size=5))
def test_any_text_survives_every_table(texts: list[str], tmp_path: Path) -> None:
    for suffix in (".jsonl", ".csv", ".parquet"):
        if texts:
            assert list(read_corpus(written(tmp_path / f"a{suffix}", texts))) == [text.strip() for text in texts]


@PACKED
def test_a_page_gives_its_blocks_and_nothing_that_is_on_every_page(packed: Packed, tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>T</title><style>p {}</style></head><body><nav><a>Home</a></nav>
    <h1>Annual   <em>report</em></h1><p>Revenue rose<br>by 5&nbsp;% &amp; more.<script>alert(1)</script></p>
    <table><tr><td>2020</td><td>7</td></tr></table><ul><li>Zürich<li>Genf</ul><footer>© All rights</footer></body>"""
    expected = "Annual report\nRevenue rose\nby 5 % & more.\n2020 7\nZürich\nGenf"
    assert html_text(page) == expected
    file = tmp_path / "a.html"
    file.write_text(page, encoding="utf-8")
    assert list(read_corpus(packed(file))) == [expected]
    old = tmp_path / "old.htm"
    old.write_bytes('<meta charset="windows-1252"><p>Zürich “now”'.encode("cp1252"))
    assert list(read_corpus(packed(old))) == ["Zürich “now”"]


def test_a_folder_gives_the_texts_of_all_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    zipped(written(tmp_path / "b" / "x.jsonl", TEXTS))
    lines(tmp_path / "a.txt", "first")
    lines(tmp_path / "README.md", "not of the corpus")
    assert list(read_corpus(tmp_path)) == ["first", *TEXTS]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no corpus file"):
        list(read_corpus(tmp_path / "empty"))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_a_corpus_is_never_in_memory_whole(suffix: str, tmp_path: Path) -> None:
    texts = [f"{number} " + "stock and bond " * 300 for number in range(5000)]
    file = lines(tmp_path / "a.txt", *texts) if suffix == ".txt" else written(tmp_path / f"a{suffix}", texts)
    size = sum(map(len, texts))
    next(read_corpus(file))  # what is imported at first use is not the corpus
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    read = arrow = 0
    for text in read_corpus(file):
        read += len(text)
        arrow = max(arrow, pyarrow.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1] + arrow
    tracemalloc.stop()
    assert read == size - len(texts)  # without the blank at each end
    assert peak < size / 10


@pytest.mark.parametrize("name", ["a.doc", "a.doc.gz", "a"])
def test_a_corpus_of_another_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a corpus is a folder or one of \.txt, \.jsonl"):
        list(read_corpus(lines(tmp_path / name, "x")))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "fine"}\n{', ":2: not JSON"),
        ("a.jsonl", '{"text": "fine"}\n{"txt": "a"}', ":2: expected an object with text"),
        ("a.jsonl", '{"text": "fine"}\n{"text": 7}', ":2: expected a text in 'text', got '7'"),
        ("a.csv", "id,body\n1,x\n", ":1: has no column 'text', only id, body"),
        ("a.csv", "id,text\n1,fine\n2\n", ":3: expected 2 fields"),
        ("a.csv", 'id,text\n1,fine\n2,"open\n', ":3: not CSV: unexpected end of data"),
        ("a.parquet", "PAR1 not at all", ": cannot be read: Parquet magic bytes not found"),
        ("a.html", '<meta charset="klingon">x', ": is in an encoding that is not known: unknown encoding: klingon"),
    ],
)
def test_what_is_malformed_is_named_with_its_line(name: str, content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    for one in (file, zipped(file)):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(InputError) as caught:
            list(read_corpus(one))
        assert str(caught.value).startswith(f"{one}{said}")
        assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    for suffix in (".txt", ".csv"):
        file = zipped(lines(tmp_path / f"a{suffix}", "text", *(f"line {i * i}" for i in range(500))))
        whole = file.read_bytes()
        for damaged in (whole[:-20], whole[:40] + b"\xff" * 40 + whole[80:], b"no archive"):
            file.write_bytes(damaged)
            with pytest.raises(InputError, match="cannot be read"):
                list(read_corpus(file))


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    for suffix in (".txt", ".csv", ".html"):
        file = lines(tmp_path / f"a{suffix}", "text", "Zürich", encoding="latin-1")
        with pytest.raises(InputError, match="cannot be read"):
            list(read_corpus(file))
