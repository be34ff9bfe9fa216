"""This module joins what the seeds of `bench_duo` found, and holds the paper's claims to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from turnout.core.rng import make_rng
from turnout.nn.depth.duo import SKIP, Oracle
from turnout.nn.regret import Interval, interval_of, regret

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class Cell:
    """Every policy at one budget, of one seed, on the same items."""

    loss: dict[str, Floats]
    """Losses of the items by policy."""
    oracle: Oracle
    """Exhaustive, at every budget."""
    spent_Q: Floats | None = None
    """Big layers that the trained router took per token, on each item."""

    def add_draws(self, drawn_NQ: Floats) -> None:
        """Take the losses of random routings: their mean, and both readings of the best of them."""
        self.loss["random"] = drawn_NQ.mean(axis=0)
        self.loss["best_of_n_together"] = drawn_NQ[int(drawn_NQ.mean(axis=1).argmin())]
        self.loss["best_of_n"] = drawn_NQ.min(axis=0)


def joined(oracles: Sequence[Oracle]) -> Oracle:
    """Return one oracle over the items of all seeds."""
    return Oracle(
        budget_K=oracles[0].budget_K,
        loss_KQ=np.concatenate([oracle.loss_KQ for oracle in oracles], axis=1),
        choice_KQL=np.concatenate([oracle.choice_KQL for oracle in oracles], axis=1),
    )


def line_of(budget: int, cells: Sequence[Cell], groups_Q: Ints) -> dict[str, Any]:
    """Return one budget's line over all seeds: loss and regret by policy; whole groups are drawn."""
    every_Q = np.tile(groups_Q, len(cells))
    line: dict[str, Any] = {"budget": budget}
    best_Q = _losses(cells, "exhaustive")
    for name in cells[0].loss:
        loss_Q = _losses(cells, name)
        line[name] = {
            "loss": _interval(loss_Q, every_Q),
            "regret": _interval(loss_Q - best_Q, every_Q),
            "loss_by_seed": [float(cell.loss[name].mean()) for cell in cells],
        }
    if cells[0].spent_Q is not None:
        # A router spends what it likes on each item: the oracle beside it may spend the same there.
        spent_Q = np.concatenate([cell.spent_Q for cell in cells if cell.spent_Q is not None])
        found = regret(
            "router", _losses(cells, "router"), spent_Q,
            oracle=joined([cell.oracle for cell in cells]), rng=make_rng(0, "bootstrap"), groups_Q=every_Q,
        )  # fmt: skip
        line["router"] |= {"spent": found.budget, "regret": dataclasses.asdict(found.regret)}
    return line


def claims(
    found: Mapping[str, Any],
    oracle: Oracle,
    sequences: Sequence[Sequence[Cell]],
    tokens: Sequence[Sequence[Cell]],
    rows_Q: Ints,
    rows_P: Ints,
) -> list[dict[str, Any]]:
    """Return what the paper says beside what was measured here."""
    table, layers = found["sequences"], len(found["sequences"]) - 1
    gains = []
    for cells, rows in ((sequences, rows_Q), (tokens, rows_P)):
        one = [own[1] for own in cells]
        gains.append(
            _interval(_losses(one, "exhaustive") - _losses(one, "all_big"), np.tile(rows, len(cells)))
        )
    gaps = {
        name: [line["router"]["loss"]["value"] - line[name]["loss"]["value"] for line in table[1:-1]]
        for name in ("best_of_n", "best_of_n_together", "best_fixed")
    }
    used = float((oracle.choice_KQL[-1] == 1).sum(axis=1).mean())
    centres = [_centre(oracle.share_KL()[k]) for k in (1, layers - 1)]
    lines = [
        {
            "claim": "with one big layer the oracle beats all-big",
            "measured": gains[0],
            "per_token": gains[1],
            "holds": gains[0]["high"] < 0,
            "holds_per_token": gains[1]["high"] < 0,
        },
        {
            "claim": "unlimited, the oracle uses about half of the big layers",
            "measured": used,
            "holds": bool(abs(used - layers / 2) < 1),
        },
        {
            "claim": "trained routers land near the best of 100 random routings",
            "measured": gaps,
            "holds": max(gaps["best_of_n"]) < 0.02,
            "holds_together": max(gaps["best_of_n_together"]) < 0.02,
        },
        {
            "claim": "small budgets go to late layers, large ones to early layers as well",
            "measured": centres,
            "holds": bool(centres[0] > (layers - 1) / 2 and centres[1] < centres[0]),
        },
    ]
    if found["allow_skip"]:
        lines.append(_not_an_early_exit(oracle, np.tile(rows_Q, len(sequences))))
    return lines


def _not_an_early_exit(oracle: Oracle, groups_Q: Ints) -> dict[str, Any]:
    """Return the share of unlimited patterns with a skip whose skips are not the last layers alone."""
    is_skip_QL = oracle.choice_KQL[-1] == SKIP
    is_exit_Q = (np.diff(is_skip_QL.astype(int), axis=1) >= 0).all(axis=1)
    has_Q = is_skip_QL.any(axis=1)
    share = _interval((~is_exit_Q)[has_Q].astype(float), groups_Q[has_Q]) if has_Q.any() else None
    return {
        "claim": "the best skipping is no early exit",
        "measured": share,
        "patterns_with_a_skip": float(has_Q.mean()),
        "holds": bool(share is not None and share["low"] > 0.5),
    }


def _losses(cells: Sequence[Cell], name: str) -> Floats:
    return np.concatenate([cell.loss[name] for cell in cells])


def _interval(value_Q: Floats, groups_Q: Ints) -> dict[str, float]:
    found: Interval = interval_of(value_Q, rng=make_rng(0, "bootstrap"), groups_Q=groups_Q)
    return dataclasses.asdict(found)


def _centre(share_L: Floats) -> float:
    return float((share_L * np.arange(len(share_L))).sum() / max(share_L.sum(), 1e-9))
