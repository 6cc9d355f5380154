"""What all commands share: quick help, and one console script in front of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from kg.__main__ import COMMANDS, ENTRY_POINTS, kgfuse, main

ROOT = Path(__file__).parent.parent.parent
HELP = """
import sys
from kg.__main__ import kgfuse
try:
    code = kgfuse(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = {"neo4j", "numpy", "pyarrow", "fastapi", "torch", "transformers", "rdflib"} & sys.modules.keys()
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize("words", [["--help"], *[[entry, "--help"] for entry in ENTRY_POINTS]], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", HELP, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize("command", [command.__name__.lower() for command in COMMANDS])
def test_every_command_has_help_with_and_without_kg(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for run, words in ((main, [command]), (kgfuse, [command]), (kgfuse, ["kg", command])):
        with pytest.raises(SystemExit, match="0"):
            run([*words, "--help"])
        shown.append(capsys.readouterr().out)
    assert command in shown[0]
    assert shown[0] == shown[1] == shown[2]


def test_the_help_of_kgfuse_lists_every_entry_point_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert kgfuse(["--help"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert listed == {*ENTRY_POINTS, *(command.__name__.lower() for command in COMMANDS)}


def test_a_wrong_command_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert kgfuse(["bogus"]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    with pytest.raises(SystemExit, match="2"):
        main(["cypher"])


@pytest.mark.parametrize("command", [["status"], ["stop"], ["start"], ["link", "text"], ["snapshot"]], ids=" ".join)
@pytest.mark.parametrize("below", ["", "/below"])
def test_a_home_that_is_a_file_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    below: str,
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("KGFUSE_HOME", f"{file}{below}")
    assert main(command) == 2
    says = f"KGFUSE_HOME is '{file}{below}', but {file} is not a folder; name another folder.\n"
    assert capsys.readouterr().err == f"python -m kg: {says}"
