"""A candidate's line in the length of the prompt is exact on a tariff, and never negative."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table
from turnout.core.query import Query
from turnout.routers import KNNRouter, RidgeRouter
from turnout.routers.length_trend import fit_trend, lengths_of


def prompts(lengths: list[int]) -> list[Query]:
    return [Query(id=f"q{i}", text="word", input_tokens=n) for i, n in enumerate(lengths)]


def test_a_length_is_counted_tokens_or_a_quarter_of_the_characters() -> None:
    queries = [
        Query(id="a", text="x" * 40, input_tokens=7),
        Query(id="b", text="x" * 40),
        Query(id="c", text=None),
    ]
    np.testing.assert_array_equal(lengths_of(queries), [7.0, 10.0, 0.0])


def test_a_tariff_is_recovered() -> None:
    queries = prompts([10, 20, 400, 1_000])
    length = lengths_of(queries)
    cost_QM = np.stack([2e-6 * length + 3e-4, 5e-6 * length, np.full(4, 1e-3)], axis=1)
    cost_QM[1, 0] = np.nan
    trend = fit_trend(queries, cost_QM)
    np.testing.assert_allclose(trend.slope_usd, [2e-6, 5e-6, 0.0], atol=1e-12)
    np.testing.assert_allclose(trend.predict(prompts([50]))[0], [4e-4, 2.5e-4, 1e-3])


@pytest.mark.parametrize("cost", [[4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 9.0]])
def test_a_line_is_never_below_a_share_of_the_mean(cost: list[float]) -> None:
    queries = prompts([0, 10, 20, 30])
    trend = fit_trend(queries, np.array(cost)[:, None])
    assert (trend.predict(prompts([0, 100_000])) >= 0.02 * np.mean(cost)).all()


def test_free_and_unknown_stay_free_and_unknown() -> None:
    queries = prompts([1, 2, 3])
    trend = fit_trend(queries, np.array([[0.0, np.nan]] * 3))
    np.testing.assert_array_equal(trend.predict(queries), [[1.0, np.nan]] * 3)


@pytest.mark.parametrize("router", [KNNRouter(k=10), RidgeRouter()])
def test_a_longer_prompt_of_the_same_words_costs_more(router: KNNRouter | RidgeRouter) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(["alpha beta"] * int(n)) for n in rng.integers(1, 300, 120)]
    cost_QM = np.array([[len(text) * 1e-7 + 1e-5] for text in texts])
    table = dense_table(rng.random((120, 1)), texts, cost_usd=cost_QM)
    asked = [Query(id="s", text="alpha beta"), Query(id="l", text=" ".join(["alpha beta"] * 200))]
    found = router.fit(table).estimate(asked).cost_usd_QM[:, 0]
    np.testing.assert_allclose(found, [len(query.words) * 1e-7 + 1e-5 for query in asked], rtol=0.05)
