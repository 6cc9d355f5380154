import fcntl
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from kg.errors import ConfigError, InputError
from kg.linking import Linker
from kg.linking.corpus import CHUNK
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


def test_the_links_of_a_file_are_never_those_of_another_with_the_same_ids(linker: Linker, tmp_path: Path) -> None:
    one, other = (write_texts(tmp_path / name, [text] * 3) for name, text in (("a", "Acme Bank"), ("b", "Corvus Fund")))
    one.write_text(one.read_text() + "broken\n")
    target = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="a:4: not JSON"):
        link_file(linker, one, target)
    (left,) = tmp_path.glob("out.jsonl.*")
    write_texts(one, ["Delta Exchange"] * 3)
    with pytest.raises(InputError, match=r"a:1: id 'd0', but .* has the links of another text; delete that part"):
        link_file(linker, one, target)
    assert left.exists()
    assert link_file(linker, other, target) == 3
    assert [json.loads(line)["links"][0]["id"] for line in target.read_text().splitlines()] == ["ex:2"] * 3


def test_texts_are_not_replaced_by_their_links(linker: Linker, tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in.jsonl", TEXTS)
    before = source.read_bytes()
    done = run(tmp_path, "--file", str(source), "--out", f"{tmp_path}/../{tmp_path.name}/in.jsonl")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"take the place of their texts, {source}; name another" in done.stderr
    assert source.read_bytes() == before


def test_parts_of_other_files_stay(linker: Linker, tmp_path: Path) -> None:
    bad = write_texts(tmp_path / "bad.jsonl", TEXTS)
    bad.write_text(bad.read_text() + "broken\n")
    names = ("out.jsonl.gz", "out.jsonl.train", "out.jsonl")
    for name in names:
        with pytest.raises(InputError):
            link_file(linker, bad, tmp_path / name)
    link_file(linker, write_texts(tmp_path / "in.jsonl", TEXTS), tmp_path / "out.jsonl")
    left = sorted(path.name for path in tmp_path.glob("out.jsonl*"))
    assert [name.rpartition(".")[2] for name in left] == ["jsonl", "part", "part"]
    assert all(name.startswith(other) for name, other in zip(left[1:], names, strict=False))


def many(tmp_path: Path, number: int) -> Path:
    """A file of texts of several chunks; some lines are blank."""
    texts = [f"{i}: {TEXTS[i % len(TEXTS)]}" for i in range(number)]
    source = write_texts(tmp_path / "in.jsonl", texts)
    source.write_text(source.read_text().replace('{"id": "d7"', '\n \n{"id": "d7"'))
    return source


def test_the_bytes_are_the_same_whatever_the_number_of_processes(linker: Linker, tmp_path: Path) -> None:
    source = many(tmp_path, 3000)
    assert source.stat().st_size > 2 * CHUNK
    written = []
    for workers in (1, 2, 3):
        target = tmp_path / f"{workers}.jsonl"
        assert link_file(linker, source, target, workers=workers) == 3000
        written.append(target.read_bytes())
    assert written[0] == written[1] == written[2]
    rows = [json.loads(line) for line in written[0].splitlines()]
    texts = [json.loads(line) for line in source.read_text().splitlines() if line.strip()]
    assert rows == [{"id": row["id"], "links": [link.as_json() for link in linker.link(row["text"])]} for row in texts]


def test_a_bad_line_is_named_by_several_processes_too(linker: Linker, tmp_path: Path) -> None:
    source, target = many(tmp_path, 3000), tmp_path / "out.jsonl"
    good = source.read_text().splitlines(keepends=True)
    source.write_text("".join([*good[:2500], "broken\n", *good[2500:]]))
    with pytest.raises(InputError, match=r"in\.jsonl:2501: not JSON"):
        link_file(linker, source, target, workers=2)
    (part,) = tmp_path.glob("out.jsonl.*")
    assert len(part.read_bytes().splitlines()) == 2498
    source.write_text("".join(good))
    assert link_file(linker, source, target) == 3000
    link_file(linker, source, tmp_path / "at_once.jsonl")
    assert target.read_bytes() == (tmp_path / "at_once.jsonl").read_bytes()


def until_it_writes(process: "subprocess.Popen[str]", folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size > 100_000 for part in folder.glob("out.jsonl.*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _as_on_a_terminal() -> None:
    """Heed Ctrl-C; what a shell starts in the background does not, and neither do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("workers", "how", "code", "says"),
    [
        (1, signal.SIGINT, 130, "Interrupted; what was finished is kept."),
        (2, signal.SIGINT, 130, "Interrupted; what was finished is kept."),
        (1, signal.SIGKILL, -9, ""),
        (2, signal.SIGKILL, -9, ""),
        (2, None, 1, "A worker died of (Chunk(source="),
    ],
    ids=["interrupted", "2 processes interrupted", "killed", "2 processes killed", "worker killed"],
)
def test_a_run_that_was_ended_goes_on_where_it_was(
    linker: Linker, tmp_path: Path, workers: int, how: signal.Signals | None, code: int, says: str
) -> None:
    source, target = many(tmp_path, 15_000), tmp_path / "out.jsonl"
    where = ["--file", str(source), "--out", str(target)]
    command = [sys.executable, "-m", "kg", "link", *where, "--workers", str(workers)]
    env = {**os.environ, "KGFUSE_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=_as_on_a_terminal
    )
    try:
        until_it_writes(process, tmp_path)
        children = psutil.Process(process.pid).children()
        assert len(children) == (workers if workers > 1 else 0)
        if how is None:
            children[0].kill()
        elif how == signal.SIGINT:
            os.killpg(process.pid, how)  # as the terminal does
        else:
            process.kill()
        _, said = process.communicate(timeout=60)
        assert (process.returncode, says in said, said.count("\n")) == (code, True, bool(says))
        assert not psutil.wait_procs(children, timeout=60)[1]
    finally:
        process.kill()
    assert not target.exists()
    done = run(tmp_path, *where, "--workers", str(3 - workers))
    assert (done.returncode, done.stderr) == (0, "")
    link_file(linker, source, tmp_path / "at_once.jsonl")
    assert target.read_bytes() == (tmp_path / "at_once.jsonl").read_bytes()


def test_a_part_has_one_writer(linker: Linker, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": "a", "text": "Acme Bank"}\nbroken\n')
    with pytest.raises(InputError, match="in.jsonl:2"):
        link_file(linker, source, target)
    (part,) = tmp_path.glob("out.jsonl.*")
    with part.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing it"):
            link_file(linker, source, target)


def test_files_may_be_packed(linker: Linker, tmp_path: Path) -> None:
    source, plain = many(tmp_path, 2000), tmp_path / "plain.jsonl"
    link_file(linker, source, plain)
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    written = []
    for workers in (1, 2):
        target = tmp_path / f"{workers}.jsonl.gz"
        assert link_file(linker, packed, target, workers=workers) == 2000
        written.append(target.read_bytes())
    assert written[0] == written[1]
    assert gzip.decompress(written[0]) == plain.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_packed_file_is_said_and_what_came_before_is_kept(linker: Linker, tmp_path: Path) -> None:
    source, target, packed = many(tmp_path, 3000), tmp_path / "out.jsonl", tmp_path / "in.jsonl.gz"
    whole = gzip.compress(source.read_bytes())
    packed.write_bytes(whole[: len(whole) // 2])
    done = run(tmp_path, "--file", str(packed), "--out", str(target))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "in.jsonl.gz: cannot be read: Compressed file ended before" in done.stderr
    (part,) = tmp_path.glob("out.jsonl.*")
    assert len(part.read_bytes().splitlines()) > 500
    packed.write_bytes(whole)
    assert link_file(linker, packed, target) == 3000


def test_a_line_beyond_all_measure_is_refused_before_it_fills_the_memory(
    linker: Linker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kg.linking.corpus.MAX_LINE", 1000)
    source = write_texts(tmp_path / "in.jsonl", ["Acme Bank", "x" * 2000])
    with pytest.raises(InputError, match="in.jsonl:2: longer than 1000 bytes"):
        link_file(linker, source, tmp_path / "out.jsonl")


def test_a_terminal_sees_how_many_texts_are_done_and_how_fast(linker: Linker, tmp_path: Path) -> None:
    source, target = many(tmp_path, 20_000), tmp_path / "out.jsonl"
    ours, theirs = pty.openpty()
    env = {**os.environ, "KGFUSE_HOME": str(tmp_path / "home"), "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "kg", "link", "--file", str(source), "--out", str(target)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # that is how a terminal says that its other end is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert process.wait() == 0
    steps = re.findall(rb"Linking in\.jsonl .*? ([\d,]+) texts, ([\d,]+) texts/s", shown)
    counts = [int(count.replace(b",", b"")) for count, _ in steps]
    assert counts == sorted(counts)
    assert counts[-1] > 0 < int(steps[-1][1].replace(b",", b""))


def test_without_ray_or_its_data_the_engine_says_what_to_install(
    linker: Linker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = write_texts(tmp_path / "in.jsonl", TEXTS)
    with pytest.raises(ConfigError, match=r"install kgfuse\[ray\]"):
        link_file(linker, source, tmp_path / "out.jsonl", engine="ray")


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
        (["text", "--out", "/tmp/never.jsonl"], "--out"),
        (["--file", "/nowhere.jsonl", "--html", "/tmp/never.html"], "--html"),
        (["--file", "/nowhere.jsonl", "--workers", "0"], "workers is 0; expected at least 1"),
        (["text", "--html", "/tmp/never.html", "--entity-url", "javascript:x"], "javascript:x"),
        (["text", "--html", "/nowhere/never.html", "--snapshot", "/never"], "expected a file in an existing folder"),
        (["text", "--html", "/tmp"], "expected a file in an existing folder"),
        (["--file", "/dev/null", "--out", "/tmp"], "/tmp is a folder; name a file for the links"),
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
