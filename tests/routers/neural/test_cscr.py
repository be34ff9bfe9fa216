"""CSCR: the loss against loops, bands of cost, fingerprints of newcomers, and the look-up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.routers.tables import dense_table, real_table, worded_queries, worded_table
from turnout.core import OutcomeTable, artifact
from turnout.core.errors import InputError, MissingExtraError
from turnout.features import TextEmbedder
from turnout.routers import CSCRRouter, KNNRouter, RidgeRouter
from turnout.routers.neural.cscr_net import CostSpectrum, bands_of

EMBEDDER = TextEmbedder(num_features=16).fit(worded_queries(240))
SKILL = np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.5], [0.1, 0.2, 0.5]])
"""Quality of three candidates on the three tasks of `worded_queries`."""


def planted(num: int, *, seed: int = 0) -> OutcomeTable:
    rng = np.random.default_rng(seed)
    quality_QM = (rng.random((num, 3)) < SKILL[np.arange(num) % 3]).astype(np.float64)
    return worded_table(quality_QM, seed=seed)


def probe_of(table: OutcomeTable, column: int, num: int) -> OutcomeTable:
    """Return what a twin of a candidate says to the first queries of a table."""
    twin = replace(table.candidates[column], model="twin")
    probe = dense_table(table.quality_QM[:num, [column]], [q.words for q in table.queries[:num]])
    return OutcomeTable(
        queries=probe.queries, candidates=[twin], query_index=probe.query_index,
        candidate_index=probe.candidate_index, quality=probe.quality,
    )  # fmt: skip


def test_the_loss_is_that_of_loops() -> None:
    rng = np.random.default_rng(0)
    similarity_BM, quality_BM = rng.normal(size=(30, 6)), rng.integers(0, 3, (30, 6)) / 2.0
    quality_BM[rng.random((30, 6)) < 0.2] = np.nan
    cost_M, band_M = np.array([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), np.array([0, 0, 1, 1, 2, 2])
    means = []
    for band in range(3):
        inside = [m for m in range(6) if band_M[m] == band]
        temperature = 0.3 + 0.25 * cost_M[inside].mean()
        losses = []
        for s, q in zip(similarity_BM, quality_BM, strict=True):
            right = [m for m in inside if q[m] > 0.0]
            if right:
                known = [m for m in range(6) if np.isfinite(q[m])]
                above = sum(q[m] * np.exp(s[m] / temperature) for m in right)
                under = sum(np.exp((s[m] - 0.2 * cost_M[m]) / temperature) for m in known)
                losses.append(-np.log(above / under) * max(q[m] for m in right))
        means.append(np.mean(losses))
    spectrum = CostSpectrum(torch.tensor(cost_M), torch.tensor(band_M), 0.3, 0.25, 0.2)
    similarity = torch.tensor(similarity_BM, requires_grad=True)
    found = spectrum(similarity, torch.tensor(quality_BM))
    assert float(found.detach()) == pytest.approx(np.mean(means), rel=1e-6)
    (slope,) = torch.autograd.grad(found, similarity)
    assert torch.isfinite(slope).all()
    # Where nobody is right nothing is learned.
    assert float(spectrum(similarity, torch.zeros(30, 6)).detach()) == 0.0


def test_bands_hold_equal_numbers_and_equal_costs_share_one() -> None:
    np.testing.assert_array_equal(bands_of(np.arange(10.0), 5), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert len(set(bands_of(np.zeros(4), 5).tolist())) == 1


def test_where_a_cheap_and_a_dear_one_are_right_the_map_lies_between_them() -> None:
    # Maths is the first one's, stories are the second one's, and on code both are right.
    quality_QM = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])[np.arange(240) % 3]
    queries = [query for query in worded_queries(60, seed=9) if query.task == "code"]
    for cost_M in ([1e-4, 1e-2], [1e-2, 1e-4]):
        table = worded_table(quality_QM, cost_usd=np.tile(cost_M, (240, 1)))
        apart = {}
        for num_bands in (1, 2):
            router = CSCRRouter(embedder=EMBEDDER, num_bands=num_bands).fit(table)
            apart[num_bands] = abs(np.subtract(*router.similarity(queries).mean(axis=0)))
        # Without bands the nearest right one is enough, and a dial of cost has nobody else to turn to.
        assert apart[2] < 0.5
        assert apart[1] > 1.0


def test_a_price_changes_what_is_learned_and_nothing_of_the_others() -> None:
    quality_QM = np.array([[1.0, 0.0, 0.5], [1.0, 1.0, 0.5], [0.0, 1.0, 0.5]])[np.arange(120) % 3]
    queries = worded_queries(30, seed=9)
    tables = [
        worded_table(quality_QM, cost_usd=np.tile(cost_M, (120, 1)))
        for cost_M in ([1e-4, 1e-2, 1e-3], [1e-2, 1e-4, 1e-3])
    ]
    for cls in (CSCRRouter, KNNRouter, RidgeRouter):
        one, two = (cls(embedder=EMBEDDER).fit(table).estimate(queries).quality_QM for table in tables)
        assert (np.abs(one - two).max() > 0.01) == (cls is CSCRRouter)


def test_the_best_candidate_of_a_topic_is_nearest_to_its_queries() -> None:
    router = CSCRRouter(embedder=EMBEDDER).fit(planted(240))
    queries = worded_queries(60, seed=9)
    right = np.tile(["m0", "m1", "m2"], 20)
    assert np.mean([found[0] for found in router.nearest(queries, 2)] == right) > 0.8
    assert (router.estimate(queries).quality_QM.argmax(axis=1) == np.tile([0, 1, 2], 20)).mean() > 0.7


def test_a_twin_joins_at_its_own_fingerprint_and_the_map_stays() -> None:
    table, queries = worded_table(SKILL[np.arange(240) % 3]), worded_queries(60, seed=9)
    router = CSCRRouter(embedder=EMBEDDER).fit(table)
    before_QK = router.encode(queries)
    begin = time.perf_counter()
    probe = probe_of(table, 1, 50)
    router.add_candidate(probe.candidates[0], probe)
    assert time.perf_counter() - begin < 1.0
    np.testing.assert_array_equal(router.encode(queries), before_QK)
    assert float(router.print_MK[1] @ router.print_MK[-1]) > 0.95
    code = [query for query in queries if query.task == "code"]
    assert np.mean([{"m1", "twin"} == set(found) for found in router.nearest(code, 2)]) > 0.9


def test_inverted_lists_find_what_brute_force_finds() -> None:
    quality_QM = np.random.default_rng(0).random((48, 1_500))
    table = dense_table(quality_QM, [query.words for query in worded_queries(48)])
    router, queries = CSCRRouter(embedder=EMBEDDER).fit(table), worded_queries(40, seed=3)
    assert router.lists_ is not None
    fast = router.nearest(queries, 4)
    router.lists_ = None
    slow = router.nearest(queries, 4)
    found = [len(set(a) & set(b)) / 4 for a, b in zip(fast, slow, strict=True)]
    assert np.mean(found) > 0.8
    similarity_QM = router.similarity(queries)
    names = np.array(table.names)
    for row, near in zip(similarity_QM, slow, strict=True):
        assert set(near) == set(names[np.argsort(-row)[:4]])


def test_everything_follows_from_the_cosine() -> None:
    table = real_table()
    router = CSCRRouter(embedder=TextEmbedder(num_features=16)).fit(table)
    x_QM, y_QM = router.similarity(table.queries), router.estimate(table.queries).quality_QM
    for x, y in zip(x_QM.T, y_QM.T, strict=True):
        inside = (y > 0.0) & (y < 1.0)
        slope, level = np.polyfit(x[inside], y[inside], 1)
        np.testing.assert_allclose(slope * x[inside] + level, y[inside], atol=1e-6)
        assert slope >= -1e-9


def test_a_fitted_router_answers_where_torch_is_not_installed(tmp_path: Path) -> None:
    queries = worded_queries(5, seed=9)
    router = CSCRRouter(embedder=EMBEDDER).fit(planted(60))
    artifact.save(router, tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from turnout.core import artifact, Query\n"
        f"found = artifact.load({str(tmp_path)!r}).estimate([Query(id='a', text={queries[0].words!r})])\n"
        "print(found.quality_QM[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), router.estimate(queries[:1]).quality_QM[0], rtol=1e-5)


def test_what_is_missing_or_out_of_range_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"CSCRRouter\.num_bands"):
        CSCRRouter(num_bands=0)
    with pytest.raises(InputError, match=r"CSCRRouter\.nearest: k"):
        CSCRRouter(embedder=EMBEDDER).fit(planted(6)).nearest([], 0)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"turnout\[nn\]"):
        CSCRRouter().fit(planted(6))
