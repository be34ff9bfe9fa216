"""This module turns cells into a table: means over seeds, and paired differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from turnout.nn.bench.setting import Setting

# Quantiles of Student's t at 97.5 %, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

BASELINE = "dense"
FIXED = "top_k, best fixed choice"

TOLERANCE = 0.05
"""Losses are ranked among those whose executed operations are within this share of the dense model's."""

Group = Literal["equal work", "other work", "sees later bytes"]

GROUPS: dict[Group, str] = {
    "equal work": "",
    "other work": f"other work: more than {TOLERANCE:.0%} from the dense model's FLOPs, not ranked above",
    "sees later bytes": "sees later bytes: its loss is not one of foretelling, not to be compared",
}
"""What is ranked apart, in the order of tables, with what a table says of it."""


def group_of(sees: str, flops: float | None) -> Group:
    """Return where a row is ranked; unknown FLOPs, as those of a fixed choice of `top_k`, part nothing."""
    if sees not in ("token", "past"):
        return "sees later bytes"
    return "equal work" if flops is None or abs(flops - 1) <= TOLERANCE else "other work"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A mean over seeds, with the 95 % interval of Student's t; the ends are None for one seed."""

    value: float
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and interval of what was measured; None of nothing."""
    if not values:
        return None
    mean = fmean(values)
    if len(values) < 2:
        return Spread(value=mean, low=None, high=None)
    half = STUDENT[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return Spread(value=mean, low=mean - half, high=mean + half)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One gate over all its seeds. Differences are paired: the same seed has the same data and first weights.

    `loss` is in nats a byte, `against_dense` its difference to the dense model, `speed` the tokens a second
    of training over those of the dense model, `flops` the executed FLOPs of feed-forwards and gates over its.
    """

    gate: str
    sees: str
    seeds: int
    loss: Spread | None
    against_dense: Spread | None
    speed: Spread | None
    flops: Spread | None
    parameters: int
    max_vio: Spread | None = None
    dead_share: Spread | None = None
    change_rate: Spread | None = None
    experts_per_token: Spread | None = None

    @property
    def group(self) -> Group:
        """Whose losses its own is ranked among."""
        return group_of(self.sees, self.flops.value if self.flops else None)


def summarise(cells: Sequence[Mapping[str, Any]], *, clock: str = "cpu") -> list[Row]:
    """Return a row for each gate: group by group, each by its loss.

    `clock` is `cpu` for processor seconds, which other work on the machine does not change, or `wall`.
    """
    speed_key = "tokens_per_cpu_s" if clock == "cpu" else "tokens_per_s"
    by_gate: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in cells:
        by_gate.setdefault(cell["gate"], {})[cell["seed"]] = cell
    dense = by_gate.get(BASELINE, {})
    rows = [_row(name, found, dense, speed_key) for name, found in by_gate.items()]
    top_k = by_gate.get("top_k", {})
    fixed = {
        seed: {**c, "loss": c["best_fixed_loss"]} for seed, c in top_k.items() if c.get("best_fixed_loss")
    }
    if fixed:
        rows.append(_fixed(fixed, dense))
    worst, order = math.inf, list(GROUPS)
    return sorted(rows, key=lambda r: (order.index(r.group), r.loss.value if r.loss else worst))


def _row(
    name: str, cells: Mapping[int, Mapping[str, Any]], dense: Mapping[int, Mapping[str, Any]], speed_key: str
) -> Row:
    first = next(iter(cells.values()))

    def over(key: str) -> Spread | None:
        return spread([c[key] for c in cells.values() if c.get(key) is not None])

    def ratio(key: str) -> Spread | None:
        pairs = [(c.get(key), dense[seed].get(key)) for seed, c in cells.items() if seed in dense]
        return spread([a / b for a, b in pairs if a is not None and b is not None])

    return Row(
        gate=name,
        sees=first["sees"],
        seeds=len(cells),
        loss=over("loss"),
        against_dense=_difference(cells, dense) if name != BASELINE else None,
        speed=ratio(speed_key),
        flops=ratio("feed_flops_per_token"),
        parameters=first["parameters"],
        max_vio=over("max_vio"),
        dead_share=over("dead_share"),
        change_rate=over("change_rate"),
        experts_per_token=over("experts_per_token"),
    )


def _fixed(cells: Mapping[int, Mapping[str, Any]], dense: Mapping[int, Mapping[str, Any]]) -> Row:
    """Return the row of `top_k`'s models with one choice for all tokens."""
    return Row(
        gate=FIXED,
        sees="token",
        seeds=len(cells),
        loss=spread([c["loss"] for c in cells.values()]),
        against_dense=_difference(cells, dense),
        speed=None,
        flops=None,
        parameters=next(iter(cells.values()))["parameters"],
    )


def _difference(
    cells: Mapping[int, Mapping[str, Any]], dense: Mapping[int, Mapping[str, Any]]
) -> Spread | None:
    """Return the loss minus the dense model's, seed by seed."""
    pairs = [(c["loss"], dense[seed]["loss"]) for seed, c in cells.items() if seed in dense]
    return spread([a - b for a, b in pairs if a is not None and b is not None])


def to_json(
    setting: Setting,
    corpus: str,
    rows: Sequence[Row],
    cells: Sequence[Mapping[str, Any]],
    *,
    run: Mapping[str, float],
) -> dict[str, Any]:
    """Return everything as one document; `run` is what is known of the call that trained the last cells."""
    return {
        "setting": asdict(setting),
        "key": setting.key,
        "corpus": corpus,
        "run": dict(run),
        "rows": [asdict(row) for row in rows],
        "cells": [dict(cell) for cell in cells],
    }


def to_text(setting: Setting, corpus: str, rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    size, seen = setting.size, setting.steps * setting.batch * setting.size.positions
    head = (
        f"{setting.name}: {size.layers} layers, width {size.width}, {size.experts} experts, "
        f"{seen:,} bytes of {corpus}, {setting.seeds} seeds"
    )
    columns = ("gate", "FLOPs", "loss, nats a byte", "against dense", "MaxVio", "dead", "change", "speed")
    lines = [
        head,
        "",
        f"{columns[0]:<26}{columns[1]:>6}{columns[2]:>24}{columns[3]:>28}"
        + "".join(f"{c:>8}" for c in columns[4:]),
    ]
    for group, said in GROUPS.items():
        found = [row for row in rows if row.group == group]
        lines += ["", said] if found and said else []
        lines += [_line(row) for row in found]
    return "\n".join(lines)


def _line(row: Row) -> str:
    numbers = (row.max_vio, row.dead_share, row.change_rate, row.speed)
    return (
        f"{row.gate:<26}{_plain(row.flops):>6}{_with_ends(row.loss, '.3f'):>24}"
        f"{_with_ends(row.against_dense, '+.3f'):>28}" + "".join(f"{_plain(number):>8}" for number in numbers)
    )


def _with_ends(found: Spread | None, form: str) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return format(found.value, form)
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def _plain(found: Spread | None) -> str:
    return "-" if found is None else f"{found.value:.2f}"
