"""This module recognises the domain of a query from its text, and averages outcomes per domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.core.query import Query
from turnout.routers.means import Means, column_mean
from turnout.routers.packing import below, under
from turnout.routers.smoothing import standard_error, toward
from turnout.routers.softmax_regression import Softmax, fit_softmax, softmax_from
from turnout.routers.targets import Targets

_BEHIND = 1e-6
"""By how much the others stand behind a mapped expert, so that nothing ties with it."""


@dataclass(frozen=True, slots=True)
class Domains:
    """D domains and the classifier that tells them apart."""

    names: tuple[str, ...]
    """In alphabetical order; one without a name where no query has a task."""
    softmax: Softmax

    def shares(self, x_QF: Floats) -> Floats:
        """Return the probability of each domain, shape (Q, D)."""
        return self.softmax.shares(x_QF)

    def place(self, x_QF: Floats) -> Ints:
        """Return the most probable domain of each query, shape (Q,)."""
        place_Q: Ints = self.softmax.log_shares(x_QF).argmax(axis=1)
        return place_Q

    def labels(self, queries: Sequence[Query], x_QF: Floats) -> Floats:
        """Return one-hot rows of shape (Q, D): the task that a query names, or where it is placed."""
        order = {name: index for index, name in enumerate(self.names)}
        known = [order.get(query.task or "", -1) for query in queries]
        index_Q = np.where(np.array(known, np.int64) < 0, self.place(x_QF), known)
        return np.eye(len(self.names))[index_Q]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the classifier by name."""
        return under("domains.", self.softmax.arrays())


def fit_domains(x_NF: Floats, queries: Sequence[Query], penalty: float) -> Domains:
    """Learn to tell the tasks of these queries apart; without a task there is one domain."""
    names = tuple(sorted({query.task for query in queries if query.task is not None})) or ("",)
    order = {name: index for index, name in enumerate(names)}
    row = np.array([i for i, query in enumerate(queries) if query.task in order], np.int64)
    label = np.array([order[queries[i].task or ""] for i in row], np.int64)
    return Domains(names, fit_softmax(x_NF[row], np.eye(len(names))[label], penalty=penalty))


def domains_from(arrays: Mapping[str, np.ndarray], names: object) -> Domains:
    """Rebuild from `Domains.arrays` and the names."""
    assert isinstance(names, list)
    mine = below("domains.", arrays)
    return Domains(tuple(names), softmax_from(mine))


@dataclass(frozen=True, slots=True)
class Profiles:
    """What M candidates give on each of D domains, each of shape (D, M)."""

    quality_DM: Floats
    error_DM: Floats
    """Standard error of the quality; infinity where the candidate was never observed."""
    ratio_DM: Floats
    """Ratio of a cost to its line in the length of the prompt (`Charges.ratio`)."""

    def with_added(self, other: Profiles) -> Profiles:
        """Return these candidates, then the other's."""
        return Profiles(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)], axis=1) for f in fields(self))
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the averages; `profiles_from` reads them back."""
        return {f"profiles.{f.name}": getattr(self, f.name) for f in fields(Profiles)}


def profiles_from(arrays: Mapping[str, np.ndarray]) -> Profiles:
    """Rebuild from `Profiles.arrays`."""
    return Profiles(*(arrays[f"profiles.{f.name}"] for f in fields(Profiles)))


def profile(share_ND: Floats, targets: Targets, ratio_NM: Floats, means: Means, prior: float) -> Profiles:
    """Average each candidate over each domain, drawn toward its overall mean by `prior` observations.

    `share_ND` says how much of a row belongs to each domain; `ratio_NM` are costs over their lines.
    """
    is_known_NM = np.isfinite(targets.quality_QM)
    known_NM = is_known_NM.astype(np.float64)
    value_NM = np.where(is_known_NM, targets.quality_QM, 0.0)
    total_DM, twice_DM = share_ND.T @ known_NM, (share_ND**2).T @ known_NM
    value_DM = share_ND.T @ value_NM
    quality_DM = toward(total_DM, value_DM, means.quality, prior)
    around_DM = share_ND.T @ value_NM**2 - 2.0 * quality_DM * value_DM + quality_DM**2 * total_DM
    error_DM = standard_error(
        np.where(total_DM > 0, around_DM, 0.0), total_DM, twice_DM, quality_DM, means, prior
    )
    paid_NM = np.isfinite(ratio_NM)
    ratio_DM = toward(
        share_ND.T @ paid_NM, share_ND.T @ np.where(paid_NM, ratio_NM, 0.0), column_mean(ratio_NM), prior
    )
    return Profiles(quality_DM, error_DM, ratio_DM)


def held_below(quality_DM: Floats, row: Ints, expert: Ints) -> Floats:
    """Return the averages with nobody above the expert of a row; a row without one stays as it is.

    A map says who is best, an estimate holds numbers: the expert keeps its average, the others give way.
    """
    held_DM = quality_DM.copy()
    mapped = np.maximum(quality_DM[row, expert], _BEHIND)
    held_DM[row] = np.minimum(quality_DM[row], (mapped - _BEHIND)[:, None])
    held_DM[row, expert] = mapped
    return held_DM
