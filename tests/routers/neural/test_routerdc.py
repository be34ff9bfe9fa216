"""RouterDC: the two losses against loops, what they see and what they cannot see, and newcomers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.routers.tables import dense_table, real_table, worded_queries, worded_table
from turnout.core import OutcomeTable, artifact
from turnout.core.errors import InputError, MissingExtraError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, RidgeRouter, RouterDCRouter
from turnout.routers.kmeans import closest, kmeans
from turnout.routers.neural.contrastive import (
    preference_error,
    sample_llm_loss,
    sample_sample_loss,
)

EMBEDDER = TextEmbedder(num_features=16).fit(worded_queries(240))
SKILL = np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.5], [0.1, 0.2, 0.5]])
"""Quality of three candidates on the three tasks of `worded_queries`."""


def planted(num: int, *, seed: int = 0) -> OutcomeTable:
    rng = np.random.default_rng(seed)
    quality_QM = (rng.random((num, 3)) < SKILL[np.arange(num) % 3]).astype(np.float64)
    return worded_table(quality_QM, seed=seed)


def test_the_sample_llm_loss_is_that_of_loops() -> None:
    rng = np.random.default_rng(0)
    logit_BM = rng.normal(size=(40, 7))
    # No two known qualities of a row are equal, so that chance has nothing to decide.
    quality_BM = np.stack([rng.permutation(7) / 7.0 for _ in range(40)])
    quality_BM[rng.random((40, 7)) < 0.3] = np.nan
    total = 0.0
    for s, q in zip(logit_BM, quality_BM, strict=True):
        known = [m for m in range(7) if np.isfinite(q[m])]
        best, worst = sorted(known, key=lambda m: -q[m])[:3], sorted(known, key=lambda m: q[m])[:3]
        for p in best:
            beaten = [n for n in worst if q[n] < q[p]]
            if beaten:
                share = np.exp(s[p]) / (np.exp(s[p]) + sum(np.exp(s[n]) for n in beaten))
                total -= np.log(share) * max(q[p] - q[n] for n in beaten)
    found = sample_llm_loss(torch.tensor(logit_BM), torch.tensor(quality_BM), torch.Generator())
    assert float(found) == pytest.approx(total / 40, rel=1e-6)


def test_ties_teach_nothing_and_are_broken_by_chance() -> None:
    logit = torch.zeros(1, 8, requires_grad=True)
    for value in (0.0, 1.0):
        quality = torch.full((1, 8), value)
        assert float(sample_llm_loss(logit.detach(), quality, torch.Generator())) == 0.0
    # Six are right and three are drawn to the query: over many draws, each of the six.
    quality, chance = torch.tensor([[1.0] * 6 + [0.0] * 2]), torch.Generator().manual_seed(0)
    slope_M = torch.zeros(8)
    for _ in range(200):
        (slope,) = torch.autograd.grad(sample_llm_loss(logit, quality, chance), logit)
        slope_M += slope[0]
    assert (slope_M[:6] < -0.3 * slope_M[6:].mean()).all()
    assert (slope_M[6:] > 0).all()


def test_the_sample_sample_loss_is_that_of_loops() -> None:
    similarity_BB = np.random.default_rng(0).normal(size=(5, 5))
    # Two pairs and one alone: each partner is forced, and at most three others are there to be drawn.
    label_B = [0, 0, 1, 1, 2]
    total = 0.0
    for row, label in enumerate(label_B):
        partners = [b for b in range(5) if label_B[b] == label and b != row]
        others = [b for b in range(5) if label_B[b] != label]
        if partners:
            s = similarity_BB[row]
            total -= np.log(np.exp(s[partners[0]]) / np.exp(s[partners + others]).sum())
    found = sample_sample_loss(torch.tensor(similarity_BB), torch.tensor(label_B), torch.Generator())
    assert float(found) == pytest.approx(total / 5, rel=1e-6)
    alone = sample_sample_loss(torch.tensor(similarity_BB), torch.zeros(5), torch.Generator())
    assert float(alone) == 0.0


def test_the_error_of_preference_takes_every_best_candidate() -> None:
    logit, quality = torch.tensor([[0.0, 0.0, 0.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0, torch.nan]])
    assert float(preference_error(logit, quality)) == pytest.approx(-np.log(2 / 3))


def test_only_preferences_are_learned_not_how_hard_a_query_is() -> None:
    rng = np.random.default_rng(0)
    # Sixteenths, so that sums and differences are exact; no ties.
    quality_QM = np.stack([rng.permutation([1, 3, 5]) for _ in range(90)]) / 16.0
    # One cell of each row is missing: who was asked the hard queries alone is no worse for it.
    quality_QM[np.arange(90), rng.integers(0, 3, 90)] = np.nan
    harder_QM = quality_QM + rng.integers(0, 10, (90, 1)) / 16.0
    tables = [worded_table(values_QM) for values_QM in (quality_QM, harder_QM)]
    queries = worded_queries(20, seed=5)
    plain, shifted = (RouterDCRouter(embedder=EMBEDDER).fit(table).similarity(queries) for table in tables)
    np.testing.assert_array_equal(plain, shifted)
    for cls in (KNNRouter, RidgeRouter):
        left, right = (cls(embedder=EMBEDDER).fit(table).estimate(queries).quality_QM for table in tables)
        differences = [values - values.mean(axis=1, keepdims=True) for values in (left, right)]
        assert np.abs(differences[0] - differences[1]).max() > 1e-3


def test_the_best_candidate_of_a_topic_is_nearest_to_its_queries() -> None:
    router = RouterDCRouter(embedder=EMBEDDER).fit(planted(240))
    queries = worded_queries(60, seed=9)
    similarity_QM = router.similarity(queries)
    assert (np.abs(similarity_QM) <= 1.0 + 1e-6).all()
    assert (similarity_QM.argmax(axis=1) == np.tile([0, 1, 2], 20)).mean() > 0.95
    assert (router.estimate(queries).quality_QM.argmax(axis=1) == np.tile([0, 1, 2], 20)).mean() > 0.95


def test_quality_is_a_rising_line_of_the_cosine() -> None:
    table = real_table()
    router = RouterDCRouter(embedder=TextEmbedder(num_features=16)).fit(table)
    x_QM, y_QM = router.similarity(table.queries), router.estimate(table.queries).quality_QM
    for x, y in zip(x_QM.T, y_QM.T, strict=True):
        inside = (y > 0.0) & (y < 1.0)
        slope, level = np.polyfit(x[inside], y[inside], 1)
        np.testing.assert_allclose(slope * x[inside] + level, y[inside], atol=1e-6)
        assert slope > 0.0


def test_the_second_loss_draws_queries_of_a_cluster_together() -> None:
    table = real_table()
    x_QF = TextEmbedder(num_features=16).fit(table.queries).embed(table.queries)
    label_Q = closest(x_QF, kmeans(x_QF, 8, np.random.default_rng(0)))
    is_same = label_Q[:, None] == label_Q[None, :]

    def apart(sample_weight: float) -> float:
        router = RouterDCRouter(embedder=TextEmbedder(num_features=16), sample_weight=sample_weight)
        z_QD = router.fit(table).encode(table.queries)
        similarity = z_QD @ z_QD.T
        return float(similarity[is_same].mean() - similarity[~is_same].mean())

    assert apart(5.0) > apart(0.0) + 0.05


def test_a_newcomer_with_the_outcomes_of_an_old_candidate_is_sent_the_same_queries() -> None:
    table = planted(240)
    router = RouterDCRouter(embedder=EMBEDDER).fit(table)
    twin = replace(table.candidates[1], model="twin")
    probe = dense_table(np.stack([table.quality_QM[:60, 1]], axis=1), [q.words for q in table.queries[:60]])
    probe = OutcomeTable(
        queries=probe.queries, candidates=[twin], query_index=probe.query_index,
        candidate_index=probe.candidate_index, quality=probe.quality,
    )  # fmt: skip
    found_QM = router.add_candidate(twin, probe).estimate(worded_queries(60, seed=9)).quality_QM
    assert np.corrcoef(found_QM[:, 1], found_QM[:, 3])[0, 1] > 0.8
    assert found_QM[:, 3].std() > 0.1


def test_a_fitted_router_answers_where_torch_is_not_installed(tmp_path: Path) -> None:
    queries = worded_queries(5, seed=9)
    router = RouterDCRouter(embedder=EMBEDDER).fit(planted(60))
    artifact.save(router, tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from turnout.core import artifact, Query\n"
        f"found = artifact.load({str(tmp_path)!r}).estimate([Query(id='a', text={queries[0].words!r})])\n"
        "print(found.quality_QM[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(router.estimate(queries[:1]).quality_QM[0].tolist())


def test_what_is_missing_or_out_of_range_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"RouterDCRouter\.temperature"):
        RouterDCRouter(temperature=0.0)
    with pytest.raises(InputError, match=r"RouterDCRouter\.sample_weight"):
        RouterDCRouter(sample_weight=-1.0)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"turnout\[nn\]"):
        RouterDCRouter().fit(planted(6))
