"""Input that breaks careless routers: an error that is a sentence, or a sane answer; never a silent NaN."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, router_names, worded_queries
from turnout.checks.fixtures import LetterCounts
from turnout.core import Candidate, OutcomeTable
from turnout.core.contracts import Router
from turnout.core.errors import TurnoutError
from turnout.core.estimate import Estimate
from turnout.core.query import Query
from turnout.features import TextEmbedder
from turnout.routers import registry

NAMES = router_names()
ASKED = [Query(id="a", text="how many sheep"), Query(id="b", text=""), Query(id="c", text=None)]


def takes_embedder(name: str) -> bool:
    return "embedder" in inspect.signature(registry.get(name)).parameters


def make(name: str, **settings: Any) -> Router:
    if takes_embedder(name):
        settings = {"embedder": LetterCounts(), **settings}
    router: Router = registry.get(name)(**settings)
    return router


def assert_sane(estimate: Estimate) -> None:
    """Assert that every candidate has a quality in [0, 1] and a finite spread above 0."""
    assert (estimate.quality_QM >= 0.0).all()
    assert (estimate.quality_QM <= 1.0).all()
    assert (estimate.spread_QM > 0.0).all()
    assert np.isfinite(estimate.spread_QM).all()


def texts(num: int) -> list[str]:
    return [f"{'sheep goat cow hen'.split()[i % 4]} number {'xyz'[i % 3] * (i % 7)}" for i in range(num)]


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_seen_on_one_task_alone_has_a_number_everywhere(name: str) -> None:
    rng = np.random.default_rng(0)
    quality_QM = rng.random((40, 3))
    tasks = ["one" if i % 4 == 0 else "two" for i in range(40)]
    quality_QM[[task == "two" for task in tasks], 2] = np.nan
    table = dense_table(quality_QM, texts(40), tasks=tasks)
    estimate = make(name).fit(table).estimate([*table.queries, *ASKED])
    assert_sane(estimate)
    # Ten outcomes, against forty of the others: nobody is surer of the one than of those.
    assert (estimate.spread_QM[:, 2].mean() >= 0.999 * estimate.spread_QM[:, :2].mean(axis=0)).all()


@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_sure_of_a_candidate_on_tasks_from_which_it_was_kept(name: str) -> None:
    """Right on all of the one task: its own residuals are nothing, and the others tell no tasks apart."""
    queries = worded_queries(180, seed=3)
    is_maths_Q = np.array([query.task == "maths" for query in queries])
    quality_QM = (np.random.default_rng(0).random((180, 4)) < 0.6).astype(float)
    quality_QM[:, 0] = np.where(is_maths_Q, 1.0, np.nan)
    table = dense_table(quality_QM, [q.words for q in queries], tasks=[q.task for q in queries])
    settings = {"embedder": TextEmbedder(num_features=16)} if takes_embedder(name) else {}
    router: Router = registry.get(name)(**settings).fit(table)
    asked = worded_queries(60, seed=77)
    spread_Q = router.estimate(asked).spread_QM[:, 0]
    is_maths_Q = np.array([query.task == "maths" for query in asked])
    here, there = float(spread_Q[is_maths_Q].mean()), float(spread_Q[~is_maths_Q].mean())
    if name in {"best_single", "uniform"}:  # the same for every query
        assert there > 0.15
    else:
        assert there > 0.2
        assert there > 2.0 * here or here > 0.15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_qualities_are_predicted_as_they_are(name: str, value: float) -> None:
    table = dense_table(np.full((30, 3), value), texts(30), cost_usd=np.full((30, 3), 1e-3))
    estimate = make(name).fit(table).estimate([*table.queries, *ASKED])
    assert_sane(estimate)
    if name != "uniform":
        np.testing.assert_allclose(estimate.quality_QM, value, atol=0.05)
    np.testing.assert_allclose(estimate.cost_usd_QM, 1e-3, rtol=0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num", [1, 2])
def test_one_query_is_enough_to_answer(name: str, num: int) -> None:
    table = dense_table(np.array([[1.0, 0.0], [0.0, 1.0]])[:num], texts(num), cost_usd=np.ones((num, 2)))
    estimate = make(name).fit(table).estimate([*table.queries, *ASKED])
    assert_sane(estimate)
    assert (estimate.spread_QM > 0.2).all()
    assert np.isfinite(estimate.cost_usd_QM).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "the same words",
        "",
        "\u8a9e\u8a00\u6a21\u578b \u043a\u0430\u043a\u043e\u0439 \u044f\u0437\u044b\u043a",
    ],
)
def test_constant_text_is_the_mean(name: str, text: str) -> None:
    quality_QM = np.random.default_rng(0).random((60, 3))
    estimate = make(name).fit(dense_table(quality_QM, [text] * 60)).estimate([Query(id="a", text=text)])
    assert_sane(estimate)
    if name != "uniform":
        np.testing.assert_allclose(estimate.quality_QM[0], quality_QM.mean(axis=0), atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_text_in_other_scripts_is_read(name: str) -> None:
    words = (
        "\u4eca\u5929\u5929\u6c14",
        "\u043a\u0430\u043a\u0430\u044f \u043f\u043e\u0433\u043e\u0434\u0430",
        "\u0915\u0948\u0938\u0947 \u0939\u094b",
        "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
    )
    quality_QM = np.random.default_rng(0).random((40, 3))
    table = dense_table(quality_QM, [f"{words[i % 4]} {i}" for i in range(40)])
    assert_sane(make(name).fit(table).estimate(table.queries))


@pytest.mark.parametrize("name", NAMES)
def test_free_candidates_stay_free(name: str) -> None:
    rng = np.random.default_rng(0)
    cost_usd = np.stack([np.zeros(30), rng.uniform(1e-4, 1e-3, 30)], axis=1)
    table = dense_table(rng.random((30, 2)), texts(30), cost_usd=cost_usd)
    estimate = make(name).fit(table).estimate([*table.queries, *ASKED])
    np.testing.assert_array_equal(estimate.cost_usd_QM[:, 0], 0.0)
    assert (estimate.cost_usd_QM[:, 1] > 0.0).all()


@pytest.mark.parametrize("name", NAMES)
def test_ten_thousand_candidates_are_learned(name: str) -> None:
    rng = np.random.default_rng(0)
    num = 10_000
    quality_QM = np.round(rng.random((12, num)), 2)
    estimate = make(name).fit(dense_table(quality_QM, texts(12))).estimate(ASKED)
    assert estimate.quality_QM.shape == (3, num)
    assert_sane(estimate)


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_never_observed_is_unknown_whatever_else_is_missing(name: str) -> None:
    """Half of the cells are holes, one candidate has none at all, one query was graded for nobody."""
    rng = np.random.default_rng(0)
    quality_QM = np.where(rng.random((40, 4)) < 0.5, np.nan, rng.random((40, 4)))
    quality_QM[:, 1], quality_QM[7] = np.nan, np.nan
    table = dense_table(quality_QM, texts(40), tasks=["one", None] * 20)
    estimate = make(name).fit(table).estimate([*table.queries, *ASKED])
    assert np.isnan(estimate.quality_QM[:, 1]).all()
    assert np.isposinf(estimate.spread_QM[:, 1]).all()
    assert_sane(estimate.reorder(["m0", "m2", "m3"]))


@pytest.mark.parametrize("name", NAMES)
def test_hundreds_of_candidates_with_holes_of_their_own_are_learned(name: str) -> None:
    rng = np.random.default_rng(0)
    quality_QM = np.where(rng.random((12, 300)) < 0.5, np.nan, np.round(rng.random((12, 300)), 2))
    quality_QM[0] = 0.5  # so that everybody was observed
    cost_usd = np.where(np.isnan(quality_QM), np.nan, rng.uniform(1e-4, 1e-3, (12, 300)))
    estimate = make(name).fit(dense_table(quality_QM, texts(12), cost_usd=cost_usd)).estimate(ASKED)
    assert_sane(estimate)
    assert (estimate.cost_usd_QM > 0.0).all()


@pytest.mark.parametrize("name", NAMES)
def test_probes_of_unknown_queries_are_welcome_and_probes_without_rows_are_not(name: str) -> None:
    table = real_table(60)
    router = make(name).fit(table)
    probe = dense_table(np.linspace(0.0, 1.0, 9)[:, None], [f"never asked {i}" for i in range(9)])
    router.add_candidate(probe.candidates[0], probe)
    estimate = router.estimate(ASKED)
    assert_sane(estimate)
    # Nine outcomes of a deviation of a third: at the least the error of their mean.
    assert (estimate.spread_QM[:, -1] > 0.1).all()
    with pytest.raises(TurnoutError, match="nobody"):
        router.add_candidate(Candidate(model="nobody"), probe)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_costs_alone_leaves_quality_unknown_and_says_so(name: str) -> None:
    table = OutcomeTable(
        queries=[Query(id="q0", text="one"), Query(id="q1", text="two")],
        candidates=[Candidate(model="m0")],
        query_index=np.array([0, 1]),
        candidate_index=np.array([0, 0]),
        quality=np.array([np.nan, np.nan]),
        cost_usd=np.array([1.0, 2.0]),
    )
    try:
        estimate = make(name).fit(table).estimate(ASKED)
    except TurnoutError:
        return
    assert np.isnan(estimate.quality_QM).all()
    assert np.isposinf(estimate.spread_QM).all()
