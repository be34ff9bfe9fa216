"""What is written of an estimate is what a plain dictionary would say, whatever the candidates are called."""

from __future__ import annotations

import json

import numpy as np
import pytest

from turnout.core import Candidate
from turnout.core.estimate import make_estimate
from turnout.gateway.select import write_scores


@pytest.mark.parametrize("names", [("small", "large"), ('say "x"', "a\\b"), ("tab\tstop", "\u6f22\u5b57")])
@pytest.mark.parametrize("is_masked", [False, True])
def test_scores_are_written_as_a_dictionary_is(names: tuple[str, ...], is_masked: bool) -> None:
    quality_QM = np.array([[0.1, 0.25], [1 / 3, np.nan]])
    usd_QM = np.array([[1e-6, np.nan], [3.0, 2e-5]])
    allowed_QM = np.array([[True, not is_masked], [True, True]])
    candidates = [Candidate(model=name) for name in names]
    estimate = make_estimate(candidates, quality_QM, cost_usd_QM=usd_QM, allowed_QM=allowed_QM)
    told = [json.loads(line) for line in write_scores(estimate)]
    for row, scores in enumerate(told):
        assert list(scores) == [name for name, may in zip(names, allowed_QM[row], strict=True) if may]
        for name, pair in scores.items():
            column = names.index(name)
            expected = [quality_QM[row, column], usd_QM[row, column]]
            assert pair == [None if np.isnan(value) else value for value in expected]
