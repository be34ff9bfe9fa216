"""This module turns cells into the lines that people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from turnout.training.bench.told import is_told, plain

Cell = Mapping[str, Any]
HEADS = (
    *("quality", "spend", "at 25/50/100 % spend", "cost at best single"),
    *("AIQ", "oracle gap", "ECE", "flips"),
)
SPEED = ("fit, s", "p50, ms", "p99, ms", "peak, MB", "artifact, MB")
_WIDTHS = (22, 7, 23, 21, 8, 12, 8, 7, 9, 9)


def ranked(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells by set, the best quality first, those that could not run last."""

    def key(cell: Cell) -> tuple[str, bool, float]:
        return cell["set"], "error" in cell, -(cell.get("quality") or {"value": 0.0})["value"]

    return sorted(cells, key=key)


def label(cell: Cell) -> str:
    """Return the name of the method, with a mark where it was told the task of every held-out query."""
    return plain(cell["method"]) + (" (told)" if cell.get("told") else "")


def why(cell: Cell) -> str:
    """Return why a cell holds no numbers, as a phrase."""
    return f"not run: {cell['error']}" if cell.get("is_absent") else f"could not run: {cell['error']}"


def completed(
    cells: Sequence[Cell], methods: Sequence[str], reasons: Mapping[str, str] | None = None
) -> list[Cell]:
    """Return the cells, and one that says why for every method that a set lacks; `reasons` are by method."""
    there = {(cell["set"], cell["method"]) for cell in cells}
    absent = [
        {
            "set": name,
            "method": method,
            "told": is_told(method),
            "is_absent": True,
            "error": (reasons or {}).get(method, "no run of the recorded ones has come to it"),
        }
        for name in dict.fromkeys(cell["set"] for cell in cells)
        for method in methods
        if (name, method) not in there
    ]
    return [*cells, *absent]


def to_text(cells: Sequence[Cell]) -> str:
    """Return one table per set for the terminal, the best first; a dot marks who is beyond the best single.

    A dot stands where the whole interval of the difference lies above 0.
    """
    lines: list[str] = []
    last = ""
    heads = [*HEADS, *SPEED[:2]]
    for cell in ranked(cells):
        if cell["set"] != last:
            last = cell["set"]
            lines += ["", _title(last, [other for other in cells if other["set"] == last])]
            lines += [_line("  method", heads), _line("  " + "-" * 20, ["-" * (w - 2) for w in _WIDTHS])]
        if "error" in cell:
            lines.append(f"  {label(cell):<22}{why(cell)}")
            continue
        mark = "*" if (cell["against_best_single"]["low"] or 0.0) > 0.0 else " "
        lines.append(_line(f"{mark} {label(cell)}", [*numbers(cell), *speed(cell)[:2]]))
    if lines:
        lines += ["", "* better than the best single model, by a 95 % interval; flips: choices that another"]
        lines += ["  wording of the same request changes; times are of the processor"]
        if any(cell.get("told") for cell in cells):
            lines += ["  (told) knows the task of every held-out query; all others have its text alone"]
    return "\n".join(lines).strip()


def _code(cell: Cell) -> str:
    return f"`{plain(cell['method'])}`" + (" (told)" if cell.get("told") else "")


def _title(name: str, cells: Sequence[Cell]) -> str:
    known = [cell for cell in cells if "error" not in cell]
    if not known:
        return name
    holes = known[0].get("estimated")
    more = "" if holes is None else f"; {holes['cells']:.0%} of the cells were not observed and are estimated"
    return f"{name}: {known[0]['queries']:,} held-out queries, {known[0]['candidates']} candidates{more}"


def _line(first: str, values: Sequence[str]) -> str:
    cells = [f"{value:>{width}}" for value, width in zip(values, _WIDTHS, strict=True)]
    return f"{first:<24}" + "".join(cells)


def to_markdown(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield one table per set for a page."""
    last = ""
    for cell in ranked(cells):
        if cell["set"] != last:
            last = cell["set"]
            yield ""
            yield f"**{_title(last, [other for other in cells if other['set'] == last])}**"
            yield ""
            yield f"| method | {' | '.join((*HEADS, *SPEED))} |"
            yield "|---|" + "---|" * len((*HEADS, *SPEED))
        if "error" in cell:
            blank = " |" * (len(HEADS) + len(SPEED) - 1)
            yield f"| {_code(cell)} | {why(cell)} |{blank}"
            continue
        yield f"| {_code(cell)} | {' | '.join([*numbers(cell), *speed(cell)])} |"


def numbers(cell: Cell) -> list[str]:
    """Return quality and money, in the order of `HEADS`."""
    dials = [_number(value) for value in cell["dials"].values()]
    cost = cell["cost_at_best_single"]
    kept = "-" if cost is None else _kept(cost)
    aiq, gap = cell["aiq"], cell["oracle_share"]
    return [
        _interval(cell["quality"]),
        "-" if cell.get("spend") is None else f"{cell['spend']:.0%}",
        " / ".join(dials) or "-",
        kept,
        "-" if aiq is None else _number(aiq["value"]),
        "-" if gap is None or gap["value"] is None else f"{gap['value']:.0%}",
        _number(cell["ece"]),
        "-" if cell.get("flips") is None else f"{cell['flips']['share']:.0%}",
    ]


def _kept(cost: Mapping[str, Any]) -> str:
    if cost.get("is_free"):
        return "free"
    return "never" if cost["value"] is None else f"{cost['value']:.0%}"


def speed(cell: Cell) -> list[str]:
    """Return times and sizes, in the order of `SPEED`."""
    forms = {"fit_s": ".1f", "p50_ms": ".2f", "p99_ms": ".2f", "peak_mb": ",.0f", "artifact_mb": ".1f"}
    return ["-" if cell[name] is None else format(cell[name], form) for name, form in forms.items()]


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
