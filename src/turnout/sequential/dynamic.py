"""This module finds the optimum of a synthetic task by dynamic programming over beliefs, exactly.

What has been seen is a bag of (candidate, signal) pairs, whatever their order, and the pairs that came first
and last, because a stop answers with one of these two (a vote without texts is the last). Together they
decide the belief about the difficulty, what was spent, and the chance that either answer is right, so they
are a state in Bellman's sense:

    V(b) = max( P(last right | b), P(first right | b),
                max_m  -price * usd_m + sum_s P(s | b, m) V(b + (m, s)) )

over the candidates that the rest of the budget can pay for (R. Bellman, "Dynamic Programming", 1957; on
beliefs, R. D. Smallwood and E. J. Sondik, Operations Research 21(5), 1973). Asking several at once tells
nothing sooner than asking them one by one, so no set of calls is worth more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.validation import check_count, check_number
from turnout.sequential.synthetic import SyntheticTask
from turnout.sequential.trace import fits

STOP = -1
"""The action that ends a task with the last answer."""
STOP_FIRST = -2
"""The action that ends a task with the first answer."""
MAX_STATES = 2_000_000


@dataclass(frozen=True, slots=True)
class Belief:
    """A state: the hint, how often every (candidate, signal) was seen, and which was first and last."""

    hint: int
    seen: tuple[int, ...]
    """Counts, candidate by candidate, signal by signal: entry m * S + s."""
    first: int
    """Index into `seen`; -1 before the first call."""
    last: int
    """Index into `seen`; -1 before the first call."""

    def after(self, pair: int) -> Belief:
        """Return the state once this pair was seen."""
        seen = list(self.seen)
        seen[pair] += 1
        return Belief(self.hint, tuple(seen), pair if self.first < 0 else self.first, pair)


@final
class Optimum:
    """The best action and value in every state of a task, for one price and one budget.

    Parameters
    ----------
    task:
        The task.
    price:
        Quality that one USD must buy.
    budget_usd:
        Most USD of one task; None means no bound.
    calls:
        Most calls of one task, where that is fewer than its rounds; None means as many as rounds.
    steps:
        Most choices of one task, calls one by one; after them the loop gives the last answer. None means
        that they do not bind.

    Raises
    ------
    InputError
        For tasks with more states than fit: fewer candidates, signals or rounds help.
    """

    def __init__(
        self,
        task: SyntheticTask,
        *,
        price: float = 0.0,
        budget_usd: float | None = None,
        calls: int | None = None,
        steps: int | None = None,
    ) -> None:
        check_number("Optimum: price", price, low=0.0)
        self.task = task
        self.price = price
        self.budget_usd = np.inf if budget_usd is None else check_number("Optimum: budget_usd", budget_usd)
        self.steps = np.inf if steps is None else check_count("Optimum: steps", steps)
        calls = task.rounds if calls is None else check_count("Optimum: calls", calls)
        self.rounds = min(task.rounds, calls, self.steps)
        right_SZM = task.signal_CS[1][:, None, None] * task.success_ZM
        wrong_SZM = task.signal_CS[0][:, None, None] * (1.0 - task.success_ZM)
        num_signals, num_z, num_m = right_SZM.shape
        self._num_signals = num_signals
        # Entry m * S + s: P(s | z, m) and P(right | s, z, m) P(s | z, m).
        self._likelihood_PZ = (right_SZM + wrong_SZM).transpose(2, 0, 1).reshape(num_m * num_signals, num_z)
        self._right_PZ = right_SZM.transpose(2, 0, 1).reshape(num_m * num_signals, num_z)
        self._known: dict[Belief, tuple[float, int]] = {}

    @property
    def value(self) -> float:
        """The expected quality minus price times USD of the best sequencer."""
        chance_H = self.task.prior_Z @ self.task.hint_ZH
        return float(sum(chance * self.best(self.start(h))[0] for h, chance in enumerate(chance_H) if chance))

    def start(self, hint: int) -> Belief:
        """Return the state before the first call."""
        return Belief(hint, (0,) * len(self._likelihood_PZ), -1, -1)

    def best(self, belief: Belief) -> tuple[float, int]:
        """Return (value, action) of a state: a candidate's index, `STOP` or `STOP_FIRST`."""
        known = self._known.get(belief)
        if known is None:
            if len(self._known) >= MAX_STATES:
                raise InputError(
                    sentence("Optimum: states", allowed=f"at most {MAX_STATES}", do="shrink the task")
                )
            known = self._known[belief] = self._solve(belief)
        return known

    def posterior_Z(self, belief: Belief) -> Floats:
        """Return P(z | what was seen), shape (Z,)."""
        weight_Z = self.task.prior_Z * self.task.hint_ZH[:, belief.hint]
        for pair, count in enumerate(belief.seen):
            if count:
                weight_Z = weight_Z * self._likelihood_PZ[pair] ** count
        posterior_Z: Floats = weight_Z / weight_Z.sum()
        return posterior_Z

    def chance_right(self, belief: Belief, action: int = STOP) -> float:
        """Return the probability that the answer of a stop is right; 0 before the first call."""
        pair = belief.first if action == STOP_FIRST else belief.last
        if pair < 0:
            return 0.0
        share_Z = self._right_PZ[pair] / np.maximum(self._likelihood_PZ[pair], 1e-300)
        return float(self.posterior_Z(belief) @ share_Z)

    def spent_usd(self, belief: Belief) -> float:
        """Return what the calls of a state cost."""
        counts = enumerate(belief.seen)
        return float(sum(c * self.task.usd[pair // self._num_signals] for pair, c in counts if c))

    def _solve(self, belief: Belief) -> tuple[float, int]:
        calls = sum(belief.seen)
        best = (self.chance_right(belief), STOP)
        # After the last step nobody is asked how to stop.
        if calls < self.steps and belief.first != belief.last:
            best = max(best, (self.chance_right(belief, STOP_FIRST), STOP_FIRST))
        if calls >= self.rounds:
            return best
        spent_usd = self.spent_usd(belief)
        chance_P = self._likelihood_PZ @ self.posterior_Z(belief)
        for m, usd in enumerate(self.task.usd):
            if not fits(spent_usd, usd, self.budget_usd):
                continue
            pairs = range(m * self._num_signals, (m + 1) * self._num_signals)
            ahead = sum(chance_P[p] * self.best(belief.after(p))[0] for p in pairs if chance_P[p] > 0)
            value = float(ahead) - self.price * usd
            # A call that buys nothing is not made.
            if value > best[0] + 1e-12:
                best = (value, m)
        return best


def optimal_value(
    task: SyntheticTask, *, price: float = 0.0, budget_usd: float | None = None, calls: int | None = None
) -> float:
    """Return the expected quality minus price times USD that no sequencer can exceed, whatever it does."""
    return Optimum(task, price=price, budget_usd=budget_usd, calls=calls).value
