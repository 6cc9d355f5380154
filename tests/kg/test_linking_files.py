import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kg.errors import InputError
from kg.linking import Linker
from kg.linking.files import link_file
from tests.builders import tiny_snapshot

TEXTS = ["Acme Bank owns Borealis Insurance.", "", "Nothing.", "\ud83d Delta Exchange 😀"]


@pytest.fixture
def linker(tmp_path: Path) -> Linker:
    return Linker.load(tiny_snapshot(tmp_path / "home/snapshots/v1"))


def write_texts(file: Path, texts: Sequence[str]) -> Path:
    file.write_text("".join(json.dumps({"id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return file


def run(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kg", "link", *arguments]
    env = {**os.environ, "KGFUSE_HOME": str(tmp_path / "home")}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_each_line_has_the_links_of_its_text_in_order(linker: Linker, tmp_path: Path) -> None:
    source, target = write_texts(tmp_path / "in.jsonl", TEXTS), tmp_path / "new/out.jsonl"
    assert link_file(linker, source, target) == len(TEXTS)
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows == [
        {"id": f"d{i}", "links": [link.as_json() for link in linker.link(text)]} for i, text in enumerate(TEXTS)
    ]
    assert [path.name for path in target.parent.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": "x"}', '{"text": "x"}', '{"id": true, "text": "x"}', '{"id": "x", "text": 1}', "\x00"]
)
def test_a_bad_line_is_named_and_what_came_before_is_kept_for_the_next_run(
    linker: Linker, tmp_path: Path, line: str
) -> None:
    source, target = write_texts(tmp_path / "in.jsonl", TEXTS), tmp_path / "out.jsonl"
    good = source.read_text()
    source.write_text(good + line + "\n")
    with pytest.raises(InputError, match=r"in\.jsonl:5: "):
        link_file(linker, source, target)
    assert not target.exists()
    source.write_text(good)
    link_file(linker, source, target)
    assert len(target.read_text().splitlines()) == len(TEXTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "in.jsonl", "out.jsonl"]


def test_what_another_input_left_is_not_mixed_in(linker: Linker, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": "a", "text": "Acme Bank"}\nbroken\n')
    with pytest.raises(InputError):
        link_file(linker, source, target)
    source.write_text('{"id": "b", "text": "Corvus Fund"}\n')
    with pytest.raises(InputError, match=r"goes on from 'a'; delete"):
        link_file(linker, source, target)


def test_a_killed_run_goes_on_where_it_was(linker: Linker, tmp_path: Path) -> None:
    source, target = write_texts(tmp_path / "in.jsonl", TEXTS[:1] * 30_000), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "kg", "link", "--file", str(source), "--out", str(target)]
    process = subprocess.Popen(command, env={**os.environ, "KGFUSE_HOME": str(tmp_path / "home")})
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size > 100_000 for part in tmp_path.glob("out.jsonl.*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not target.exists()
    done = run(tmp_path, "--file", str(source), "--out", str(target))
    assert (done.returncode, done.stderr) == (0, "")
    lines = target.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"d{i}" for i in range(30_000)]
    assert len({line.partition(",")[2] for line in lines}) == 1


def test_the_command_links_a_text_with_the_latest_snapshot(linker: Linker, tmp_path: Path) -> None:
    table = run(tmp_path, TEXTS[0])
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.splitlines()[0].split("\t") == ["0-9", "'Acme Bank'", "ex:0", "Acme Bank", "1.00"]
    as_json = run(tmp_path, TEXTS[0], "--json", "--snapshot", str(linker.snapshot.path))
    assert json.loads(as_json.stdout) == [link.as_json() for link in linker.link(TEXTS[0])]
    source = write_texts(tmp_path / "in.jsonl", TEXTS[:2])
    assert len(run(tmp_path, "--file", str(source)).stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Give either a text or --file"),
        (["text", "--snapshot", "/nowhere"], "python -m kg snapshot"),
        (["--file", "/nowhere.jsonl"], "/nowhere.jsonl"),
        (["--file", "/nowhere.jsonl", "--out", "/tmp/never.jsonl"], "/nowhere.jsonl"),
        (["text", "--threshold", "2"], "threshold"),
    ],
)
def test_mistakes_are_one_line(linker: Linker, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_snapshot_the_command_says_how_to_make_one(tmp_path: Path) -> None:
    done = run(tmp_path, "text")
    assert done.returncode == 2
    assert "python -m kg snapshot" in done.stderr
