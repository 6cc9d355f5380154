"""The commands of ``python -m ingest``: what they print, the report they write, and how they end."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.__main__ import Load
from ingest.report import Report
from ingest.sources import READERS
from kg.errors import ConfigError
from kg.graph_hash import graph_hash
from kg.store import GraphStore
from tests.ingest.faults import statements

ROOT = Path(__file__).parent.parent.parent
TURTLE = """@prefix ex: <http://e/> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
ex:a rdfs:label "a" ; ex:owns ex:b .
[] ex:owns ex:b .
"""
REPORT_KEYS = {
    *("read", "written", "skipped", "quarantined", "seconds", "cpu_seconds", "peak_rss_mb", "path"),
    *("source", "release", "kept", "quarantine", "balances", "notes", "removed", "changes", "snapshot"),
}


def ingest(env: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingest", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.neo4j
def test_a_load_says_what_it_did_on_the_screen_and_in_the_report(
    store: GraphStore, cli_env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "tiny.ttl").write_text(TURTLE)
    file = tmp_path / "new" / "report.json"
    done = ingest(cli_env, "load", "rdf", tmp_path / "tiny.ttl", "--release", "7", "--report", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny 7: read 3 statements (transactional)" in done.stdout
    assert "skipped 1: about an anonymous node" in done.stdout
    assert "written: 4 nodes, 1 relationships" in done.stdout
    report = json.loads(file.read_text())
    assert report.keys() == REPORT_KEYS
    assert {key: report[key] for key in ("source", "release", "read", "quarantined", "path", "balances")} == {
        **{"source": "tiny", "release": "7", "read": 3, "quarantined": 0},
        **{"path": "transactional", "balances": True},
    }
    assert report["written"] == {"nodes": 4, "relationships": 1, "properties": report["written"]["properties"]}
    assert report["written"]["properties"] > 4
    assert sum(report["kept"].values()) + sum(report["skipped"].values()) == report["read"]
    assert 0 < report["seconds"] < 600
    assert report["cpu_seconds"] > 0
    assert report["peak_rss_mb"] > 10
    assert [path.name for path in file.parent.iterdir()] == ["report.json"]
    again = ingest(cli_env, "load", "rdf", tmp_path / "tiny.ttl", "--release", "7", "--report", file)
    assert "written: 0 nodes, 0 relationships, 0 properties" in again.stdout
    assert json.loads(file.read_text())["written"] == {"nodes": 0, "relationships": 0, "properties": 0}


@pytest.mark.neo4j
def test_quarantined_lines_are_shown_and_reported(store: GraphStore, cli_env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tiny.nt").write_text("<http://e/a> <http://e/p> <http://e/b> .\nno statement\n")
    done = ingest(cli_env, "load", "rdf", tmp_path / "tiny.nt", "--report", tmp_path / "r.json")
    assert done.returncode == 0
    assert f"quarantined 1; first: {tmp_path / 'tiny.nt'}:2: " in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["read"], report["quarantined"]) == (2, 1)
    assert (report["quarantine"][0]["file"], report["quarantine"][0]["line"]) == (str(tmp_path / "tiny.nt"), 2)


@pytest.mark.neo4j
def test_status_lists_the_sources(store: GraphStore, cli_env: dict[str, str], tmp_path: Path) -> None:
    assert ingest(cli_env, "status").stdout.startswith("nothing is loaded")
    assert json.loads(ingest(cli_env, "status", "--json").stdout) == []
    (tmp_path / "tiny.ttl").write_text(TURTLE)
    (tmp_path / "names.tsv").write_text("1\tone\tP\tx\n")
    assert ingest(cli_env, "load", "rdf", tmp_path / "tiny.ttl", "--release", "7").returncode == 0
    assert ingest(cli_env, "load", "table", tmp_path, "--source-id", "my-table", "--prefix", "mt").returncode == 0
    sources = json.loads(ingest(cli_env, "status", "--json").stdout)
    assert [(row["id"], row["release"]) for row in sources] == [("my-table", ""), ("tiny", "7")]
    assert all(len(row["sha256"]) == 64 and row["loaded_at"].startswith("20") for row in sources)
    lines = ingest(cli_env, "status").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["my-table", "tiny"]
    assert store.read("MATCH (n:MyTable) RETURN n.id AS id") == [{"id": "mt:1"}]


BAD = {
    "missing file": ("rdf", "none.ttl", None, "no such file"),
    "missing file of obo": ("obo", "none.obo", None, "No such file"),
    "missing folder of tables": ("table", "none", None, "no such file"),
    "unknown source": ("umlz", "a.ttl", TURTLE.encode(), "'umlz'"),
    "corrupt Turtle": ("rdf", "a.ttl", TURTLE.encode() + b"ex:a ex:p", "a.ttl:5:"),
    "corrupt RDF/XML": ("rdf", "a.rdf", b"<rdf:RDF", "a.rdf"),
    "binary rubbish": ("rdf", "a.ttl", bytes(range(256)) * 40, "a.ttl"),
    "not UTF-8": ("rdf", "a.ttl", TURTLE.encode("utf-16"), "a.ttl"),
    "cut gzip": ("rdf", "a.ttl.gz", gzip.compress(TURTLE.encode())[:-12], "a.ttl.gz"),
    "hostile XML": ("rdf", "a.rdf", b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><r>&a;</r>', "refused"),
    "no RDF at all": ("rdf", "a.csv", b"a,b", "its ending is none of"),
    "no OBO": ("obo", "a.obo", b"a,b", "not an OBO file"),
    "no table": ("table", "names.tsv", b"a,b", "no line of it"),
    "a name that is taken": ("rdf", "class.ttl", TURTLE.encode(), "--source-id"),
}


@pytest.mark.neo4j
@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_one_line_and_exit_code_2_and_nothing_is_written(
    mistake: str, store: GraphStore, cli_env: dict[str, str], tmp_path: Path
) -> None:
    source, name, content, said = BAD[mistake]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = graph_hash(store)
    done = ingest(cli_env, "load", source, tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("python -m ingest: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert graph_hash(store) == before


@pytest.mark.parametrize("source", READERS)
def test_an_empty_folder_and_no_folder_are_mistakes_too(source: str, home: Path, tmp_path: Path) -> None:
    for words in ([tmp_path], []):
        done = ingest({"KGFUSE_HOME": str(home)}, "load", source, *words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert (str(tmp_path) if words else "No input") in done.stderr


def test_a_server_that_does_not_answer_is_named_before_anything_is_read(tmp_path: Path) -> None:
    nowhere = {"KGFUSE_HOME": str(tmp_path / "home"), "NEO4J_URI": "bolt://127.0.0.1:9", "NEO4J_PASSWORD": "x"}
    for content in (TURTLE, "rubbish"):
        (tmp_path / "tiny.ttl").write_text(content)
        for command in ("load", "refresh"):
            done = ingest(nowhere, command, "rdf", tmp_path / "tiny.ttl")
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
            assert "No Neo4j answers at bolt://127.0.0.1:9" in done.stderr
            assert not (tmp_path / "home" / "work").exists()


def test_bad_input_is_found_before_the_local_server_is_started(tmp_path: Path) -> None:
    (tmp_path / "tiny.ttl").write_text("rubbish")
    done = ingest({"KGFUSE_HOME": str(tmp_path / "home")}, "load", "rdf", tmp_path / "tiny.ttl")
    assert "tiny.ttl:1:" in done.stderr
    assert not (tmp_path / "home" / "neo4j").exists()


@pytest.mark.parametrize("option", ["--quarantine", "--report"])
@pytest.mark.parametrize("place", ["folder", "file/below.json"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(
    option: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "tiny.ttl").write_text("rubbish")
    done = ingest({"KGFUSE_HOME": str(tmp_path)}, "load", "rdf", tmp_path / "tiny.ttl", option, tmp_path / place)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert f"{option}: {tmp_path / place} cannot be written (" in done.stderr


def test_a_load_is_said_even_where_its_report_cannot_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="--report: .* cannot be written"):
        Load(source="rdf", paths=(), report=tmp_path).show(Report("tiny"))
    assert "tiny: read 0 statements" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["kgfuse-*/*", "release-*"], ids=["parsing", "mapping"])
def test_a_load_that_is_terminated_leaves_no_folder(folder: str, tmp_path: Path) -> None:
    file, work = statements(tmp_path / "many.nt", 100_000), tmp_path / "home" / "work"
    command = [sys.executable, "-m", "ingest", "load", "rdf", str(file)]
    env = {**os.environ, "KGFUSE_HOME": str(tmp_path / "home")}
    child = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not any(work.glob(folder)):
        time.sleep(0.005)
    child.terminate()
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, "Interrupted; what was finished is kept.\n")
    assert list(work.iterdir()) == []


def test_help_names_every_source_and_command(home: Path) -> None:
    env = {"KGFUSE_HOME": str(home), "COLUMNS": "200"}
    assert all(command in ingest(env, "--help").stdout for command in ("load", "status"))
    shown = ingest(env, "load", "--help").stdout
    assert all(source in shown for source in READERS)
    assert all(option in shown for option in ("--source-id", "--prefix", "--release", "--report"))
