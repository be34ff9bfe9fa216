"""What holds for every router of the table."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.features.corpora import ODD_TEXTS, as_queries
from tests.routers.tables import (
    ARRAYS,
    assert_same,
    holed_table,
    real_table,
    router_names,
    shuffled,
    with_stranger,
)
from turnout.core import Candidate, OutcomeTable, PriceCard, artifact
from turnout.core.contracts import Router
from turnout.core.errors import InputError, NotFittedError, TableError, UnknownNameError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, RidgeRouter, registry

NAMES = router_names()


@cache
def embedder() -> TextEmbedder:
    return TextEmbedder(num_features=16).fit(real_table().queries)


def make(name: str) -> Router:
    cls = registry.get(name)
    takes_embedder = "embedder" in inspect.signature(cls).parameters
    router: Router = cls(embedder=embedder()) if takes_embedder else cls()
    return router


@cache
def fitted_on_holes(name: str) -> Router:
    return make(name).fit(holed_table())


@pytest.mark.parametrize("name", NAMES)
def test_estimates_have_a_number_for_everyone(name: str) -> None:
    table = holed_table()
    estimate = fitted_on_holes(name).estimate(table.queries)
    assert estimate.names == table.names
    assert np.isfinite(estimate.quality_QM).all()
    assert (estimate.spread_QM > 0).all()
    assert (estimate.cost_usd_QM >= 0).all()
    assert np.isnan(estimate.latency_s_QM).all()
    assert estimate.allowed_QM.all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_queries_and_candidates_does_not_matter(name: str) -> None:
    table = holed_table()
    again = make(name).fit(shuffled(table, seed=1)).estimate(table.queries).reorder(table.names)
    assert_same(fitted_on_holes(name).estimate(table.queries), again, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_estimating_changes_nothing(name: str) -> None:
    queries = real_table().queries
    router = fitted_on_holes(name)
    before = router.estimate(queries[:5])
    router.estimate([*queries, *as_queries(ODD_TEXTS)])
    assert_same(before, router.estimate(queries[:5]), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    queries = real_table().queries[:12]
    router = fitted_on_holes(name)
    together = router.estimate(queries)
    for row, query in enumerate(queries):
        assert_same(together.rows(slice(row, row + 1)), router.estimate([query]), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_artifact_estimates_the_same(name: str, tmp_path: Path) -> None:
    queries = [*real_table().queries[:20], *as_queries(ODD_TEXTS)]
    router = make(name).clone().fit(holed_table())
    artifact.save(router, tmp_path)
    loaded = artifact.load(tmp_path)
    assert isinstance(loaded, Router)
    assert_same(router.estimate(queries), loaded.estimate(queries), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_odd_texts_get_sane_estimates(name: str) -> None:
    estimate = fitted_on_holes(name).estimate(as_queries(ODD_TEXTS))
    assert np.isfinite(estimate.quality_QM).all()
    assert np.isfinite(estimate.spread_QM).all()
    assert fitted_on_holes(name).estimate([]).quality_QM.shape == (0, 9)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_costs_stay_unknown(name: str) -> None:
    table = real_table()
    priced = np.where(table.candidate_index == 0, np.nan, table.cost_usd)
    bare = [candidate.with_price_card(None) for candidate in table.candidates]
    changed = OutcomeTable(
        queries=table.queries, candidates=bare, query_index=table.query_index,
        candidate_index=table.candidate_index, quality=table.quality, cost_usd=priced,
    )  # fmt: skip
    estimate = make(name).fit(changed).estimate(table.queries[:9])
    assert np.isnan(estimate.cost_usd_QM[:, 0]).all()
    assert np.isfinite(estimate.cost_usd_QM[:, 1:]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_without_one_observation_is_unknown_and_the_others_are_as_before(name: str) -> None:
    queries = real_table().queries[:9]
    estimate = make(name).fit(with_stranger(real_table())).estimate(queries)
    assert np.isnan(estimate.quality_QM[:, -1]).all()
    assert np.isposinf(estimate.spread_QM[:, -1]).all()
    assert np.isnan(estimate.cost_usd_QM[:, -1]).all()
    assert estimate.allowed_QM.all()
    alone = make(name).fit(real_table()).estimate(queries)
    for array in ARRAYS:
        np.testing.assert_allclose(getattr(estimate, array)[:, :-1], getattr(alone, array), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_is_added_from_probes_and_leaves_the_others_alone(name: str, tmp_path: Path) -> None:
    table = real_table()
    newcomer = table.candidates[4]
    others = [candidate.name for candidate in table.candidates if candidate != newcomer]
    probe = table.where(np.arange(len(table.queries)) % 5 == 0)
    router = make(name).fit(table.select(candidates=others))
    before = router.estimate(table.queries)
    router.add_candidate(newcomer, probe)
    after = router.estimate(table.queries)
    assert after.names == (*others, newcomer.name)
    assert_same(before, after.reorder(others), rtol=0, atol=0)
    truth = table.quality_QM[:, 4]
    # Half of the queries' deviation: a guess from 48 probes is about right on average.
    assert abs(after.quality_QM[:, -1].mean() - truth.mean()) < 0.15 or name == "uniform"
    assert np.isfinite(after.cost_usd_QM[:, -1]).all()
    artifact.save(router, tmp_path)
    loaded = artifact.load(tmp_path)
    assert isinstance(loaded, Router)
    assert_same(after, loaded.estimate(table.queries), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_newcomer_must_be_new_and_probed(name: str) -> None:
    table = real_table()
    router = make(name).fit(table)
    with pytest.raises(InputError, match="already in the pool"):
        router.add_candidate(table.candidates[0], table)
    with pytest.raises(UnknownNameError, match="nobody"):
        router.add_candidate(Candidate(model="nobody"), table)
    with pytest.raises(TableError, match="holds no quality"):
        router.add_candidate(with_stranger(table).candidates[-1], with_stranger(table))


@pytest.mark.parametrize("name", NAMES)
def test_costs_follow_from_the_price_card_where_only_tokens_were_recorded(name: str) -> None:
    table = real_table()
    card = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=3.0)
    listed = OutcomeTable(
        queries=table.queries,
        candidates=[candidate.with_price_card(card) for candidate in table.candidates],
        query_index=table.query_index, candidate_index=table.candidate_index, quality=table.quality,
        input_tokens=np.full(table.num_rows, 100.0), output_tokens=np.full(table.num_rows, 10.0),
    )  # fmt: skip
    estimate = make(name).fit(listed).estimate(table.queries[:4])
    np.testing.assert_allclose(estimate.cost_usd_QM, 130e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_estimate_is_asked_after_fit(name: str) -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        registry.get(name)().estimate(real_table().queries[:1])


@pytest.mark.parametrize("cls", [KNNRouter, RidgeRouter])
def test_a_fitted_embedder_is_shared_and_a_default_one_is_made(cls: type) -> None:
    assert cls(embedder=embedder()).fit(real_table()).embedder_ is embedder()
    own = cls().fit(real_table())
    assert isinstance(own.embedder_, TextEmbedder)
    assert not own.clone().is_fitted
