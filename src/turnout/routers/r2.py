"""This module routes to (model, token budget): quality and cost as curves over the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_kind, check_number
from turnout.routers.budget_curve import BudgetCurve, budget_curve_from, learn_budget_curve, learn_steps
from turnout.routers.budget_families import Families, families_of, freest, key_of
from turnout.routers.ground import Ground, Lesson, ground_from, learn_ground, read_probe
from turnout.routers.length_curve import LengthCurve, learn_length_curve, length_curve_from
from turnout.routers.token_spend import TokenSpend, fit_token_spend, token_spend_from, tokens_of


@final
class R2Router(Router):
    """Give every (model, token budget) a quality by ridge heads, and a cost by the tokens it lets through.

    Candidates of one model, effort and adapter that differ in `max_output_tokens` are one family and share
    what is learned about a query. Expected output is `E min(T, b)` over the predicted length T of an answer.

    Source
    ------
    R2-Router, arXiv 2602.02823, read in notes on its code: one linear head per model and budget for
    quality, one per model for tokens without a budget, and the choice over (model, budget).

    Differs
    -------
    Heads of a family are a common level plus steps, each with its own penalty, so a budget needs few rows,
    and a newcomer's budget leans on its model. Cost is the mean of the tokens under the budget, not the
    budget. Any embedder. A family of one candidate is a plain head of its own.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    penalties:
        Each head takes the one of least leave-one-out squared error on the training table.

    Units
    -----
    Spread adds the squared errors of level and step. Where tokens or a price card are unknown, cost is the
    ratio to a line in the length of the prompt, as for other routers.

    Cost
    ----
    O(F^2 + F M) per query; fit O(N F^2 + F^3) per set of candidates observed on the same rows.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        penalties: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0),
    ) -> None:
        if embedder is not None:
            check_kind("R2Router.embedder", embedder, Embedder)
        self.embedder = embedder
        if not penalties:
            raise InputError(sentence("R2Router.penalties", allowed="at least one number", got=penalties))
        self.penalties = tuple(
            check_number("R2Router.penalties", penalty, low=0.0, allow_low=False) for penalty in penalties
        )
        self.ground_: Ground | None = None
        self.families_ = families_of(())
        self.curve_: BudgetCurve | None = None
        self.length_: LengthCurve | None = None
        self.spend_: TokenSpend | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether curves were learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the curves of every family; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        families = families_of(lesson.candidates)
        tokens = tokens_of(table, lesson.queries, lesson.names)
        self.curve_ = learn_budget_curve(lesson.x_NF, lesson.targets.quality_QM, families, self.penalties)
        self.length_ = self._learn_lengths(lesson, freest(families, tokens[1]))
        self.spend_ = _learn_spend(lesson, tokens, families, self.length_)
        self.families_, self.ground_ = families, ground
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return every candidate at its place on the curves."""
        ground, curve, length, spend = self._learned("estimate")
        x_QF = ground.embed(queries)
        quality_QM, spread_QM = curve.predict(x_QF, self.families_)
        expected_QM = length.expected_tokens(x_QF, self.families_.of_M, self.families_.budget_M)
        lines_QM = ground.charges.lines(queries)[:, _columns(ground)]
        ratio_QM = spend.usd(queries, expected_QM) / lines_QM
        return ground.estimate(queries, quality_QM, spread_QM, ratio_QM, x_QF=x_QF)

    def curve(
        self, queries: Sequence[Query], candidate: Candidate, budgets: Sequence[float]
    ) -> tuple[Floats, Floats]:
        """Return quality and expected output tokens of a family at any budgets, each of shape (Q, B).

        Between two learned budgets quality is on the line in expected tokens, outside it is flat. Raises
        `InputError` for a candidate of no known family, or of one whose tokens were never recorded.
        """
        ground, curve, length, _ = self._learned("curve")
        family = self._family(candidate, length)
        members = self.families_.members(family)
        asked_B = np.array([check_number("R2Router.curve: budgets", b, low=1.0, high=1e12) for b in budgets])
        x_QF = ground.embed(queries)
        quality_QJ = np.clip(curve.predict(x_QF, self.families_)[0][:, members], 0.0, 1.0)
        budget_C = np.concatenate([self.families_.budget_M[members], asked_B])
        tokens_QC = length.expected_tokens(x_QF, np.full(budget_C.size, family), budget_C)
        learned_QJ, expected_QB = tokens_QC[:, : members.size], tokens_QC[:, members.size :]
        rows = zip(expected_QB, learned_QJ, quality_QJ, strict=True)
        quality_QB = np.array([np.interp(asked, learned, quality) for asked, learned, quality in rows])
        return quality_QB.reshape(expected_QB.shape), expected_QB

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Learn one more budget of a known model, or one more model, from its probe rows; returns self."""
        ground, curve, length, spend = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        tokens = tokens_of(table, lesson.queries, lesson.names)
        families = self.families_.with_added(candidate)
        own = Families(families.keys, families.of_M[-1:], families.budget_M[-1:])
        if len(families.keys) > len(self.families_.keys):
            alone = learn_budget_curve(
                lesson.x_NF, lesson.targets.quality_QM, families_of([candidate]), self.penalties
            )
            curve = curve.with_added(alone.mean_M, alone.step, alone.level)
            length = length.with_added(self._learn_lengths(lesson, tokens[1]))
        else:
            level_N = curve.levels(lesson.x_NF, int(own.of_M[0]))
            over_NM = lesson.targets.quality_QM - level_N[:, None]
            curve = curve.with_added(*learn_steps(lesson.x_NF, over_NM, self.penalties), None)
        self.spend_ = spend.with_added(_learn_spend(lesson, tokens, own, length))
        self.curve_, self.length_, self.families_ = curve, length, families
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return the curves."""
        ground, curve, length, spend = self._learned("state")
        families = {"family": self.families_.of_M, "budget": self.families_.budget_M}
        arrays = {**families, **curve.arrays(), **length.arrays(), **spend.arrays()}
        return ground.state(self.embedder, arrays, {"families": list(self.families_.keys)})

    def restore(self, state: State) -> None:
        """Take over the curves."""
        self.ground_ = ground_from(state, self.embedder)
        keys = state.values["families"]
        assert isinstance(keys, list)
        self.families_ = Families(tuple(keys), state.arrays["family"], state.arrays["budget"])
        self.curve_ = budget_curve_from(state.arrays)
        self.length_ = length_curve_from(state.arrays)
        self.spend_ = token_spend_from(state.arrays)

    def _family(self, candidate: Candidate, length: LengthCurve) -> int:
        key = key_of(candidate)
        if key not in self.families_.keys or np.isnan(length.intercept_G[self.families_.keys.index(key)]):
            raise InputError(
                sentence(
                    f"R2Router.curve: the family of {candidate.name!r}",
                    allowed="one that was fitted on a table with its output tokens",
                    do="fit on a table that records tokens",
                )
            )
        return self.families_.keys.index(key)

    def _learn_lengths(self, lesson: Lesson, tokens_NG: Floats) -> LengthCurve:
        return learn_length_curve(lesson.x_NF.astype(np.float64), tokens_NG, self.penalties)

    def _learned(self, move: str) -> tuple[Ground, BudgetCurve, LengthCurve, TokenSpend]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.curve_ is not None
        assert self.length_ is not None
        assert self.spend_ is not None
        return self.ground_, self.curve_, self.length_, self.spend_


def _learn_spend(
    lesson: Lesson, tokens: tuple[Floats, Floats], families: Families, length: LengthCurve
) -> TokenSpend:
    expected_NM = length.expected_tokens(lesson.x_NF, families.of_M, families.budget_M)
    cost_usd_NM = lesson.targets_usd.cost_usd_QM
    return fit_token_spend(lesson.candidates, lesson.queries, cost_usd_NM, tokens, expected_NM)


def _columns(ground: Ground) -> Ints:
    """Return which candidate of the pool each learned column is."""
    seen = np.flatnonzero(ground.place >= 0)
    columns: Ints = seen[np.argsort(ground.place[seen])]
    return columns
