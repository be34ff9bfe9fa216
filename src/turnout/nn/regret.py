"""This module judges any router of depth or width by its distance to an oracle that may spend the same.

Source: S22, Duo-LLM (arXiv 2410.10846), section 3.2: regret = loss(router) - loss(oracle at equal budget).

It needs no model: a loss function over patterns (`Problem`) and the decisions, or losses alone, are enough.
Letters here: Q items (sequences or tokens), G groups of items, K budgets, P columns of a resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number, check_shape
from turnout.nn.depth.duo.problem import Floats, Ints, Oracle, Problem

CHUNK_CELLS = 2_000_000
"""Counts of a bootstrap that are held at one time."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over items with a bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Regret:
    """How far decisions are from the oracle of equal budget; losses in the unit of the loss function."""

    name: str
    budget: float
    """What the decisions spend per item, on average."""
    loss: Interval
    oracle_loss: float
    """The oracle's mean loss where each item may spend what the decisions spent on it."""
    regret: Interval
    """Paired: the interval of the difference, item by item."""


def regret(
    name: str,
    loss_Q: Floats,
    spent_Q: Floats,
    *,
    oracle: Oracle,
    rng: np.random.Generator,
    groups_Q: Ints | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Regret:
    """Return loss(router) - loss(oracle at equal budget), with paired bootstrap intervals.

    Parameters
    ----------
    loss_Q
        The loss of every item under the decisions to be judged.
    spent_Q
        What the decisions spent on each item, in units of the oracle's budget. Between two searched budgets
        the oracle's loss is interpolated (`Oracle.loss_at`); above the last it stays.
    groups_Q
        Items that stand or fall together, such as the tokens of one sequence; whole groups are drawn.
    """
    num_items = oracle.loss_KQ.shape[1]
    check_shape("regret: loss_Q", loss_Q, "Q", (num_items,))
    check_shape("regret: spent_Q", spent_Q, "Q", (num_items,))
    check_number("regret: confidence", confidence, low=0.0, high=1.0, allow_low=False, allow_high=False)
    if not np.isfinite(loss_Q).all():
        raise InputError(sentence("regret: loss_Q", allowed="finite numbers", got="nan or infinite"))
    best_Q = np.empty(num_items)
    for spent in np.unique(spent_Q):
        here = spent_Q == spent
        best_Q[here] = oracle.loss_at(float(spent))[here]
    columns_QP = np.column_stack([loss_Q, loss_Q - best_Q])
    low_P, high_P = _bounds(columns_QP, groups_Q, rng, confidence, num_resamples)
    mean_P = columns_QP.mean(axis=0)
    loss, gap = (
        Interval(value=float(mean_P[i]), low=float(low_P[i]), high=float(high_P[i])) for i in range(2)
    )
    return Regret(
        name=name, budget=float(spent_Q.mean()), loss=loss, oracle_loss=float(best_Q.mean()), regret=gap
    )


def regret_table(
    problem: Problem,
    decisions: Mapping[str, Ints],
    *,
    oracle: Oracle,
    rng: np.random.Generator,
    groups_Q: Ints | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> list[Regret]:
    """Return one line per entry of `decisions`, each a pattern (L,) for all items or (Q, L), one an item.

    Works for any router whose decisions are patterns: a depth router's 0, 1, 2 (skip, execute, repeat) with
    `cost_A=(0, 1, 2)` as well as small and big. Put the best fixed pattern and random ones beside the router:
    a regret alone does not say how much there was to lose. Every line sees the same resamples.
    """
    seed = int(rng.integers(2**32))
    lines = []
    for name, choice in decisions.items():
        given = np.asarray(choice)
        if given.shape not in ((problem.num_layers,), (problem.num_items, problem.num_layers)):
            allowed = f"(L,) or (Q, L) = ({problem.num_items}, {problem.num_layers})"
            raise InputError(sentence(f"regret_table: {name!r}", allowed=allowed, got=given.shape))
        loss_Q = problem.of_items(given)
        spent_Q = np.broadcast_to(problem.spent(given), (problem.num_items,))
        lines.append(
            regret(
                name,
                loss_Q,
                spent_Q,
                oracle=oracle,
                rng=np.random.default_rng(seed),
                groups_Q=groups_Q,
                confidence=confidence,
                num_resamples=num_resamples,
            )
        )
    return lines


def format_table(lines: Sequence[Regret]) -> str:
    """Return the lines as text in columns: budget, loss, the oracle's loss, regret with its interval."""
    rows = [f"{'':<24} {'budget':>7} {'loss':>8} {'oracle':>8} {'regret':>8}  interval"]
    rows += [
        f"{line.name:<24} {line.budget:>7.2f} {line.loss.value:>8.4f} {line.oracle_loss:>8.4f} "
        f"{line.regret.value:>8.4f}  [{line.regret.low:.4f}, {line.regret.high:.4f}]"
        for line in lines
    ]
    return "\n".join(rows)


def interval_of(
    value_Q: Floats,
    *,
    rng: np.random.Generator,
    groups_Q: Ints | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Interval:
    """Return the mean of some values with its bootstrap interval."""
    column_QP = np.asarray(value_Q, dtype=np.float64)[:, None]
    low_P, high_P = _bounds(column_QP, groups_Q, rng, confidence, num_resamples)
    return Interval(value=float(column_QP.mean()), low=float(low_P[0]), high=float(high_P[0]))


def _bounds(
    columns_QP: Floats,
    groups_Q: Ints | None,
    rng: np.random.Generator,
    confidence: float,
    num_resamples: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the percentile bounds of the column means when groups are drawn with replacement."""
    check_count("regret: num_resamples", num_resamples)
    num_items = len(columns_QP)
    group_Q = np.arange(num_items) if groups_Q is None else np.unique(groups_Q, return_inverse=True)[1]
    check_shape("regret: groups_Q", group_Q, "Q", (num_items,))
    num_groups = int(group_Q.max()) + 1
    sums_GP = np.zeros((num_groups, columns_QP.shape[1] + 1))
    np.add.at(sums_GP, group_Q, np.column_stack([columns_QP, np.ones(num_items)]))
    chances_G, size = np.full(num_groups, 1 / num_groups), max(1, CHUNK_CELLS // num_groups)
    parts = [min(size, num_resamples - start) for start in range(0, num_resamples, size)]
    totals = [rng.multinomial(num_groups, chances_G, size=part) @ sums_GP for part in parts]
    total_NP = np.concatenate(totals)
    tail = (1 - confidence) / 2
    low_P, high_P = np.quantile(total_NP[:, :-1] / total_NP[:, -1:], [tail, 1 - tail], axis=0)
    return low_P, high_P
