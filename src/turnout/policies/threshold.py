"""This module decides between a weak and a strong candidate by a threshold on the estimated gain (S91)."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.errors import UnknownNameError, did_you_mean, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats
from turnout.core.validation import check_name, check_number
from turnout.policies.choose import decide_by_score


@final
class Threshold(Policy):
    """Call the strong candidate where it is expected to be better by at least `threshold`.

    Source: RouteLLM (S91, arXiv 2406.18665, equation 2), which thresholds the probability that the
    strong model wins. Here the score is the gain `quality[strong] - quality[weak]`, in [-1, 1]: the win
    probability orders queries in the same way when outcomes are 0/1 and the weak never wins alone.
    Where one of the two may not serve, the other does; other candidates are the last fallbacks.

    Parameters
    ----------
    weak, strong:
        Candidate names.
    threshold:
        Smallest expected gain, in quality, that justifies the strong candidate.
    """

    def __init__(self, *, weak: str, strong: str, threshold: float = 0.0) -> None:
        check_name("Threshold.weak", weak)
        check_name("Threshold.strong", strong)
        self.weak = weak
        self.strong = strong
        self.threshold = check_number("Threshold.threshold", threshold, low=-1.0, high=1.0)

    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        """Return one decision per query; `rng` and the price are not used, hard caps are."""
        weak, strong = self._column(estimate, self.weak), self._column(estimate, self.strong)
        gain_Q = estimate.quality_QM[:, strong] - estimate.quality_QM[:, weak]
        score_QM: Floats = np.full(estimate.quality_QM.shape, np.nan)
        is_strong_Q = gain_Q >= self.threshold
        score_QM[:, strong] = is_strong_Q
        score_QM[:, weak] = ~is_strong_Q
        reason = f"expected gain of {self.strong} against {self.weak}, threshold {self.threshold:g}"
        return decide_by_score(estimate, score_QM, budget, reason=reason)

    def _column(self, estimate: Estimate, name: str) -> int:
        if name not in estimate.names:
            raise UnknownNameError(
                sentence(
                    "Threshold: the estimate has no such candidate",
                    got=name,
                    do=did_you_mean(name, estimate.names),
                )
            )
        return estimate.names.index(name)


def threshold_for_share(gain_Q: Floats, share: float) -> float:
    """Return the threshold at which about `share` of these queries go to the strong candidate.

    This is RouteLLM's calibration; `gain_Q` must come from a calibration split, never from the one that
    is reported. `share` 0 gives a threshold above every gain, 1 one at the smallest.
    """
    check_number("threshold_for_share: share", share, low=0.0, high=1.0)
    ordered = np.sort(gain_Q[~np.isnan(gain_Q)])[::-1]
    count = round(share * ordered.size)
    if count == 0:
        return float(np.nextafter(ordered[0], np.inf)) if ordered.size else 1.0
    return float(ordered[count - 1])
