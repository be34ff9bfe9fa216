"""This module sorts candidates into families: one model under several budgets of output tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.outcomes import Floats, Ints


@dataclass(frozen=True, slots=True)
class Families:
    """G families of M candidates."""

    keys: tuple[str, ...]
    """Model and adapter of each family."""
    of_M: Ints
    """The family of each candidate."""
    budget_M: Floats
    """Tokens that the answer may take; infinity without a cap."""

    def members(self, family: int) -> Ints:
        """Return the candidates of a family, from the smallest budget on."""
        inside = np.flatnonzero(self.of_M == family)
        ordered: Ints = inside[np.argsort(self.budget_M[inside], kind="stable")]
        return ordered

    def with_added(self, candidate: Candidate) -> Families:
        """Return these and one more candidate, in its family or a new one."""
        key = key_of(candidate)
        keys = self.keys if key in self.keys else (*self.keys, key)
        return Families(
            keys, np.append(self.of_M, keys.index(key)), np.append(self.budget_M, budget_of(candidate))
        )


def families_of(candidates: Sequence[Candidate]) -> Families:
    """Sort candidates into families, in the order of their first member."""
    keys = tuple(dict.fromkeys(key_of(candidate) for candidate in candidates))
    place = {key: index for index, key in enumerate(keys)}
    of_M = np.array([place[key_of(candidate)] for candidate in candidates], np.int64)
    return Families(keys, of_M, np.array([budget_of(candidate) for candidate in candidates]))


def key_of(candidate: Candidate) -> str:
    """Return what the members of a family share: model, effort and adapter."""
    return "\n".join((candidate.model, candidate.effort or "", candidate.adapter or ""))


def budget_of(candidate: Candidate) -> float:
    """Return the budget in tokens, infinity without a cap."""
    return np.inf if candidate.max_output_tokens is None else float(candidate.max_output_tokens)


def freest(families: Families, value_NM: Floats) -> Floats:
    """Return each family's values under the largest budget that has any, shape (N, G), NaN where unknown."""
    value_NG = np.full((len(value_NM), len(families.keys)), np.nan)
    # From the smallest budget on, so that the largest one is written last.
    for member in np.argsort(families.budget_M, kind="stable").tolist():
        if np.isfinite(value_NM[:, member]).any():
            value_NG[:, families.of_M[member]] = value_NM[:, member]
    return value_NG


def family_means(families: Families, value_NM: Floats) -> Floats:
    """Return the mean over the known members of each family, shape (N, G), NaN where there is none."""
    num_families = len(families.keys)
    is_known_NM = np.isfinite(value_NM)
    total_GN, num_GN = np.zeros((num_families, len(value_NM))), np.zeros((num_families, len(value_NM)))
    np.add.at(total_GN, families.of_M, np.where(is_known_NM, value_NM, 0.0).T)
    np.add.at(num_GN, families.of_M, is_known_NM.T)
    mean_NG: Floats = np.where(num_GN > 0, total_GN / np.maximum(num_GN, 1), np.nan).T
    return mean_NG
