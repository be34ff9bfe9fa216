"""This module holds candidates that joined a deployment after it was calibrated, and what shows of them.

Calibration and guard know nothing of a newcomer, so it takes no query over by its estimates alone: it may be
chosen for a goal where its own probe rows show that it serves that goal better than the single model does, by
the guard's bound, and, where something is promised, that it keeps the promise by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from turnout.core.budget import Goal
from turnout.core.candidate import Candidate
from turnout.core.contracts import Router
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.policies.frontier import Frontier
from turnout.policies.guard import Guard, Verdict
from turnout.policies.pairs import Pairs, measure_pairs, measure_singles


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """Newcomers against all candidates on probe rows; they are the last candidates of the pool, in order."""

    pairs: Pairs
    """Newcomers against everybody, (N, M)."""
    confidence: float

    @property
    def num(self) -> int:
        """Number of newcomers, N."""
        return int(self.pairs.moments_SKM.shape[1])

    def judge(self, goal: Goal, *, price: float, single: int, frontier: Frontier) -> tuple[Verdict, ...]:
        """Return for every newcomer whether it may be chosen for a goal that `single` serves."""
        guard = Guard(options=self.pairs, confidence=self.confidence)
        verdicts = []
        for row in range(self.num):
            found = guard.judge(goal, option=row, price=price, single=single, best=frontier.best)
            is_kept = frontier.keeps(goal, self.pairs, row)
            verdicts.append(replace(found, is_open=found.is_open and is_kept))
        return tuple(verdicts)


def joined(
    frontier: Frontier,
    guard: Guard | None,
    arrivals: Arrivals | None,
    *,
    quality_MQ: Floats,
    usd_MQ: Floats,
    confidence: float,
) -> tuple[Frontier, Guard | None, Arrivals]:
    """Return frontier, guard and arrivals with one candidate more, the last row of the probe's outcomes.

    `quality_MQ` and `usd_MQ` are those of the grown pool on the probe queries, NaN where nothing was
    recorded.
    The measured prices say nothing of the newcomer; its column there holds no query.
    """
    newest = slice(-1, None)
    pairs = measure_pairs(quality_MQ[newest], usd_MQ[newest], quality_MQ, usd_MQ)
    own = measure_singles(quality_MQ[newest], usd_MQ[newest], 0).moments_SKM
    row_SK2 = np.concatenate([pairs.moments_SKM[:, :, [frontier.best]], own[:, :, 1:]], axis=2)
    later = replace(
        frontier,
        options=frontier.options.padded(),
        singles=Pairs(moments_SKM=np.concatenate([frontier.singles.moments_SKM, row_SK2], axis=1)),
        # A mean over probe rows does not compare with one over the table, and is luck as well.
        quality_M=np.append(frontier.quality_M, np.nan),
        usd_M=np.append(frontier.usd_M, own[_USD, 0, 1]),
        num_late=frontier.num_late + 1,
    )
    if arrivals is not None:
        pairs = Pairs(
            moments_SKM=np.concatenate([arrivals.pairs.padded().moments_SKM, pairs.moments_SKM], axis=1)
        )
    kept = None if guard is None else replace(guard, options=guard.options.padded())
    return later, kept, Arrivals(pairs=pairs, confidence=confidence)


_USD = 7
"""Row of `Pairs` with the mean cost."""


def require_pair(candidate: Candidate, probe: OutcomeTable) -> None:
    """Raise `InputError` for a probe of one query: no spread, and so nothing at all, shows from it."""
    if len(probe.queries) < 2:
        raise InputError(
            sentence(
                f"Deployment.add_candidate: queries in the probe of {candidate.name!r}",
                allowed="at least 2, and 30 or more for it to be chosen",
                got=len(probe.queries),
                do="ask the newcomer and the single model more queries, and add their rows",
            )
        )


def grown(router: Router, candidate: Candidate, probe: OutcomeTable) -> Router:
    """Return a copy that has the candidate; the router itself stays as it is."""
    copy = router.clone()
    copy.restore(router.state())
    return copy.add_candidate(candidate, probe)


def outcomes_of(probe: OutcomeTable, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Return quality and cost of candidates on a probe's queries, (M, Q) each; NaN for who is not in it."""
    column = {name: index for index, name in enumerate(probe.names)}
    nothing = np.full((len(names), len(probe.queries)), np.nan)
    quality_MQ, usd_MQ = nothing.copy(), nothing.copy()
    for row, name in enumerate(names):
        if name in column:
            quality_MQ[row] = probe.quality_QM[:, column[name]]
            usd_MQ[row] = probe.cost_usd_QM[:, column[name]]
    return quality_MQ, usd_MQ
