"""This module turns cells into the lines that people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Cell = Mapping[str, Any]
HEADS = ("quality", "at 25/50/100 % spend", "cost at best single", "AIQ", "oracle gap", "ECE")
SPEED = ("fit, s", "p50, ms", "p99, ms", "peak, MB", "artifact, MB")


def ranked(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells by set, the best quality first, those that could not run last."""

    def key(cell: Cell) -> tuple[str, bool, float]:
        return cell["set"], "error" in cell, -(cell.get("quality") or {"value": 0.0})["value"]

    return sorted(cells, key=key)


def to_text(cells: Sequence[Cell]) -> str:
    """Return one table per set for the terminal."""
    lines: list[str] = []
    last = ""
    for cell in ranked(cells):
        if cell["set"] != last:
            last = cell["set"]
            lines += [
                "",
                f"{last}",
                f"{'method':<20}" + "".join(f"{head:>22}" for head in (*HEADS, *SPEED[:2])),
            ]
        if "error" in cell:
            lines.append(f"{cell['method']:<20}  could not run: {cell['error']}")
            continue
        values = [*numbers(cell), *speed(cell)[:2]]
        lines.append(f"{cell['method']:<20}" + "".join(f"{value:>22}" for value in values))
    return "\n".join(lines).strip()


def to_markdown(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield one table per set for a page."""
    last = ""
    for cell in ranked(cells):
        if cell["set"] != last:
            last = cell["set"]
            yield ""
            yield f"**{last}**"
            yield ""
            yield f"| method | {' | '.join((*HEADS, *SPEED))} |"
            yield "|---|" + "---|" * len((*HEADS, *SPEED))
        if "error" in cell:
            blank = " |" * (len(HEADS) + len(SPEED) - 1)
            yield f"| `{cell['method']}` | could not run: {cell['error']} |{blank}"
            continue
        yield f"| `{cell['method']}` | {' | '.join([*numbers(cell), *speed(cell)])} |"


def numbers(cell: Cell) -> list[str]:
    """Return quality and money, in the order of `HEADS`."""
    dials = [_number(value) for value in cell["dials"].values()]
    cost = cell["cost_at_best_single"]
    kept = "-" if cost is None else "never" if cost["value"] is None else f"{cost['value']:.0%}"
    aiq, gap = cell["aiq"], cell["oracle_share"]
    return [
        _interval(cell["quality"]),
        " / ".join(dials) or "-",
        kept,
        "-" if aiq is None else _number(aiq["value"]),
        "-" if gap is None or gap["value"] is None else f"{gap['value']:.0%}",
        _number(cell["ece"]),
    ]


def speed(cell: Cell) -> list[str]:
    """Return times and sizes, in the order of `SPEED`."""
    size = "-" if cell["artifact_mb"] is None else f"{cell['artifact_mb']:.1f}"
    times = [f"{cell['fit_s']:.1f}", f"{cell['p50_ms']:.2f}", f"{cell['p99_ms']:.2f}"]
    peak = "-" if cell["peak_mb"] is None else f"{cell['peak_mb']:,.0f}"
    return [*times, peak, size]


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
