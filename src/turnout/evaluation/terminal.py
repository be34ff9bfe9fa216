"""This module prints a report in a terminal: the table, then what to know about it."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from turnout.evaluation.report import Report, Row
    from turnout.evaluation.value import Value

DEFAULT_WIDTH = 128
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
    console.print(_table(report))
    for line in _footer(report):
        console.print(line)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def headings(report: Report) -> list[str]:
    """Return the column titles; the ones about money are absent without costs."""
    money = ["usd per 1,000", "saving at equal quality"] if report.has_costs else []
    return ["router", "quality", *money, "oracle gap", "vs best single"]


def cells(report: Report, row: Row) -> list[str]:
    """Return the row under `headings`, percentages of quality as points."""
    money = []
    if report.has_costs and row.usd_per_1k is not None:
        money = [money_text(row.usd_per_1k.value), "-" if row.name == "best single" else str(row.saving)]
    difference = "-" if row.name == "best single" else row.vs_best_single.format("+.2f", scale=100)
    return [
        row.name,
        row.quality.format(".4f"),
        *money,
        "-" if row.oracle_share.value is None else f"{row.oracle_share.value:.1%}",
        difference,
    ]


def money_text(usd: float | None) -> str:
    """Return an amount with three significant digits."""
    if usd is None:
        return "n/a"
    return f"{usd:,.0f}" if usd >= 100 else f"{usd:.3g}"


def _table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for title in headings(report):
        table.add_column(title, justify="left" if title == "router" else "right")
    last_run = next((row.name for row in reversed(report.rows) if row.kind == "run"), None)
    for row in report.rows:
        style = "bold" if row.kind == "run" else "dim" if row.name in ("random", "oracle") else ""
        line = [Text(cell, style=style) for cell in cells(report, row)]
        line[-1].stylize(_sign_color(row.vs_best_single))
        table.add_row(*line, end_section=row.name == last_run)
    return table


def _sign_color(difference: Value) -> str:
    if not difference.excludes_zero or difference.value is None:
        return ""
    return "green" if difference.value > 0 else "red"


def _footer(report: Report) -> list[Text]:
    origin = report.origin
    unit = "groups" if origin.num_groups is not None else "queries"
    lines = [
        f"best single: {report.best_single}; differences from it are paired, in points of quality.",
        f"{origin.num_scored:,} of {origin.num_queries:,} queries scored; {origin.confidence:.0%} intervals "
        f"from {origin.num_resamples:,} resamples of {unit}, seed {origin.seed}; table {origin.table}, "
        f"train {origin.train or 'none'}.",
    ]
    return [Text(line, style="dim") for line in lines] + [
        Text(f"! {warning}", style="yellow") for warning in report.warnings
    ]
