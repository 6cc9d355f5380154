"""Every reader gives the splits that its files say, and names file and line where it cannot."""

import json
from collections import Counter
from pathlib import Path

import pytest

from kg.errors import ConfigError, InputError
from models.data import read_task
from models.examples import Example, Splits, stratified_split

ROWS = (
    {
        "split": "train",
        "id": "s1",
        "text": "Acme Bank's fund fell.",
        "label": "banking",
        "entities": [{"start": 0, "end": 9, "type": "BANK"}, {"start": 12, "end": 16, "type": "FUND"}],
    },
    {"split": "test", "id": "s2", "text": "Prices rose.", "label": "markets", "entities": []},
    {"split": "validation", "id": "s3", "text": "It rained.", "label": "markets", "entities": []},
    {"split": "train", "id": "s4", "text": "Zürich", "label": "funds", "entities": []},
)


def lines(file: Path, *texts: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{text}\n" for text in texts), encoding=encoding)
    return file


def sample(folder: Path, *rows: dict) -> Path:
    return lines(folder / "sample.jsonl", *(json.dumps(row) for row in rows or ROWS))


def ids(splits: Splits) -> dict[str, list[str]]:
    return {name: [example.id for example in getattr(splits, name)] for name in ("train", "validation", "test")}


def test_the_sample_says_the_split_of_each_sentence(tmp_path: Path) -> None:
    for reader in ("sample_desks", "sample_tags"):
        splits = read_task(reader, sample(tmp_path))
        assert ids(splits) == {"train": ["s1", "s4"], "validation": ["s3"], "test": ["s2"]}
    assert read_task("sample_desks", sample(tmp_path)).train[0] == Example(
        id="s1", text="Acme Bank's fund fell.", label="banking"
    )


def test_the_spans_of_the_sample_become_tags_of_its_words(tmp_path: Path) -> None:
    example = read_task("sample_tags", sample(tmp_path)).train[0]
    assert example.words == ("Acme", "Bank", "'", "s", "fund", "fell", ".")
    assert example.tags == ("B-BANK", "I-BANK", "O", "O", "B-FUND", "O", "O")


def test_neighbouring_spans_stay_two(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 4, "type": "BANK"}, {"start": 5, "end": 12, "type": "BANK"}]
    row = {"split": "train", "id": "x", "text": "Acme Borealis", "entities": spans}
    assert read_task("sample_tags", sample(tmp_path, row, ROWS[1])).train[0].tags == ("B-BANK", "B-BANK")


@pytest.mark.parametrize("reader", ["sample_desks", "sample_tags"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ('["a"]', "expected an object with split, id, text"),
        ('{"split": "train", "text": "a", "entities": []}', "expected an object with split, id, text"),
        ('{"split": "dev", "id": "1", "text": "a", "label": "x", "entities": []}', "split 'dev'; expected train"),
    ],
)
def test_a_malformed_line_of_the_sample_is_named(reader: str, line: str, reason: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "bad.jsonl", json.dumps(ROWS[0]), json.dumps(ROWS[1]), line)
    with pytest.raises(InputError, match=reason) as caught:
        read_task(reader, file)
    assert str(caught.value).startswith(f"{file}:3: ")


def sentences(folder: Path, count: int = 100) -> Path:
    labels = ["neutral"] * 6 + ["positive"] * 3 + ["negative"]
    return lines(folder / "bank.txt", *(f"Sentence {i} .@{labels[i % 10]}" for i in range(count)), encoding="latin-1")


def test_phrasebank_is_split_by_label_and_always_the_same_way(tmp_path: Path) -> None:
    splits = read_task("phrasebank", sentences(tmp_path))
    assert Counter(e.label for e in splits.test) == {"neutral": 12, "positive": 6, "negative": 2}
    assert Counter(e.label for e in splits.train) == {"neutral": 43, "positive": 22, "negative": 7}
    assert Counter(e.label for e in splits.validation) == {"neutral": 5, "positive": 2, "negative": 1}
    found = ids(splits)
    assert len({one for part in found.values() for one in part}) == 100
    assert ids(read_task("phrasebank", sentences(tmp_path))) == found


def test_a_sentence_of_phrasebank_is_never_on_both_sides_of_a_split(tmp_path: Path) -> None:
    once = [f"Sentence {i} .@{('neutral', 'positive')[i % 2]}" for i in range(40)]
    again = [line.replace("@positive", "@negative") for line in once]
    splits = read_task("phrasebank", lines(tmp_path / "bank.txt", *once, *once, *again))
    texts = [example.text for part in (splits.train, splits.validation, splits.test) for example in part]
    assert sorted(texts) == sorted({line.partition("@")[0] for line in once})
    assert {e.label for e in splits.train} == {"neutral", "positive"}  # the first label that it is given


