"""This module keeps the regression heads of candidates, grouped by the rows on which they were observed.

Heads that were observed on the same rows share one design matrix and so one factorisation. Where there are
so many sets of rows that a factorisation for each would take minutes and gigabytes, the rare ones share that
of all rows (`shared_heads`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from turnout.core.outcomes import Bools, Floats, Ints
from turnout.routers.least_squares import Solution, noise_of, solve
from turnout.routers.means import column_mean
from turnout.routers.packing import below, numbered
from turnout.routers.shared_heads import blocks, design_of, solve_shared

MAX_DESIGNS = 256
"""Sets of rows that each have a factorisation: enough for 80 candidates with holes of their own in quality,
cost and latency."""


@dataclass(frozen=True, slots=True)
class HeadGroup:
    """H heads over one design."""

    column: Ints
    """Which column of the caller's targets each head predicts, shape (H,)."""
    centre_F: Floats
    weight_FH: Floats
    intercept_H: Floats
    penalty_H: Floats
    noise_H: Floats
    """Mean squared leave-one-out residual of each head."""
    factor_H: Floats
    """What a head's prediction is multiplied by, see `ridge`."""
    axes_FF: Floats
    values_F: Floats
    num_rows: Floats
    """Shape (1,)."""
    _product_FK: np.ndarray = field(init=False, repr=False)
    """The axes, then the weights: one product of a query with both. In single precision, as embeddings are:
    one query reads all of it, so that its size is its time."""
    _noise_FH: np.ndarray = field(init=False, repr=False)
    """What each squared axis of a query adds to a head's squared error."""
    _centre_F: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        noise_FH = self.noise_H / (self.values_F[:, None] + self.penalty_H)
        product_FK = np.concatenate([self.axes_FF, self.weight_FH], axis=1)
        object.__setattr__(self, "_noise_FH", noise_FH.astype(np.float32))
        object.__setattr__(self, "_product_FK", product_FK.astype(np.float32))
        object.__setattr__(self, "_centre_F", self.centre_F.astype(np.float32))

    def predict(self, x_QF: np.ndarray) -> tuple[Floats, Floats]:
        """Return the predictions and their standard errors for `x_QF` (float32), both of shape (Q, H).

        The error is `sqrt(noise * h)` with the leverage `h = 1/N + sum_f t_f^2 / (value_f + penalty)`, where
        `t` is the centred query in the axes of the design: the posterior deviation of the mean.
        """
        away_QF = x_QF - self._centre_F
        # A row of zeros, a query of which nothing is known, is read as the mean. Counting comes first, since
        # it costs a tenth of the search by rows, and most batches hold no zero at all.
        if np.count_nonzero(x_QF) < x_QF.size:
            away_QF[~x_QF.any(axis=1)] = 0.0
        product_QK = away_QF @ self._product_FK
        num = self.centre_F.size
        # The sums with intercept and noise, which are in double precision, are double too.
        variance_QH = np.square(product_QK[:, :num]) @ self._noise_FH + self.noise_H / self.num_rows
        return product_QK[:, num:] + self.intercept_H, np.sqrt(variance_QH)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `group_from` reads it back."""
        return {f.name: getattr(self, f.name) for f in fields(HeadGroup) if f.init}


def group_from(arrays: Mapping[str, np.ndarray]) -> HeadGroup:
    """Rebuild from `HeadGroup.arrays`."""
    return HeadGroup(*(arrays[f.name] for f in fields(HeadGroup) if f.init))


@dataclass(frozen=True, slots=True)
class Scale:
    """Turns a target column into what its head learns, and back."""

    unit: Floats
    """Shape (C,): 0 leaves a column as it is, u > 0 means `log1p(value / u)`."""
    _is_plain: Bools = field(init=False, repr=False)
    _is_all_plain: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_is_plain", ~(self.unit > 0))
        object.__setattr__(self, "_is_all_plain", bool(self._is_plain.all()))

    def forward(self, y_NC: Floats) -> Floats:
        """Return what the heads learn."""
        unit = np.where(self._is_plain, 1.0, self.unit)
        return np.where(self._is_plain, y_NC, np.log1p(np.maximum(y_NC, 0.0) / unit))

    def back(self, y_NC: Floats) -> Floats:
        """Return predictions in the units of the targets, not negative where scaled."""
        if self._is_all_plain:
            return y_NC
        grown_NC = self.unit * np.expm1(np.minimum(np.maximum(y_NC, 0.0), 50.0))
        np.copyto(grown_NC, y_NC, where=self._is_plain)
        return grown_NC


def learn_heads(
    x_NF: Floats, y_NC: Floats, unit_C: Floats, penalties: Sequence[float], *, num_pooled: int = 0
) -> list[HeadGroup]:
    """Fit a head to every column with a known value; NaN cells do not count, for their column alone.

    The first `num_pooled` columns are learned as `pool` says where they were observed on the same rows.
    """
    own, rare = _by_rows(np.isfinite(y_NC))
    found = [_learn_group(x_NF, y_NC, unit_C, column, penalties, column < num_pooled) for column in own]
    return found if not rare.size else [*found, *_learn_shared(x_NF, y_NC, unit_C, rare, penalties)]


def _by_rows(known_NC: Bools) -> tuple[list[Ints], Ints]:
    """Return the columns by the rows on which they are known, and those whose set of rows is too rare.

    None is too rare where there are at most `MAX_DESIGNS` sets; else those that hold less than that share of
    the columns. So at most `MAX_DESIGNS` are left, and the order of candidates decides nothing.
    """
    members: dict[bytes, list[int]] = {}
    packed_CB = np.packbits(known_NC.T, axis=1)
    for column in np.flatnonzero(known_NC.any(axis=0)).tolist():
        members.setdefault(packed_CB[column].tobytes(), []).append(column)
    least = 1 if len(members) <= MAX_DESIGNS else known_NC.shape[1] / MAX_DESIGNS
    sets = list(members.values())
    rare = sorted(column for columns in sets if len(columns) < least for column in columns)
    own = [np.array(columns, np.int64) for columns in sets if len(columns) >= least]
    return own, np.array(rare, np.int64)


def _learn_shared(
    x_NF: Floats, y_NC: Floats, unit_C: Floats, columns: Ints, penalties: Sequence[float]
) -> list[HeadGroup]:
    """Fit heads of which each has rows of its own, block by block; they make one group."""
    design, parts = design_of(x_NF), []
    for at in blocks(columns.size):
        truth_NH, scale = y_NC[:, columns[at]], Scale(unit_C[columns[at]])
        found = solve_shared(design, scale.forward(truth_NH), penalties)
        guessed_NH = np.where(np.isfinite(truth_NH), scale.back(found.left_out_NH), np.nan)
        parts.append((found, _factors(scale, column_mean(truth_NH), column_mean(guessed_NH))))
    return [
        HeadGroup(
            column=columns,
            centre_F=design.centre_F,
            weight_FH=np.concatenate([found.weight_FH for found, _ in parts], axis=1),
            intercept_H=np.concatenate([found.intercept_H for found, _ in parts]),
            penalty_H=np.concatenate([found.penalty_H for found, _ in parts]),
            noise_H=np.concatenate([found.noise_H for found, _ in parts]),
            factor_H=np.concatenate([factor_H for _, factor_H in parts]),
            axes_FF=design.axes_FF,
            values_F=design.values_F,
            num_rows=np.array([float(len(x_NF))]),
        )
    ]


def _learn_group(
    x_NF: Floats, y_NC: Floats, unit_C: Floats, column: Ints, penalties: Sequence[float], is_pooled_H: Bools
) -> HeadGroup:
    rows = np.isfinite(y_NC[:, column[0]])
    truth_NH = y_NC[np.ix_(rows, column)]
    scale = Scale(unit_C[column])
    found = pool(x_NF[rows], scale.forward(truth_NH), penalties, is_pooled_H)
    factor_H = _factors(scale, truth_NH.mean(axis=0), scale.back(found.left_out_NH).mean(axis=0))
    return HeadGroup(
        column=column,
        centre_F=found.centre_F,
        weight_FH=found.weight_FH,
        intercept_H=found.intercept_H,
        penalty_H=found.penalty_H,
        noise_H=found.noise_H,
        factor_H=factor_H,
        axes_FF=found.axes_FF,
        values_F=found.values_F,
        num_rows=np.array([float(found.num_rows)]),
    )


def _factors(scale: Scale, truth_H: Floats, guessed_H: Floats) -> Floats:
    """Return the factor of every head that makes its mean leave-one-out prediction equal the mean truth.

    The mean of a log is below the log of a mean: with it expected spending is unbiased.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((scale.unit > 0) & (guessed_H > 0), truth_H / guessed_H, 1.0)


