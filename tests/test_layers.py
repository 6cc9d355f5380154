"""Imports follow one direction: ``ingest → kg ← models``, and ``kg`` never touches torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "kg": {"ingest", "models", "torch", "transformers"},
    "ingest": {"models", "torch"},
    "models": {"ingest"},
}
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in FORBIDDEN
    for file in sorted((ROOT / package).rglob("*.py"))
}


def imported(file: Path, *, everywhere: bool) -> set[str]:
    """Names that a file imports: at its top level, or anywhere in it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", FILES)
def test_imports_follow_the_flow(module: str) -> None:
    tops = {name.split(".")[0] for name in imported(FILES[module], everywhere=True)}
    assert not tops & FORBIDDEN[module.split(".")[0]]


def test_there_is_no_import_cycle() -> None:
    TopologicalSorter(
        {name: imported(file, everywhere=False) & (FILES.keys() - {name}) for name, file in FILES.items()}
    ).prepare()


def test_importing_all_of_kg_loads_no_torch() -> None:
    """But for its spaCy component: spaCy loads torch by itself where that is installed."""
    modules = [name for name in FILES if name.split(".")[0] == "kg" and not name.endswith(("__main__", "spacy_pipe"))]
    code = f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
