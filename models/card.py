"""What a run's figures look like to a reader: a table, lines of bounds, and the model card."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from models.objectives import UNSCALED
from models.proof import SMALLEST_SLICE
from models.run import Run

RESTRICTED = re.compile(r"\bNC\b|non-?commercial|research", re.IGNORECASE)
"""What a licence says that forbids a product."""


def table_of(task: str, summary: Mapping[str, Any]) -> Table:
    """Arms by metrics, mean ± deviation in points; what an F1 is made of is in ``metrics.json``."""
    metrics = [
        name for name in next(iter(summary["arms"].values()))["mean"] if name not in ("precision", "recall", *UNSCALED)
    ]
    table = Table(title=f"{task} ({summary['test_examples']} test examples, {summary['test_examples_linked']} linked)")
    table.add_column("arm")
    for metric in metrics:
        table.add_column(metric, justify="right")
    slices = {
        name: part
        for name, part in summary["slices"].items()
        if "," not in name or summary["slice_examples"][name] >= SMALLEST_SLICE
    }
    for name in slices:
        table.add_column(f"{summary['main_metric']}, {name}", justify="right")
    for arm, values in summary["arms"].items():
        row = [_points(values["mean"].get(metric), values["deviation"].get(metric)) for metric in metrics]
        row += [_points(part.get(arm, {}).get("mean"), part.get(arm, {}).get("deviation")) for part in slices.values()]
        table.add_row(arm, *row)
    return table


def checks_of(summary: Mapping[str, Any]) -> list[str]:
    """A line for the trivial system that has to be beaten, and for each bound that harmless knowledge keeps."""
    return [
        f"{'kept' if check['kept'] else 'NOT kept'}: {check['name']} {check['points']:+.1f} points ({check['bound']})"
        for check in (*summary["over_trivial"], *summary["gain"].get("checks", ()))
    ]


def model_card(run: Run, tasks: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Any] | None = None) -> str:
    """The run's README: what it is, what it was trained on, what it reached, what it must not be trusted with."""
    manifest, recipe = run.manifest, run.recipe
    counts, read = manifest["snapshot"]["counts"], manifest["snapshot"]["sources"]
    sources = ", ".join(f"{source['id']} {source.get('release', '')}".strip() for source in read)
    bans = manifest["stages"].get("gnn", {}).get("bans", [])
    licences = manifest.get("licences", {})
    banned = ", ".join(f"{row['relation']} ({row['why']}; {row['edges']:,} edges)" for row in bans) or "none"
    lines = [
        f"# {recipe.name}: a fused model",
        "",
        recipe.summary,
        "",
        f"- Base model: `{recipe.base}`; knowledge attention after layers {list(recipe.fusion.layers)}.",
        f"- Graph: snapshot `{manifest['snapshot']['hash'][:16]}`, {counts['entities']:,} entities, "
        f"{counts['triples']:,} triples, from {sources}.",
        f"- Kept from the model because it would give labels away: {banned}.",
        "",
    ]
    for task, summary in tasks.items():
        lines += [f"## {task}", "", *_markdown(table_of(task, summary)), "", f"**{summary['conclusion']}**", ""]
        lines += [*(f"- {line}" for line in checks_of(summary)), ""]
        if (error := summary["calibration_error"].get("fused")) is not None:
            lines += [f"Expected calibration error of the fused model: {error:.3f}.", ""]
            lines += [f"![reliability](plots/{task}-reliability.png)", ""]
        coverage = manifest.get("coverage", {}).get(task.removesuffix(f"-{summary['shots']}"))
        if coverage:
            lines += [
                f"Coverage: {coverage['texts_linked']:.0%} of {coverage['texts']} test texts have a linked entity; "
                f"{coverage['mentions_seen_in_training']:.0%} of the linked mentions were seen in training.",
                "",
            ]
    for name, curve in (curves or {}).items():
        lines += [f"## {name}: labels saved", "", f"![labels](plots/{name}-labels.png)", "", curve["conclusion"], ""]
    lines += ["![scores](plots/scores.png)", "", "## Limits", "", recipe.limits or "None recorded.", ""]
    lines += [
        "## Data and licences",
        "",
        *(
            f"- `{Path(path).name}` ({licences.get(path, 'unknown')}) sha256 `{digest}`"
            for path, digest in manifest["data"].items()
        ),
        "",
        *licence_stamp(licences, manifest["data"]),
        "",
    ]
    lines += [
        "## Made with",
        "",
        ", ".join(f"{name} {number}" for name, number in manifest["packages"].items())
        + f", Python {manifest['python']}, {manifest['machine']}, revision {manifest['git_revision'] or 'unknown'}.",
        "",
    ]
    return "\n".join(lines)


def licence_stamp(licences: Mapping[str, str], data: Mapping[str, str]) -> list[str]:
    """What may be done with a model is bounded by all that it was trained on."""
    restricted = sorted(Path(path).name for path in data if RESTRICTED.search(licences.get(path, "")))
    unknown = sorted(Path(path).name for path in data if licences.get(path, "unknown") == "unknown")
    return [
        *([f"**Not for commercial use: {', '.join(restricted)}.**"] if restricted else []),
        *([f"**Ask before use: no licence is known of {', '.join(unknown)}.**"] if unknown else []),
    ]


def _points(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "–"
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def _markdown(table: Table) -> list[str]:
    header = [str(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
    ]