def test_phrasebank_is_latin_1_and_its_sentences_may_hold_an_at_sign(tmp_path: Path) -> None:
    texts = ["Mäntsälä @ 5 EUR@neutral"] * 1 + [f"Sentence {i}@neutral" for i in range(9)]
    splits = read_task("phrasebank", lines(tmp_path / "bank.txt", *texts, encoding="latin-1"))
    found = {example.text: example.label for part in (splits.train, splits.test) for example in part}
    assert found["Mäntsälä @ 5 EUR"] == "neutral"


@pytest.mark.parametrize("line", ["No label", "Sentence@happy", "Sentence@", ""])
def test_a_line_of_phrasebank_without_a_known_label_is_named(line: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "bank.txt", "Fine@neutral", line)
    with pytest.raises(InputError, match="expected text@label") as caught:
        read_task("phrasebank", file)
    assert str(caught.value).startswith(f"{file}:2: ")


def conll(folder: Path, *train: str, test: tuple[str, ...] = ("Acme NNP B-NP I-ORG",)) -> Path:
    lines(folder / "train" / "FIN5.txt", *train)
    lines(folder / "test" / "FIN3.txt", *test)
    return folder


def test_conll_reads_words_and_last_column_and_makes_iob2_of_iob1(tmp_path: Path) -> None:
    folder = conll(
        tmp_path,
        "-DOCSTART- -X- O O",
        "",
        "Acme NNP I-NP I-ORG",
        "Bank NNP I-NP I-ORG",
        "Borealis NNP I-NP B-ORG",
        "Smith NNP I-NP I-PER",
        "and CC O O",
        "Corvus NNP I-NP I-ORG",
        "",
        "",
        "Delta NNP I-NP I-ORG",
    )
    first, second = read_task("conll_folder", folder).train
    assert first.words == ("Acme", "Bank", "Borealis", "Smith", "and", "Corvus")
    assert first.tags == ("B-ORG", "I-ORG", "B-ORG", "B-PER", "O", "B-ORG")
    assert first.text == "Acme Bank Borealis Smith and Corvus"
    assert (second.words, second.tags) == (("Delta",), ("B-ORG",))


def test_a_tenth_of_the_conll_training_sentences_is_for_validation(tmp_path: Path) -> None:
    train = [line for number in range(20) for line in (f"Word{number} NN O O", "")]
    splits = read_task("conll_folder", conll(tmp_path, *train))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 1]
    assert not set(ids(splits)["train"]) & set(ids(splits)["validation"])


def test_a_conll_folder_without_its_two_parts_is_refused(tmp_path: Path) -> None:
    lines(tmp_path / "train" / "a.txt", "Acme NNP I-NP I-ORG")
    with pytest.raises(InputError, match="expected the folders train and test"):
        read_task("conll_folder", tmp_path)


@pytest.mark.parametrize(("line", "reason"), [("Acme", "a word and a tag"), ("a plain sentence", "a tag O, B-")])
def test_a_malformed_line_of_columns_is_named(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_task("conll_folder", conll(tmp_path, "Acme NNP I-NP I-ORG", "", line))
    assert str(caught.value).startswith(f"{tmp_path / 'train' / 'FIN5.txt'}:3: ")


def test_bio_reads_its_three_files(tmp_path: Path) -> None:
    lines(tmp_path / "train.tsv", "colon\tB-Disease", "cancer\tI-Disease", "", "and\tO")
    lines(tmp_path / "devel.tsv", "flu\tB-Disease")
    lines(tmp_path / "test.tsv", "none\tO", "")
    splits = read_task("bio_folder", tmp_path)
    assert [example.tags for example in splits.train] == [("B-Disease", "I-Disease"), ("O",)]
    assert [example.words for example in (*splits.validation, *splits.test)] == [("flu",), ("none",)]


def test_a_missing_file_of_a_task_is_named(tmp_path: Path) -> None:
    lines(tmp_path / "train.tsv", "and\tO")
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_task("bio_folder", tmp_path)
    assert str(tmp_path / "devel.tsv") in str(caught.value)


def test_a_task_without_training_or_test_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 training and 0 test examples; expected some of both"):
        read_task("sample_desks", sample(tmp_path, ROWS[0], ROWS[3]))


def test_an_unknown_reader_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no reader 'phrasebnk'; known: sample_desks, .*phrasebank"):
        read_task("phrasebnk", tmp_path)


def test_a_split_keeps_the_order_and_the_share_of_each_label() -> None:
    examples = [Example(id=str(i), text="", label="ab"[i % 4 == 0]) for i in range(40)]
    kept, held = stratified_split(examples, share=0.2, seed=0)
    assert Counter(e.label for e in held) == {"a": 6, "b": 2}
    assert [e.id for e in kept] == sorted((e.id for e in kept), key=int)
    assert sorted([*kept, *held], key=lambda e: int(e.id)) == examples
    assert stratified_split(examples, share=0.2, seed=1)[1] != held
