"""This module turns expected tokens into USD, by the price card, right on average for what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.routers.length_trend import LengthTrend, fit_trend
from turnout.routers.means import column_mean


@dataclass(frozen=True, slots=True)
class TokenSpend:
    """What M candidates charge for tokens; NaN where there is no price card, or no recorded token."""

    input_tokens: LengthTrend
    """Recorded input tokens by the length of the prompt."""
    input_usd_M: Floats
    """USD per input token."""
    output_usd_M: Floats
    share_M: Floats
    """Mean recorded output tokens over the mean of those expected."""
    factor_M: Floats
    """Mean recorded cost over the mean of what tokens and price card say."""

    def usd(self, queries: Sequence[Query], expected_QM: Floats) -> Floats:
        """Return the cost, shape (Q, M), from expected output tokens before their share."""
        base_QM = self.input_tokens.predict(queries) * self.input_usd_M
        return self.factor_M * (base_QM + self.share_M * expected_QM * self.output_usd_M)

    def with_added(self, other: TokenSpend) -> TokenSpend:
        """Return these candidates, then the other's."""
        pairs = (
            np.concatenate([getattr(self, n), getattr(other, n)])
            for n in ("input_usd_M", "output_usd_M", "share_M", "factor_M")
        )
        return TokenSpend(self.input_tokens.with_added(other.input_tokens), *pairs)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `token_spend_from` reads it back."""
        own = np.stack([self.input_usd_M, self.output_usd_M, self.share_M, self.factor_M])
        return {"spend.input": self.input_tokens.arrays()["cost_line"], "spend.rates": own}


def token_spend_from(arrays: Mapping[str, np.ndarray]) -> TokenSpend:
    """Rebuild from `TokenSpend.arrays`."""
    return TokenSpend(LengthTrend(*arrays["spend.input"]), *arrays["spend.rates"])


def tokens_of(table: OutcomeTable, queries: Sequence[Query], names: Sequence[str]) -> tuple[Floats, Floats]:
    """Return mean input and output tokens of some rows and candidates of a table, NaN where unknown."""
    row_of = {query.id: row for row, query in enumerate(table.queries)}
    row_N = [row_of[query.id] for query in queries]
    column_of = {name: column for column, name in enumerate(table.names)}
    column_M = [column_of[name] for name in names]
    cells = np.ix_(row_N, column_M)
    # Averaging over samples is what a column of costs gets.
    input_QM = table.with_costs(table.input_tokens).cost_usd_QM
    return input_QM[cells], table.output_tokens_QM[cells]


def fit_token_spend(
    candidates: Sequence[Candidate],
    queries: Sequence[Query],
    cost_usd_NM: Floats,
    tokens_NM: tuple[Floats, Floats],
    expected_NM: Floats,
) -> TokenSpend:
    """Fit share and factor to recorded (input, output) tokens and costs; `expected_NM` as in `usd`."""
    cards = [candidate.price_card for candidate in candidates]
    input_usd_M = np.array([np.nan if card is None else card.input_usd_per_mtok for card in cards]) / 1e6
    output_usd_M = np.array([np.nan if card is None else card.output_usd_per_mtok for card in cards]) / 1e6
    input_NM, output_NM = tokens_NM
    expected_M = column_mean(np.where(np.isfinite(output_NM), expected_NM, np.nan))
    share_M = _over(column_mean(output_NM), expected_M)
    plain = TokenSpend(
        fit_trend(queries, input_NM), input_usd_M, output_usd_M, share_M, np.ones(len(candidates))
    )
    said_NM = np.where(np.isfinite(cost_usd_NM), plain.usd(queries, expected_NM), np.nan)
    factor_M = _over(column_mean(cost_usd_NM), column_mean(said_NM))
    return TokenSpend(plain.input_tokens, input_usd_M, output_usd_M, share_M, factor_M)


def _over(above_M: Floats, below_M: Floats) -> Floats:
    """Return the ratio; 1 where both are 0, NaN where only the lower is (the card does not explain it)."""
    is_usable_M = below_M > 0
    ratio_M = above_M / np.where(is_usable_M, below_M, 1.0)
    return np.where(is_usable_M, ratio_M, np.where((above_M == 0) & (below_M == 0), 1.0, np.nan))
