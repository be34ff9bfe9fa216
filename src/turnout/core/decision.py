"""This module holds what was decided: the choice, its ranked alternatives, propensity and reason."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats, Ints
from turnout.core.validation import check_shape

NONE = -1
"""The index that stands for "no candidate" in choices and rankings."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One query's decision, as it is shown and logged."""

    candidate: Candidate | None
    """Who serves; None where nobody may."""
    ranked: tuple[Candidate, ...]
    """The chosen one, then the fallbacks in order."""
    propensity: float
    """Probability with which the policy makes this choice on this input; 1 for a deterministic one."""
    reason: str
    """One phrase: why this one."""
    expected_quality: float
    """The estimate's quality of the choice, NaN where unknown."""
    expected_cost_usd: float
    """The estimate's cost of the choice, NaN where unknown."""
    price: float
    """The dual price of money that was in force."""
    fingerprint: str
    """Names the deployment that decided, so that logs can be joined to it."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """A batch of decisions over one list of candidates."""

    candidates: tuple[Candidate, ...]
    """What the indices point to."""
    choice_Q: Ints
    """Index of the chosen candidate, shape (Q,); -1 where nobody may serve."""
    ranked_QM: Ints
    """Indices from the chosen one down the list of fallbacks, shape (Q, M), padded with -1.

    Of a large pool the first places alone may be given (`scoring.FALLBACKS`): then it has as many columns.
    """
    propensity_Q: Floats
    """Probability of the choice, shape (Q,), in (0, 1]."""
    reason_Q: tuple[str, ...]
    """One phrase per query."""
    quality_Q: Floats
    """Expected quality of the choice, shape (Q,), NaN where unknown."""
    cost_usd_Q: Floats
    """Expected cost of the choice in USD, shape (Q,), NaN where unknown."""
    price: float = 0.0
    """The dual price of money that was in force."""
    fingerprint: str = ""
    """Names the deployment that decided."""

    def __post_init__(self) -> None:
        num_queries, num_candidates = self.choice_Q.size, len(self.candidates)
        check_shape("Decisions.choice_Q", self.choice_Q, "Q", (num_queries,))
        shape = self.ranked_QM.shape
        is_short = len(shape) == 2 and shape[0] == num_queries and 0 < shape[1] < num_candidates
        if not is_short:
            check_shape("Decisions.ranked_QM", self.ranked_QM, "QM", (num_queries, num_candidates))
        check_shape("Decisions.propensity_Q", self.propensity_Q, "Q", (num_queries,))
        check_shape("Decisions.quality_Q", self.quality_Q, "Q", (num_queries,))
        check_shape("Decisions.cost_usd_Q", self.cost_usd_Q, "Q", (num_queries,))
        if len(self.reason_Q) != num_queries:
            raise InputError(
                sentence("Decisions.reason_Q", allowed=f"{num_queries} phrases", got=len(self.reason_Q))
            )
        # As lists: most batches are of one query, where a call of numpy costs more than the comparison.
        for choice in self.choice_Q.tolist():
            if not NONE <= choice < num_candidates:
                allowed = f"-1 to {num_candidates - 1}"
                raise InputError(sentence("Decisions.choice_Q", allowed=allowed, got=choice))
        for propensity in self.propensity_Q.tolist():
            if not 0.0 < propensity <= 1.0:
                raise InputError(sentence("Decisions.propensity_Q", allowed="(0, 1]", got=propensity))

    def __len__(self) -> int:
        return int(self.choice_Q.size)

    def __getitem__(self, row: int) -> Decision:
        choice = int(self.choice_Q[row])
        return Decision(
            candidate=None if choice == NONE else self.candidates[choice],
            ranked=tuple([self.candidates[i] for i in self.ranked_QM[row].tolist() if i != NONE]),
            propensity=float(self.propensity_Q[row]),
            reason=self.reason_Q[row],
            expected_quality=float(self.quality_Q[row]),
            expected_cost_usd=float(self.cost_usd_Q[row]),
            price=self.price,
            fingerprint=self.fingerprint,
        )

    def signed(self, fingerprint: str, *, reason: str | None = None) -> Decisions:
        """Return the same decisions under a deployment's name, and under one reason where it is given."""
        # Nothing that was checked changes, and this stands on the path of every request.
        copy = object.__new__(Decisions)
        for name in _UNSIGNED:
            _set(copy, name, getattr(self, name))
        _set(copy, "fingerprint", fingerprint)
        if reason is not None:
            _set(copy, "reason_Q", (reason,) * len(self))
        return copy

    @property
    def names_Q(self) -> tuple[str | None, ...]:
        """The chosen candidate's name per query, None where nobody may serve."""
        names = [candidate.name for candidate in self.candidates]
        return tuple(None if choice == NONE else names[choice] for choice in self.choice_Q)


_set = object.__setattr__
_UNSIGNED = tuple(field.name for field in fields(Decisions) if field.name != "fingerprint")


def decisions_for(
    candidates: tuple[Candidate, ...], choice_Q: Ints, *, reason: str = "given", price: float = 0.0
) -> Decisions:
    """Build deterministic decisions from bare choices (for baselines and foreign routers)."""
    choice_Q = np.asarray(choice_Q, dtype=np.int64)
    ranked_QM = np.full((choice_Q.size, len(candidates)), NONE, dtype=np.int64)
    if len(candidates):
        ranked_QM[:, 0] = choice_Q
    unknown_Q = np.full(choice_Q.size, np.nan)
    return Decisions(
        candidates=candidates,
        choice_Q=choice_Q,
        ranked_QM=ranked_QM,
        propensity_Q=np.ones(choice_Q.size),
        reason_Q=(reason,) * choice_Q.size,
        quality_Q=unknown_Q,
        cost_usd_Q=unknown_Q.copy(),
        price=price,
    )
