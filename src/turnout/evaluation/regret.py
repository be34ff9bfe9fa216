"""This module says how much was left on the table: regret, and the share of the oracle's gap recovered.

Regret at a dual price is the mean of the best `quality - price * usd` minus that of the choice. At
price 0 it is the oracle's quality minus the router's. The oracle sees the recorded outcomes: on noisy
ones (a temperature, a judge) it also picks lucky draws, so nobody can reach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.core.decision import NONE
from turnout.core.scoring import score

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats, Ints


def regret(quality_QM: Floats, cost_usd_QM: Floats, choice_Q: Ints, *, price: float = 0.0) -> Floats:
    """Return the regret of each query, shape (Q,), in quality; NaN where the choice was not observed.

    A refusal (-1) scores 0, so where every candidate is worth less than its price regret is negative.
    """
    score_QM = score(quality_QM, cost_usd_QM, price)
    rows = np.arange(choice_Q.size)
    got_Q = np.where(choice_Q == NONE, 0.0, score_QM[rows, choice_Q])
    missed_Q: Floats = np.where(np.isnan(score_QM), -np.inf, score_QM).max(axis=1) - got_Q
    return missed_Q


def oracle_share(quality: Floats, *, single: Floats, oracle: Floats) -> Floats:
    """Return (quality - best single) / (oracle - best single), elementwise; NaN where there is no gap."""
    gap = np.asarray(oracle - single, dtype=np.float64)
    share: Floats = (quality - single) / np.where(gap > 1e-12, gap, np.nan)
    return share