def pool(x_NF: Floats, y_NH: Floats, penalties: Sequence[float], is_pooled_H: Bools) -> Solution:
    """Solve with the pooled heads split into their mean (how hard is the query?) and what differs from it.

    Each part takes a penalty of its own, and a head is the sum of both. What differs is harder to see
    than what is common, so it is shrunk more; with one penalty for both, noise would choose. The
    penalty that is kept for the standard error is the smaller one, which gives the larger error.
    """
    if is_pooled_H.sum() < 2:
        return solve(x_NF, y_NH, penalties)
    common_N1 = y_NH[:, is_pooled_H].mean(axis=1, keepdims=True)
    apart_NH = np.where(is_pooled_H, y_NH - common_N1, y_NH)
    found = solve(x_NF, np.concatenate([apart_NH, common_N1], axis=1), penalties)
    left_out_NH = _summed(found.left_out_NH, is_pooled_H)
    return replace(
        found,
        weight_FH=_summed(found.weight_FH, is_pooled_H),
        intercept_H=_summed(found.intercept_H[None], is_pooled_H)[0],
        penalty_H=np.where(
            is_pooled_H, np.minimum(found.penalty_H[:-1], found.penalty_H[-1]), found.penalty_H[:-1]
        ),
        left_out_NH=left_out_NH,
        noise_H=noise_of(((y_NH - left_out_NH) ** 2).mean(axis=0), len(y_NH)),
    )


