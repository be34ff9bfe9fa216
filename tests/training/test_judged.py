"""What a router must beat: the best single model as it would have been chosen without the query."""

from __future__ import annotations

import numpy as np

from tests.routers.tables import worded_queries
from turnout.core import Candidate, OutcomeTable
from turnout.core.estimate import make_estimate
from turnout.evaluation.baselines import best_single
from turnout.policies import Best
from turnout.training.judged import judge, singles_of_folds


def test_the_luckiest_of_many_equal_candidates_does_not_stand_in_the_way() -> None:
    rng = np.random.default_rng(0)
    biased, fair = [], []
    for seed in range(30):
        num, pool = 200, 30
        table = OutcomeTable(
            queries=worded_queries(num, seed=seed),
            candidates=[Candidate(model=f"m{j:02d}") for j in range(pool)],
            query_index=np.repeat(np.arange(num), pool),
            candidate_index=np.tile(np.arange(pool), num),
            quality=(rng.random(num * pool) < 0.5).astype(float),
        )
        best, fold_Q = table.names.index(best_single(table)), np.arange(num) % 5
        # A router that knows nothing: any candidate is as good as any other.
        estimate = make_estimate(table.candidates, rng.random((num, pool)))
        found = judge(table, estimate, singles_of_folds(table, table, fold_Q), best)
        options = found.options(Best(), np.array([0.0]), seed=0)
        fair.append(options.quality(0, best).mean)
        choice_Q = estimate.quality_QM.argmax(axis=1)
        biased.append((table.quality_QM[np.arange(num), choice_Q] - table.quality_QM[:, best]).mean())
    assert np.mean(biased) < -0.05
    assert abs(np.mean(fair)) < 0.02


def test_rows_are_cut_everywhere() -> None:
    rng = np.random.default_rng(1)
    table = OutcomeTable(
        queries=worded_queries(20, seed=0),
        candidates=[Candidate(model="a"), Candidate(model="b")],
        query_index=np.repeat(np.arange(20), 2),
        candidate_index=np.tile([0, 1], 20),
        quality=rng.random(40),
    )
    whole = judge(table, make_estimate(table.candidates, rng.random((20, 2))), np.zeros(20, np.int64), 1)
    part = whole.rows(np.arange(20) < 7)
    np.testing.assert_array_equal(part.rival_QM, part.quality_QM[:, [0, 0]])
    np.testing.assert_array_equal(part.quality_QM, table.quality_QM[:7])
    assert len(part.table.queries) == len(part.estimate.quality_QM) == len(part.cost_usd_QM) == 7
