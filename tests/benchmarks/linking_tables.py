"""What linking_speed.py has measured, as tables on standard output."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from linking_peers import SYSTEMS
from rich.console import Console
from rich.table import Table

Row: TypeAlias = dict[str, Any]
Columns: TypeAlias = Mapping[str, Callable[[Row], str]]
"""Title, and what it says of a row."""
INDEX: Columns = {
    "build CPU-s": lambda row: f"{row['build_cpu_s']:,.1f}" if "build_cpu_s" in row else "at start",
    "s": lambda row: f"{row['build_s']:,.1f}" if "build_s" in row else "",
    "peak MB": lambda row: f"{row['build_peak_mb']:,}" if "build_peak_mb" in row else "",
    "its snapshot": lambda row: f"{row['snapshot_cpu_s']:,.1f}" if "snapshot_cpu_s" in row else "",
    "disk MB": lambda row: f"{sum(row['files'].values()) / 2**20:,.0f}" if "files" in row else "",
    "first answer s": lambda row: f"{row['start_s']:,.2f}",
    "CPU-s": lambda row: f"{row['start_cpu_s']:,.2f}",
    "import s": lambda row: f"{row['import_s']:,.2f}",
    "RSS MB": lambda row: f"{row['rss_loaded_mb']:,.0f}",
    "private": lambda row: f"{row['uss_loaded_mb']:,.0f}",
    "mapped": lambda row: f"{row['mapped_loaded_mb']:,.0f}",
    "RSS used": lambda row: f"{row['rss_used_mb']:,.0f}",
    "per M names": lambda row: f"{row['rss_used_mb'] / row['names'] * 1e6:,.0f}",
}
TEXTS: Columns = {
    "texts/s": lambda row: f"{row['texts'] / row['texts_s']:,.0f}",
    "texts/CPU-s": lambda row: f"{row['texts'] / row['texts_cpu_s']:,.0f}",
    "M chars/CPU-s": lambda row: f"{row['characters'] / row['texts_cpu_s'] / 1e6:,.2f}",
    "ms p50, 95, 99": lambda row: ", ".join(f"{ms:.2f}" for ms in row["ms"]),
    "CPU ms": lambda row: ", ".join(f"{ms:.2f}" for ms in row["cpu_ms"]),
    "found": lambda row: f"{row['found']:,}",
    "2 processes: texts/s": lambda row: f"{row['two_texts_per_s']:,}" if "two_texts_per_s" in row else "",
    "PSS MB": lambda row: f"{row['two_pss_mb']:,}" if "two_pss_mb" in row else "",
}
UNSEEN: Columns = {
    "strings": lambda row: f"{row['unseen']:,}",
    "per s": lambda row: f"{row['unseen'] / row['unseen_s']:,.0f}",
    "per CPU-s": lambda row: f"{row['unseen'] / row['unseen_cpu_s']:,.0f}",
    "answered": lambda row: f"{row['answered'] / row['unseen']:.1%}",
    "RSS MB": lambda row: f"{row['rss_unseen_mb']:,.0f}",
    "right among them": lambda row: f"{row['right'] / row['unseen']:.1%}",
}
REFRESH: Columns = {
    "changed": lambda row: f"{row['changed']:,}",
    "first answer s": lambda row: f"{row['refresh_s']:.2f}",
    "CPU-s": lambda row: f"{row['refresh_cpu_s']:.2f}",
    "peak MB": lambda row: f"{row['peak_mb']:,}",
    "found before": lambda row: f"{row['found_by_first']:,}",
    "found": lambda row: f"{row['found_by_second']:,}",
}


def show(rows: Sequence[Row]) -> None:
    """The tables that there are rows for, and what failed."""
    console = Console()
    if not console.is_terminal:
        console.width = 200
    timed = [row for row in rows if "texts_s" in row]
    refreshed = [row for row in rows if "refresh_s" in row]
    unseen = [row for row in timed if "unseen_s" in row]
    for title, columns, those in (
        ("Index; MB added to what imports take", INDEX, timed),
        ("Texts", TEXTS, timed),
        ("Strings that are no name", UNSEEN, unseen),
        ("Changed names", REFRESH, refreshed),
    ):
        if those:
            table = Table(title=title, title_justify="left")
            for name in ("system", "names", *columns):
                table.add_column(name, justify="left" if name == "system" else "right")
            for row in those:
                said = (column(row) for column in columns.values())
                table.add_row(SYSTEMS[row["system"]].title, f"{row['names']:,}", *said)
            console.print(table)
    sizes = [row for row in timed if row["measurement"] == "sizes"]
    if sizes:
        table = Table("bytes per name", *(f"{row['names']:,} names" for row in sizes))
        for file in sorted({file for row in sizes for file in row["files"]}):
            table.add_row(file, *(f"{row['files'].get(file, 0) / row['names']:.2f}" for row in sizes))
        console.print(table)
    for row in rows:
        note = row.get("failed") or SYSTEMS[row["system"]].note
        if note:
            console.print(f"{SYSTEMS[row['system']].title}, {row['names']:,} names: {note}", highlight=False)
