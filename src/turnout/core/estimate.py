"""This module holds what a router predicts: quality, spread, cost and latency for every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence
from turnout.core.outcomes import Bools, Floats
from turnout.core.validation import check_shape


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Predictions for Q queries and M candidates; every array has shape (Q, M), NaN means unknown."""

    candidates: tuple[Candidate, ...]
    """The candidates of the columns, in order."""
    quality_QM: Floats
    """Expected quality in [0, 1]."""
    spread_QM: Floats
    """Standard deviation of the estimate of the expected quality; larger means less is known."""
    cost_usd_QM: Floats
    """Expected cost in USD."""
    latency_s_QM: Floats
    """Expected latency in seconds."""
    allowed_QM: Bools
    """Whether the candidate may serve the query; policies never choose where it is false."""

    def __post_init__(self) -> None:
        shape = (self.num_queries, len(self.candidates))
        check_shape("Estimate.quality_QM", self.quality_QM, "QM", shape)
        check_shape("Estimate.spread_QM", self.spread_QM, "QM", shape)
        check_shape("Estimate.cost_usd_QM", self.cost_usd_QM, "QM", shape)
        check_shape("Estimate.latency_s_QM", self.latency_s_QM, "QM", shape)
        check_shape("Estimate.allowed_QM", self.allowed_QM, "QM", shape)
        if self.allowed_QM.dtype != np.bool_:
            raise InputError(
                sentence("Estimate.allowed_QM", allowed="booleans", got=str(self.allowed_QM.dtype))
            )

    @property
    def num_queries(self) -> int:
        """Number of queries, Q."""
        return int(self.quality_QM.shape[0])

    @property
    def names(self) -> tuple[str, ...]:
        """Candidate names, in order."""
        return _names_of(self.candidates)

    def restrict(self, allowed_QM: Bools) -> Estimate:
        """Return the estimate with a mask added to the one it has; broadcasts from (M,) or (Q, 1)."""
        combined_QM = self.allowed_QM & np.broadcast_to(allowed_QM, self.allowed_QM.shape)
        return self._with(allowed_QM=combined_QM)

    def rows(self, index: object) -> Estimate:
        """Return the estimate of some queries: `index` is a slice, integers or booleans of shape (Q,)."""
        return Estimate(
            candidates=self.candidates,
            **{name: getattr(self, name)[index] for name in _ARRAYS},
        )

    def reorder(self, candidates: Sequence[str]) -> Estimate:
        """Return the same estimate with its columns in the order of these names."""
        position = {name: index for index, name in enumerate(self.names)}
        for name in candidates:
            if name not in position:
                raise UnknownNameError(
                    sentence("Estimate.reorder: candidates", got=name, do=did_you_mean(name, position))
                )
        columns = [position[name] for name in candidates]
        return Estimate(
            candidates=tuple(self.candidates[column] for column in columns),
            **{name: getattr(self, name)[:, columns] for name in _ARRAYS},
        )

    def _with(self, **changes: np.ndarray) -> Estimate:
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return Estimate(candidates=self.candidates, **{**arrays, **changes})


_MAX_POOLS = 256
_pools: dict[int, tuple[tuple[Candidate, ...], tuple[str, ...]]] = {}


def _names_of(candidates: tuple[Candidate, ...]) -> tuple[str, ...]:
    """Return the names, made once for a pool: every estimate of one router holds the same tuple.

    Known by identity, since to hash a pool costs as much as to name it; the tuple is kept beside its
    names, so that its identity stays its own.
    """
    known = _pools.get(id(candidates))
    if known is None:
        if len(_pools) >= _MAX_POOLS:
            _pools.clear()
        known = candidates, tuple(candidate.name for candidate in candidates)
        _pools[id(candidates)] = known
    return known[1]


_ARRAYS = ("quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM", "allowed_QM")


def make_estimate(
    candidates: Sequence[Candidate],
    quality_QM: Floats,
    *,
    spread_QM: Floats | None = None,
    cost_usd_QM: Floats | None = None,
    latency_s_QM: Floats | None = None,
    allowed_QM: Bools | None = None,
) -> Estimate:
    """Build an `Estimate`: quality is clipped to [0, 1]; what is omitted is unknown, or allowed."""
    quality_QM = np.asarray(quality_QM, dtype=np.float64)
    return Estimate(
        candidates=tuple(candidates),
        quality_QM=np.minimum(np.maximum(quality_QM, 0.0), 1.0),
        spread_QM=_or_unknown(spread_QM, quality_QM.shape),
        cost_usd_QM=_or_unknown(cost_usd_QM, quality_QM.shape),
        latency_s_QM=_or_unknown(latency_s_QM, quality_QM.shape),
        allowed_QM=_filled(quality_QM.shape, True) if allowed_QM is None else allowed_QM,
    )


def _or_unknown(values_QM: Floats | None, shape: tuple[int, ...]) -> Floats:
    if values_QM is not None:
        return np.asarray(values_QM, dtype=np.float64)
    return _filled(shape, np.nan)


def _filled(shape: tuple[int, ...], value: bool | float) -> np.ndarray:
    """Do what `np.full` does in a third of its time, which is felt in batches of one."""
    values_QM = np.empty(shape, type(value))
    values_QM.fill(value)
    return values_QM