def _summed(part_AH: Floats, is_pooled_H: Bools) -> Floats:
    """Return the parts of the heads plus, for the pooled ones, the common part in the last column."""
    return part_AH[:, :-1] + part_AH[:, -1:] * is_pooled_H


@dataclass(frozen=True, slots=True)
class Heads:
    """All heads of a router, in the units of its C targets."""

    groups: list[HeadGroup]
    unit_C: Floats
    """See `Scale`."""
    _scales: list[Scale] = field(init=False, repr=False)
    _places: list[slice | Ints] = field(init=False, repr=False)
    """The columns of each group, as a slice where they are neighbours: it is written ten times as fast."""
    _is_whole: bool = field(init=False, repr=False)
    """Whether one group has every column, in order: the usual case where every candidate was observed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scales", [Scale(self.unit_C[group.column]) for group in self.groups])
        places = [_as_slice(group.column) for group in self.groups]
        object.__setattr__(self, "_places", places)
        is_whole = (
            isinstance(places[0], slice) and places[0] == slice(0, self.unit_C.size) if places else False
        )
        object.__setattr__(self, "_is_whole", is_whole)

    def predict(self, x_QF: np.ndarray) -> tuple[Floats, Floats]:
        """Return predictions and standard errors, shape (Q, C); NaN and infinity where there is no head."""
        if self._is_whole:
            value_QC, error_QC = self.groups[0].predict(x_QF)
            return self._scales[0].back(value_QC) * self.groups[0].factor_H, error_QC
        shape = (x_QF.shape[0], self.unit_C.size)
        value_QC, error_QC = np.empty(shape), np.empty(shape)
        value_QC.fill(np.nan)
        error_QC.fill(np.inf)
        for group, scale, place in zip(self.groups, self._scales, self._places, strict=True):
            value_QH, error_QC[:, place] = group.predict(x_QF)
            value_QC[:, place] = scale.back(value_QH) * group.factor_H
        return value_QC, error_QC

    def with_added(self, other: Heads) -> Heads:
        """Return these columns, then the other's."""
        moved = [replace(group, column=group.column + self.unit_C.size) for group in other.groups]
        return Heads(self.groups + moved, np.concatenate([self.unit_C, other.unit_C]))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `heads_from` reads it back."""
        groups = numbered(group.arrays() for group in self.groups)
        return {"unit": self.unit_C, **groups}


def heads_from(arrays: Mapping[str, np.ndarray]) -> Heads:
    """Rebuild from `Heads.arrays`."""
    num = len({name.partition("/")[0] for name in arrays if "/" in name})
    groups = [group_from(below(f"{i}/", arrays)) for i in range(num)]
    return Heads(groups, arrays["unit"])


def _as_slice(column: Ints) -> slice | Ints:
    low, high = int(column[0]), int(column[-1]) + 1
    return slice(low, high) if np.array_equal(column, np.arange(low, high)) else column
