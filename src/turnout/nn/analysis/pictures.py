"""This module draws what was found in a model's gates."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from turnout.nn.analysis.specialisation import lift_is_known

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from turnout.nn.analysis.inspection import Inspection

DPI = 160
INK, SOFT = "#111827", "#4b5563"

LETTERS = 28
"""So much of a name is written in a picture."""

DEPTH = ("#134e4a", "#0e7490", "#2563eb", "#7c3aed")
"""From the first layer to the last."""

NAMED = 6
"""Up to so many layers a line is named; of more a bar of colours tells which is which."""

TICKS = 16
"""So many layers are named on an axis; of more every second, third and so on."""


def panels_of(inspection: Inspection) -> int:
    """Return how many pictures stand side by side."""
    consistency = inspection.table("Local routing consistency")
    has_lines = consistency is not None and any(value == value for value in consistency.column("srp"))
    return 1 + bool(inspection.domains) + has_lines


def draw(inspection: Inspection) -> bytes:
    """Return one PNG: load by layer and expert, lift by domain and expert, consistency by segment."""
    panels = panels_of(inspection)
    figure = Figure(figsize=(4.4 * panels, 3.6), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    _draw_load(figure, axes.pop(0), inspection)
    if inspection.domains:
        _draw_domains(figure, axes.pop(0), inspection)
    if axes:
        _draw_consistency(figure, axes.pop(0), inspection)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": "turnout"})
    return file.getvalue()


def _draw_load(figure: Figure, axes: Axes, inspection: Inspection) -> None:
    """Show each expert's load over the mean, experts of a layer from the most to the least used."""
    widest = max(len(load_E) for load_E in inspection.loads.values())
    rows = torch.full((len(inspection.loads), widest), torch.nan, dtype=torch.double)
    for row, load_E in enumerate(inspection.loads.values()):
        rows[row, : len(load_E)] = (load_E.double() / load_E.double().mean()).sort(descending=True)[0]
    shown = axes.imshow(rows.numpy(), aspect="auto", cmap="viridis", vmin=0.0, interpolation="nearest")
    dress(axes, "Load over the mean", "experts, most used first", "layer")
    step = -(-len(inspection.loads) // TICKS)
    names = [short(name) for name in inspection.loads]
    axes.set_yticks(range(0, len(names), step), names[::step])
    figure.colorbar(shown, ax=axes)


def _draw_domains(figure: Figure, axes: Axes, inspection: Inspection) -> None:
    """Show in the last layer how much more than on average each domain uses each expert.

    What too few choices say stays grey, and stands on the right where no domain has enough.
    """
    layer, counts = list(inspection.domains.items())[-1]
    share_GE = torch.stack(
        [load_E.double() / load_E.double().sum().clamp(min=1) for load_E in counts.values()]
    )
    lift_GE = (share_GE / share_GE.mean(dim=0).clamp(min=1e-12)).clamp(min=2**-3).log2()
    known_GE = lift_is_known(torch.stack(list(counts.values())))
    lift_GE = lift_GE.where(known_GE, 0.0)
    order_E = torch.argsort(lift_GE.argmax(dim=0) * 1e3 - lift_GE.amax(dim=0) + 1e6 * ~known_GE.any(dim=0))
    limit = max(float(lift_GE.abs().max()), 0.1)
    lift_GE = lift_GE.where(known_GE, torch.nan)[:, order_E]
    shown = axes.imshow(
        lift_GE.numpy(), aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    dress(axes, f"Use by domain, layer {short(layer)}", "experts, by their first domain", "")
    axes.set_facecolor("#d1d5db")
    step = -(-len(counts) // TICKS)
    axes.set_yticks(range(0, len(counts), step), [plain(name) for name in list(counts)[::step]])
    figure.colorbar(shown, ax=axes, label="log2 of use over the mean")


def _draw_consistency(figure: Figure, axes: Axes, inspection: Inspection) -> None:
    table = inspection.table("Local routing consistency")
    assert table is not None
    lines: dict[str, list[tuple[float, ...]]] = {}
    for layer, length, *values in table.rows:
        lines.setdefault(str(layer), []).append((float(length), *(float(v) for v in values[:3])))
    shades = shades_of(len(lines))
    for number, (layer, points) in enumerate(lines.items()):
        xs, ys, lows, highs = zip(*points, strict=True)
        color = shade(shades, number)
        axes.plot(xs, ys, marker="o", markersize=3.5, linewidth=1.6, color=color, label=short(layer))
        axes.fill_between(xs, lows, highs, color=color, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_ylim(0.0, 1.03)
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.8)
    if len(lines) <= NAMED:
        axes.legend(title="layer", fontsize=7, title_fontsize=7, frameon=False)
    else:
        bar = figure.colorbar(shades, ax=axes, label="layer, by its place in depth")
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "Local routing consistency", "tokens of a segment", "SRP")


def shades_of(count: int) -> ScalarMappable:
    """Return a colour for each of 0 to count - 1, from the first layer's to the last one's."""
    return ScalarMappable(Normalize(0, max(count - 1, 1)), LinearSegmentedColormap.from_list("", DEPTH))


def shade(shades: ScalarMappable, number: int) -> tuple[float, ...]:
    """Return the colour of one number."""
    return tuple(shades.to_rgba(np.array([number]))[0])


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    """Write title and axes in the size and colours of all pictures."""
    axes.set_title(title, fontsize=10, fontweight="bold", color=INK, loc="left")
    axes.set_xlabel(x, fontsize=8.5, color=SOFT)
    axes.set_ylabel(y, fontsize=8.5, color=SOFT)
    axes.tick_params(labelsize=8, colors=SOFT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def short(name: str) -> str:
    """Return the number of a layer from its path in a model, or the name where it has none."""
    return next((part for part in name.split(".") if part.isdigit()), plain(name))


def plain(name: str) -> str:
    """Return a name as pictures have it: of a long one both ends, and a dollar begins no formula."""
    cut = name if len(name) <= LETTERS else f"{name[: LETTERS - 14]}...{name[-11:]}"
    return cut.replace("$", r"\$")
