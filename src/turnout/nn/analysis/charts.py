"""This module draws the table of an analysis as lines: over layers, checkpoints or numbers of experts."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from turnout.core.errors import InputError, sentence
from turnout.nn.analysis.pictures import DPI, NAMED, TICKS, dress, shade, shades_of, short
from turnout.nn.analysis.table import Cell, Table, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2563eb", "#d97706", "#0d9488", "#be185d")
"""Of columns that stand beside each other."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Which columns of a table are lines, over which column, and which column tells several lines apart."""

    over: str
    lines: tuple[str, ...]
    by: str | None = None
    is_log: bool = False


CHARTS: dict[str, Chart] = {
    "Load of experts": Chart(over="layer", lines=("max_vio", "cv")),
    "Sureness of gates": Chart(over="layer", lines=("entropy", "top", "margin")),
    "Specialisation by domain": Chart(over="layer", lines=("share", "distance")),
    "Specialisation by token": Chart(over="layer", lines=("share", "chance", "share_of_commonest_expert")),
    "Standing committee": Chart(over="layer", lines=("mass", "mass_if_even", "jaccard", "gini")),
    "Local routing consistency": Chart(over="segment_tokens", lines=("sch",), by="layer", is_log=True),
    "Saturation and change of the choice": Chart(over="checkpoint", lines=("saturation",), by="layer"),
    "Effective parameter count": Chart(over="experts", lines=("factor",), by="params", is_log=True),
}
"""By the title of the table."""


def has_chart(table: Table) -> bool:
    """Return whether a table can be drawn: it is known, and its lines have numbers at two places at least."""
    chart = CHARTS.get(table.title)
    if chart is None:
        return False
    at = {name: number for number, name in enumerate(table.columns)}
    known = (
        row[at[chart.over]]
        for row in table.rows
        if any(row[at[line]] == row[at[line]] for line in chart.lines)
    )
    return len(set(known)) > 1


def draw_table(table: Table) -> bytes:
    """Return a PNG of a table's lines; raises `InputError` for a table that `has_chart` says no to."""
    if not has_chart(table):
        raise InputError(
            sentence(
                f"the table {table.title!r} of {len(table.rows)} rows",
                allowed=f"numbers in two rows or more, and a title of {', '.join(CHARTS)}",
            )
        )
    figure = Figure(figsize=(5.2, 2.8), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    plot(figure.subplots(), table)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": "turnout"})
    return file.getvalue()


def plot(axes: Axes, table: Table) -> None:
    """Draw a table's lines; a legend names them where they are few."""
    chart = CHARTS[table.title]
    lines = _lines(table, chart)
    shades = shades_of(len(lines))
    for number, (name, points) in enumerate(lines.items()):
        xs, ys = zip(*points, strict=True)
        color = COLOURS[number % len(COLOURS)] if chart.by is None else shade(shades, number)
        axes.plot(
            xs, ys, marker="o", markersize=3.5, linewidth=1.6, color=color, label=name.replace("_", " ")
        )
    if chart.is_log:
        axes.set_xscale("log", base=2)
    else:
        places = list(dict.fromkeys(table.column(chart.over)))
        step = -(-len(places) // TICKS)
        axes.set_xticks(range(0, len(places), step), [short(str(place)) for place in places[::step]])
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.8)
    if len(lines) <= NAMED:
        axes.legend(title=chart.by, fontsize=7, title_fontsize=7, frameon=False)
    what = chart.lines[0].replace("_", " ") if len(chart.lines) == 1 else ""
    dress(axes, table.title, chart.over.replace("_", " "), what)


def _lines(table: Table, chart: Chart) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line; where places are names, they stand at 0, 1, 2."""
    places: dict[Cell, float] = {}
    for place in table.column(chart.over):
        places.setdefault(place, float(place) if chart.is_log else float(len(places)))
    at = {name: number for number, name in enumerate(table.columns)}
    found: dict[str, list[tuple[float, float]]] = {}
    for row in table.rows:
        for line in chart.lines:
            name = line if chart.by is None else _named(row[at[chart.by]])
            found.setdefault(name, []).append((places[row[at[chart.over]]], float(row[at[line]])))
    return found


def _named(cell: Cell) -> str:
    return short(cell) if isinstance(cell, str) else show(cell)
