"""This module prints a report in a terminal: the table, then what to know about it."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnout.evaluation.tables import MAIN_NOTE, main_sheet

if TYPE_CHECKING:
    from turnout.evaluation.report import Report
    from turnout.evaluation.value import Value

_BREAKS = {
    "usd per 1,000": "usd\nper\n1,000",
    "saving at equal quality": "saving at\nequal\nquality",
    "vs best single": "vs best\nsingle",
    "oracle gap": "oracle\ngap",
}
NARROW = 96
"""Below this many columns the oracle gap and the interval of the saving are left out."""
DEFAULT_WIDTH = 110
"""Columns when standard output is no terminal."""


def render(report: Report, *, width: int | None = None, color: bool | None = None) -> str:
    """Return the report as text of at most `width` columns; colour only when asked or on a terminal."""
    has_color = sys.stdout.isatty() if color is None else color
    size = width if width is not None else (None if sys.stdout.isatty() else DEFAULT_WIDTH)
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=size,
        force_terminal=has_color,
        color_system="standard" if has_color else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(_table(report, console.width))
    for line in _footer(report):
        console.print(line)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _table(report: Report, width: int) -> Table:
    is_narrow = width < NARROW
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0) if is_narrow else (0, 1)
    )
    sheet = main_sheet(report)
    num_columns = len(sheet.headings) - (1 if is_narrow else 0)
    for title in sheet.headings[:num_columns]:
        broken = _BREAKS.get(title, title)
        table.add_column(broken, justify="left" if title == "router" else "right", no_wrap=True)
    last_run = next((row.name for row in reversed(report.rows) if row.kind == "run"), None)
    for row, cells in zip(report.rows, sheet.lines, strict=True):
        style = "bold" if row.kind == "run" else "dim" if row.name in ("random", "oracle") else ""
        line = [
            Text(_cut(title, cell) if is_narrow else cell, style=style)
            for title, cell in zip(sheet.headings, cells, strict=True)
        ]
        line[-2].stylize(_sign_color(row.vs_best_single))
        table.add_row(*line[:num_columns], end_section=row.name == last_run)
    return table


def _cut(title: str, cell: str) -> str:
    return cell.partition(" [")[0] if title.startswith("saving") else cell


def _sign_color(difference: Value) -> str:
    if not difference.excludes_zero or difference.value is None:
        return ""
    return "green" if difference.value > 0 else "red"


def _footer(report: Report) -> list[Text]:
    origin = report.origin
    unit = "groups" if origin.num_groups is not None else "queries"
    lines = [
        f"Best single: {report.best_single}. {MAIN_NOTE}",
        f"{origin.num_scored:,} of {origin.num_queries:,} queries scored; {origin.confidence:.0%} intervals "
        f"from {origin.num_resamples:,} resamples of {unit}, seed {origin.seed}; table {origin.table}, "
        f"train {origin.train or 'none'}.",
    ]
    if report.halved_oracle is not None:
        lines[0] += f" Oracle without luck (half of the samples choose): {report.halved_oracle:.3f}."
    return [Text(""), *(Text(line, style="dim") for line in lines)] + [
        Text(f"! {warning}", style="yellow") for warning in report.warnings
    ]
