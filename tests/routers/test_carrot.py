"""The plug-in rule: plain means of the nearest, a k per target, and risk that falls with the rows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table, holed_table, real_table
from turnout.core import Query
from turnout.core.contracts import Embedder, State
from turnout.core.errors import InputError
from turnout.core.outcomes import Floats
from turnout.features import TextEmbedder
from turnout.routers import CarrotRouter, KNNRouter, RidgeRouter
from turnout.routers.local_means import learn_local_means
from turnout.routers.means import column_mean
from turnout.routers.neighbours import halved

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


class Circle(Embedder):
    """Reads a number between 0 and 1 and puts it on half a circle."""

    is_fitted = True

    def fit(self, queries: object) -> Circle:
        return self

    def embed(self, queries: object) -> np.ndarray:
        angle_Q = np.pi * np.array([float(query.words or 0) for query in queries])  # type: ignore[attr-defined]
        return np.stack([np.cos(angle_Q), np.sin(angle_Q)], axis=1).astype(np.float32)

    def state(self) -> State:
        return State()

    def restore(self, state: State) -> None:
        return


def test_an_estimate_is_the_plain_mean_of_the_nearest_rows() -> None:
    table = real_table()
    router = CarrotRouter(embedder=EMBEDDER).fit(table)
    found_QM = router.estimate(table.queries[:20]).quality_QM
    x_NF = EMBEDDER.embed(table.queries)
    x_QF, x_NF = x_NF[:20].astype(np.float64), halved(x_NF).astype(np.float64)
    is_exact = []
    for column, name in enumerate(sorted(table.names)):
        k, place = int(router.banks_[0].k_C[column]), table.names.index(name)
        for row in range(20):
            near = np.argsort(-(x_NF @ x_QF[row]), kind="stable")[:k]
            mean = table.quality_QM.astype(np.float32)[near, place].mean()
            # Ties at the rim may be broken either way: they move a mean of k by one row's share.
            assert abs(found_QM[row, place] - mean) <= 1.0 / k + 1e-9
            is_exact.append(abs(found_QM[row, place] - mean) < 1e-6)
    assert np.mean(is_exact) > 0.95
    for other in (KNNRouter(embedder=EMBEDDER), RidgeRouter(embedder=EMBEDDER)):
        assert np.abs(other.fit(table).estimate(table.queries[:20]).quality_QM - found_QM).max() > 0.05


def test_every_column_has_the_k_of_least_left_out_error() -> None:
    table, options = holed_table(), (2, 4, 8, 16, 32)
    x_NF = EMBEDDER.embed(table.queries)
    value_NC = table.quality_QM
    bank = learn_local_means(x_NF, value_NC, options, np.random.default_rng(0))
    error_OC = np.zeros((len(options), value_NC.shape[1]))
    order_NN = np.argsort(-np.round(x_NF @ x_NF.T, 5), axis=1, kind="stable")
    for place, k in enumerate(options):
        for column in range(value_NC.shape[1]):
            errors = []
            for row in np.flatnonzero(np.isfinite(value_NC[:, column])):
                near = [other for other in order_NN[row] if other != row][:k]
                known = value_NC[near, column][np.isfinite(value_NC[near, column])]
                guess = known.mean() if known.size else column_mean(value_NC)[column]
                errors.append((guess - value_NC[row, column]) ** 2)
            error_OC[place, column] = np.mean(errors)
    chosen_C = np.array([options.index(k) for k in bank.k_C])
    np.testing.assert_allclose(error_OC[chosen_C, np.arange(9)], error_OC.min(axis=0), rtol=2e-2)


def test_quality_and_cost_take_neighbourhoods_of_their_own() -> None:
    # Quality turns four times over the range, cost is one number with noise: a small k, and a large one.
    rng = np.random.default_rng(0)
    z_N = rng.random(800)
    quality_NM = (np.sin(8 * np.pi * z_N)[:, None] * [1.0, -1.0] + 1.0) / 2.0
    cost_usd = rng.exponential(1e-3, (800, 2))
    table = dense_table(quality_NM, [f"{z:.6f}" for z in z_N], cost_usd=cost_usd)
    router = CarrotRouter(embedder=Circle()).fit(table)
    k_C = router.banks_[0].k_C
    assert k_C[:2].max() <= 16
    assert k_C[2:].min() >= 128
    asked = [Query(id=f"a{i}", text=f"{z:.6f}") for i, z in enumerate(rng.random(200))]
    estimate, by_knn = (r.estimate(asked) for r in (router, KNNRouter(embedder=Circle()).fit(table)))
    assert estimate.cost_usd_QM.std() < 0.5 * by_knn.cost_usd_QM.std()


def test_costs_do_not_hear_of_quality() -> None:
    table = real_table()
    other = dense_table(
        np.random.default_rng(1).random((len(table.queries), 9)),
        [query.words for query in table.queries],
        cost_usd=table.cost_usd_QM,
    )
    truth = dense_table(table.quality_QM, [q.words for q in table.queries], cost_usd=table.cost_usd_QM)
    one, two = (
        CarrotRouter(embedder=EMBEDDER).fit(t).estimate(table.queries).cost_usd_QM for t in (truth, other)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("price", [0.0, 100.0, 300.0])
def test_the_excess_risk_of_the_rule_falls_with_the_rows_at_every_price(price: float) -> None:
    def truth(z_N: Floats) -> tuple[Floats, Floats]:
        quality_NM = 0.5 + 0.4 * np.stack([np.sin(6 * z_N), np.cos(5 * z_N), 0.2 * z_N], axis=1)
        return quality_NM, 1e-3 * np.stack([0.2 + z_N, 1.2 - z_N, 0.1 + 0 * z_N], axis=1)

    rng = np.random.default_rng(0)
    asked_Q = rng.random(300)
    quality_QM, cost_QM = truth(asked_Q)
    utility_QM = quality_QM - price * cost_QM
    risk = {60: 0.0, 3_000: 0.0}
    for num in (*[60] * 4, *[3_000] * 2):
        z_N = rng.random(num)
        quality_NM, cost_NM = truth(z_N)
        seen_NM = (rng.random((num, 3)) < quality_NM).astype(np.float64)
        noisy_NM = cost_NM * rng.uniform(0.5, 1.5, (num, 3))
        table = dense_table(seen_NM, [f"{z:.6f}" for z in z_N], cost_usd=noisy_NM)
        estimate = (
            CarrotRouter(embedder=Circle())
            .fit(table)
            .estimate([Query(id=f"a{i}", text=f"{z:.6f}", input_tokens=2) for i, z in enumerate(asked_Q)])
        )
        choice_Q = (estimate.quality_QM - price * estimate.cost_usd_QM).argmax(axis=1)
        chosen_Q = utility_QM[np.arange(300), choice_Q]
        risk[num] += float((utility_QM.max(axis=1) - chosen_Q).mean()) / (4 if num == 60 else 2)
    # Fifty times the rows: the rate for d = 1 and a smooth curve gives a seventh or less.
    assert risk[3_000] < 0.35 * risk[60]


def test_many_rows_are_searched_in_lists_as_exactly_as_promised() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(5_000, 8)).astype(np.float32)
    x_NF /= np.linalg.norm(x_NF, axis=1, keepdims=True)
    value_NC = (x_NF[:, :2] > 0).astype(np.float64)
    bank = learn_local_means(x_NF, value_NC, (2, 8, 32), rng)
    assert bank.lists is not None
    guess_QC, error_QC = bank.predict(x_NF[:200])
    assert np.abs(guess_QC - value_NC[:200]).mean() < 0.2
    assert (error_QC > 0).all()


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"CarrotRouter\.options"):
        CarrotRouter(options=(8, 4))
    with pytest.raises(InputError, match=r"CarrotRouter\.options"):
        CarrotRouter(options=())
