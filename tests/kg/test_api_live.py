"""The server follows the newest snapshot: no answer fails, and none mixes two snapshots."""

import http.client
import json
import shutil
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from kg.linking import Linker
from kg.linking.live import LiveLinker
from tests.builders import COMPANIES, tiny_snapshot
from tests.kg.serving import served

TEXTS = [f"{name} rose." for name in (*COMPANIES, "Elm Trust")] * 20
FIRST = COMPANIES
SECOND = ("Elm Trust", *reversed(COMPANIES))
"""The same names for other entities, and a new one."""


def ids_of(linker: Linker) -> list[list[str | None]]:
    return [[link.id for link in links] for links in linker.link_batch(TEXTS)]


class Asker(Thread):
    """Asks for the links of all texts again and again; keeps (snapshot, ids) of each answer."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.ended, self.seen = port, Event(), Event()
        self.answers: list[tuple[str, list[list[str | None]]]] = []
        self.failed: list[object] = []
        self.wanted = ""

    def run(self) -> None:
        body = json.dumps({"texts": TEXTS})
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            while not self.ended.is_set():
                try:
                    connection.request("POST", "/link/batch", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    said: dict[str, Any] = json.loads(answer.read())
                except (OSError, http.client.HTTPException, ValueError) as error:
                    self.failed.append(error)
                    return
                if answer.status != 200:
                    self.failed.append(said)
                    return
                ids = [[link["id"] for link in one["links"]] for one in said["results"]]
                self.answers.append((said["snapshot"], ids))
                if said["snapshot"] == self.wanted:
                    self.seen.set()


def test_a_new_snapshot_is_seen_under_steady_requests_and_no_answer_mixes_two(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    first = Linker.load(tiny_snapshot(folder / "v1", names=FIRST))
    second = Linker.load(tiny_snapshot(tmp_path / "aside", names=SECOND))
    expected = {linker.snapshot.hash: ids_of(linker) for linker in (first, second)}
    assert expected[first.snapshot.hash] != expected[second.snapshot.hash]
    with served(tmp_path) as server:
        askers = [Asker(server.port) for _ in range(4)]
        for asker in askers:
            asker.wanted = second.snapshot.hash
            asker.start()
        time.sleep(0.5)
        tiny_snapshot(folder / "v2", names=SECOND)
        seen = [asker.seen.wait(30) for asker in askers]
        for asker in askers:
            asker.ended.set()
            asker.join(30)
        server.process.terminate()
        _, error = server.process.communicate(timeout=30)
    assert [asker.failed for asker in askers] == [[]] * 4
    assert all(seen)
    for asker in askers:
        hashes = [snapshot for snapshot, _ in asker.answers]
        changes = sum(a != b for a, b in pairwise(hashes))
        assert (hashes[0], hashes[-1], changes) == (first.snapshot.hash, second.snapshot.hash, 1)
        assert all(ids == expected[snapshot] for snapshot, ids in asker.answers)
    assert error == ""


def test_a_server_that_was_given_a_snapshot_stays_with_it(tmp_path: Path) -> None:
    one = tiny_snapshot(tmp_path / "snapshots" / "v1", names=FIRST)
    with served(tmp_path, "--snapshot", str(one.path)) as server:
        tiny_snapshot(tmp_path / "snapshots" / "v2", names=SECOND)
        time.sleep(2.5)
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            connection.request("POST", "/link", json.dumps({"text": "a"}), {"Content-Type": "application/json"})
            assert json.loads(connection.getresponse().read())["snapshot"] == one.hash


def test_a_version_made_again_is_another_one_and_an_equal_one_is_no_change(tmp_path: Path) -> None:
    live = LiveLinker(Linker.load(tiny_snapshot(tmp_path / "v1", names=FIRST)), tmp_path)
    assert not live.look()
    tiny_snapshot(tmp_path / "v1", names=FIRST)
    assert not live.look()
    again = tiny_snapshot(tmp_path / "v1", names=SECOND)
    assert live.look()
    assert live.current.snapshot.hash == again.hash
    tiny_snapshot(tmp_path / "v3", names=FIRST)
    newest = tiny_snapshot(tmp_path / "v10", names=(*COMPANIES[2:], *COMPANIES[:2]))
    assert live.look()
    assert live.current.snapshot.hash == newest.hash


def test_the_settings_of_the_linker_are_kept(tmp_path: Path) -> None:
    tiny_snapshot(tmp_path / "v1", names=FIRST)
    live = LiveLinker(Linker.load(tmp_path / "v1", threshold=0.7, max_candidates=3), tmp_path)
    tiny_snapshot(tmp_path / "v2", names=SECOND)
    assert live.look()
    assert (live.current.threshold, live.current.max_candidates) == (0.7, 3)


@pytest.mark.parametrize("harm", ["manifest", "no json", "file", "format"])
def test_a_snapshot_that_cannot_be_loaded_is_named_in_one_line_and_the_old_one_goes_on(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveLinker(Linker.load(tiny_snapshot(tmp_path / "v1", names=FIRST)), tmp_path)
    old = live.current
    bad = tiny_snapshot(tmp_path / "v2", names=SECOND).path
    manifest = bad / "manifest.json"
    if harm == "manifest":
        manifest.write_text("{}")
    elif harm == "no json":
        manifest.write_text("{\nno")
    elif harm == "format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    else:
        (bad / "aliases.parquet").write_bytes(b"PAR1")
    for _ in range(3):
        assert not live.look()
    assert live.current is old
    assert live.current.link("Acme Bank")[0].id == "ex:0"
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(bad) in line
    assert str(old.snapshot.path) in line
    assert "\n" not in line
    assert live.failures == 1
    mended = tiny_snapshot(bad, names=SECOND)
    assert live.look()
    assert live.current.snapshot.hash == mended.hash


def test_what_is_not_a_whole_version_is_no_snapshot(tmp_path: Path) -> None:
    live = LiveLinker(Linker.load(tiny_snapshot(tmp_path / "v1", names=FIRST)), tmp_path)
    tiny_snapshot(tmp_path / ".building", names=SECOND)
    (tmp_path / "v2").mkdir()
    (tmp_path / "v3").write_text("")
    assert not live.look()
    assert live.failures == 0
    shutil.rmtree(tmp_path)
    assert not live.look()
    assert live.current.link("Acme Bank")[0].id == "ex:0"


def test_it_looks_by_itself_as_long_as_it_is_asked_to(tmp_path: Path) -> None:
    live = LiveLinker(Linker.load(tiny_snapshot(tmp_path / "v1", names=FIRST)), tmp_path)
    with live.following(every_s=0.01):
        new = tiny_snapshot(tmp_path / "v2", names=SECOND)
        ends = time.monotonic() + 30
        while live.current.snapshot.hash != new.hash:
            assert time.monotonic() < ends
            time.sleep(0.01)
    tiny_snapshot(tmp_path / "v3", names=FIRST)
    time.sleep(0.2)
    assert live.current.snapshot.hash == new.hash
