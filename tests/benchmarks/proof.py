"""Does the graph help? The comparisons of several recipes, one by one, and what they say in one file and table.

    export KGFUSE_DATA=../shared/data
    python tests/benchmarks/proof.py --work /tmp/proof --json tests/benchmarks/results/proof.json

Each recipe is a run of ``python -m models.train_kgbert evaluate`` in a folder of its own below ``--work``; what is
finished there is not done again, so an interrupted proof goes on where it was. Other comparisons go to other files:
``--recipes knowledgenet … -- --shots 5 20 100`` is ``label_curve.json``; ``--recipes fewrel_wiki … -- --keep-models``
and then ``--recipes fewrel_news … -- --begin-with WORK/fewrel_wiki`` are ``transfer.json``.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.arms import CONTROLS

ROOT = Path(__file__).parent.parent.parent
RECIPES = ("fewrel_news", "fewrel_wiki", "knowledgenet", "bc5cdr", "finance_relations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--json", type=Path, help="where the figures go; recipes that are in it already stay")
    parser.add_argument("options", nargs="*", help="after --: more options of evaluate, such as --seeds 3 --arms …")
    asked = parser.parse_args()
    results = json.loads(asked.json.read_text(encoding="utf-8")) if asked.json and asked.json.is_file() else {}
    for recipe in asked.recipes:
        results[recipe] = prove(recipe, asked.work / Path(recipe).stem, asked.options)
        if asked.json:
            asked.json.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    show(results)


def prove(recipe: str, run: Path, options: list[str]) -> dict[str, Any]:
    """Run one comparison and keep of its report what a reader needs: no single predictions, no paths."""
    command = [sys.executable, "-m", "models.train_kgbert", "evaluate", recipe, "--run", str(run), *options]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=sys.stderr)
    metrics, manifest = (
        json.loads((run / name).read_text(encoding="utf-8")) for name in ("metrics.json", "manifest.json")
    )
    return {
        "tasks": metrics["tasks"],
        "curves": metrics["curves"],
        "bans": manifest["stages"]["gnn"]["bans"],
        "coverage": manifest["coverage"],
        "snapshot": {"hash": manifest["snapshot"]["hash"], "counts": manifest["snapshot"]["counts"]},
        "machine": manifest["machine"],
        "python": manifest["python"],
        "packages": manifest["packages"],
    }


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """A row a task: each arm on the texts that it is judged by, what the graph gains, and what was not kept."""
    arms = [*CONTROLS, "fused"]
    table = Table(title="linked texts with entities that training did not show; unlinked texts: fused less plain")
    for column in ("task", *arms, "gain over the best control", "unlinked", "not kept"):
        table.add_column(column)
    for result in results.values():
        for task, summary in result["tasks"].items():
            part = summary["slices"].get("linked, unseen", summary["slices"].get("linked", {}))
            scores = [_points(part.get(arm, {}).get("mean")) for arm in arms]
            gains = summary["gain"]["over"]
            best = min((arm for arm in CONTROLS if arm in gains), key=lambda arm: gains[arm]["points"])
            gain = f"{gains[best]['points']:+.1f} ({gains[best]['low']:+.1f} to {gains[best]['high']:+.1f}) over {best}"
            unlinked = summary["slices"].get("unlinked", {})
            harm = [unlinked.get(arm, {}).get("mean") for arm in ("fused", "plain")]
            less = "–" if None in harm else f"{100 * (harm[0] - harm[1]):+.1f}"
            checks = summary["gain"]["checks"]
            broken = [f"{check['name']} {check['points']:+.1f}" for check in checks if not check["kept"]]
            table.add_row(task, *scores, gain, less, "; ".join(broken) or "–")
    Console(width=200).print(table)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    main()
