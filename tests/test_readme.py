"""The README keeps its word: its commands run here in its order, and print what it shows."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kg.store import GraphStore
from models.train_kgbert import main

ROOT = Path(__file__).parent.parent
RUN_ELSEWHERE = {
    "make demo": "by hand in a fresh clone before each release",
    "make test": "this run",
    "python -m kg stop": "tests/kg/test_local_server.py; here it would stop the server of all tests",
    "python -m kg link --file": "tests/kg/test_linking_files.py",
    "python -m models.train_kgbert": "tests/models/test_stages.py",
    "python -m models.serve": "tests/models/test_serve.py",
    "python -m models.rerank": "tests/models/test_rerank.py",
    "python -m models.explain": "tests/models/test_serve.py",
    "python -m kg api": "tests/kg/test_api.py",
    "curl": "tests/models/test_serve.py; tests/kg/test_api.py",
    "python -m ingest load fibo": "tests/ingest/test_fibo_real.py",
    "python -m ingest refresh fibo": "tests/ingest/test_refresh.py",
    "python -m ingest load umls": "tests/ingest/test_umls.py",
    "python -m ingest load wikidata": "tests/ingest/test_wikidata.py",
    "python -m ingest mine": "tests/ingest/test_mining.py",
    "python -m ingest load table": "tests/ingest/test_mining.py",
    "python -m models.export": "tests/models/test_export.py",
    "pip install": "by hand",
}
SAME = ("python -m kg cypher", "python -m kg link", "python -m kg hash")
"""Commands whose output is the same everywhere."""


def readme_commands() -> list[tuple[str, str]]:
    """(command, output) of every console block, in order; settings before a command and comments after it are cut."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((re.sub(r"^([A-Z_]+=\S+ )+|\s+#.*$", "", command), output.strip()))
    return found


def elsewhere(command: str) -> bool:
    return any(command.startswith(known) for known in RUN_ELSEWHERE)


@pytest.mark.neo4j
def test_commands_of_the_readme_run_and_print_what_it_shows(store: GraphStore, cli_env: dict[str, str]) -> None:
    here = [(command, output) for command, output in readme_commands() if not elsewhere(command)]
    assert len(here) >= 10
    for command, output in here:
        words = shlex.split(command)
        assert words[:2] == ["python", "-m"], command
        done = subprocess.run(
            [sys.executable, *words[1:]], capture_output=True, text=True, env=cli_env, cwd=ROOT, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        if command.startswith(SAME):
            assert done.stdout.strip() == output, command
        else:
            assert shape(done.stdout.strip() or done.stderr.strip()) == shape(output), command


@pytest.mark.neo4j
@pytest.mark.usefixtures("store")
def test_the_graph_of_the_recipe_for_your_own_table_is_loaded_and_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (recipe,) = re.findall(r"^```toml\n(name = .*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    label = "<http://www.w3.org/2000/01/rdf-schema#label>"
    triples = [f'<urn:{name}> {label} "{name}" .' for name in ("Acme", "Borealis", "Corvus")]
    (tmp_path / "graph.ttl").write_text("\n".join([*triples, "<urn:Acme> <urn:owns> <urn:Borealis> ."]))
    rows = [f"Acme {word} {number},{word}" for number in range(20) for word in ("good", "bad")]
    (tmp_path / "reviews.csv").write_text("\n".join(["sentence,polarity", *rows]))
    also = '[[graph.also]]\nsource = "table"\npaths = ["more"]\nsource_id = "more"\n'
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "names.tsv").write_text("d\tDelta\tP\n")
    (tmp_path / "mine.toml").write_text(recipe.replace("[[tasks]]", f"{also}[[tasks]]"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert main(["gnn", "mine.toml"]) == 0
    manifest = json.loads((tmp_path / "runs" / "mine" / "manifest.json").read_text(encoding="utf-8"))
    assert [source["id"] for source in manifest["snapshot"]["sources"]] == ["more", "ours"]
    assert manifest["coverage"]["polarity"]["texts_linked"] == 1.0
    assert "gnn" in manifest["stages"]


def test_every_command_run_elsewhere_is_in_the_readme_and_its_test_is_there() -> None:
    commands = [command for command, _ in readme_commands()]
    for known, where in RUN_ELSEWHERE.items():
        assert any(command.startswith(known) for command in commands), known
        if where.startswith("tests/"):
            assert (ROOT / where.partition(";")[0]).is_file(), where


def test_the_tree_of_the_readme_names_files_that_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## The tree")[1].split("```")[1]
    folder = None
    for line in tree.strip().splitlines():
        if not line.startswith(" "):
            folder = ROOT / line.split()[0]
            assert folder.is_dir(), line
        for name in re.findall(r"\S+\.py\b|\w+/(?=\s)", line[2:].split("   ")[0] if line.startswith(" ") else ""):
            assert folder is not None
            assert (folder / name).exists(), (line, name)


def shape(output: str) -> list[str]:
    """Lines without what differs from one machine and run to the next: numbers, paths, times, hashes."""
    lines = [line for line in output.splitlines() if "━" not in line]
    return [re.sub(r"/\S+|[0-9a-f]{16}|\d[\d,.:T+-]*", "#", line).rstrip(" .") for line in lines]
