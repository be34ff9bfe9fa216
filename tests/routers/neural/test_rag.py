"""RAGRouter: losses and attention against loops, what a document changes, and newcomers."""

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

from tests.routers.tables import WORDS, dense_table, worded_queries
from turnout.core import OutcomeTable, Query, artifact
from turnout.core.errors import InputError, MissingExtraError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, RAGRouter, RidgeRouter
from turnout.routers.neural.rag import NUM_HEADS
from turnout.routers.neural.rag_net import TEMPERATURE, RagNet, contrast, log_loss, start

KNOWS, READS, GULLIBLE = 0, 1, 2
"""One knows it all by heart; one needs the right document; one believes whatever it is given."""


def asked(num: int, *, seed: int = 0) -> list[Query]:
    """Return queries in three settings each: without a document, with one of its topic, with a stray one."""
    rng, queries = np.random.default_rng(seed), []
    topics = list(WORDS)
    for number, query in enumerate(worded_queries(num, seed=seed)):
        for setting in ("none", "right", "stray"):
            topic = query.task if setting == "right" else topics[(topics.index(query.task or "") + 1) % 3]
            words = " ".join(rng.choice(WORDS[topic or ""].split(), 5, replace=False))
            tags = {} if setting == "none" else {"document": words}
            queries.append(Query(id=f"{number}{setting}", text=query.text, task=setting, tags=tags))
    return queries


def planted(num: int, *, seed: int = 0) -> OutcomeTable:
    queries = asked(num, seed=seed)
    skill = {"none": (0.6, 0.1, 0.3), "right": (0.6, 0.9, 0.9), "stray": (0.6, 0.1, 0.0)}
    quality_QM = np.array([skill[query.task or ""] for query in queries])
    return with_tags(dense_table(quality_QM, [query.words for query in queries]), queries)


def with_tags(table: OutcomeTable, queries: list[Query]) -> OutcomeTable:
    return OutcomeTable(
        queries=queries, candidates=table.candidates, query_index=table.query_index,
        candidate_index=table.candidate_index, quality=table.quality,
    )  # fmt: skip


def test_the_contrast_is_that_of_loops_over_candidates_and_settings() -> None:
    rng = np.random.default_rng(0)
    score_TSM, quality_TSM = rng.normal(size=(12, 3, 4)), rng.integers(0, 3, (12, 3, 4)) / 2.0
    quality_TSM[rng.random(quality_TSM.shape) < 0.2] = np.nan
    quality_TSM[0] = 0.0
    losses = []
    for score, quality in zip(score_TSM, quality_TSM, strict=True):
        cells = [(s, m) for s in range(3) for m in range(4) if np.isfinite(quality[s, m])]
        above = sum(quality[cell] * np.exp(score[cell] / TEMPERATURE) for cell in cells)
        under = sum(np.exp(score[cell] / TEMPERATURE) for cell in cells)
        if above > 0.0:
            losses.append(-np.log(above / under))
    score = torch.tensor(score_TSM, requires_grad=True)
    found = contrast(score, torch.tensor(quality_TSM))
    assert float(found.detach()) == pytest.approx(np.mean(losses), rel=1e-6)
    (slope,) = torch.autograd.grad(found, score)
    assert torch.isfinite(slope).all()
    assert float(slope[0].abs().max()) == 0.0


def test_the_network_is_attention_in_loops_and_numpy_says_the_same() -> None:
    rng = np.random.default_rng(0)
    arrays = start(5, rng.random(3), 8, rng)
    x_BF, document_BF = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    document_BF[2] = 0.0
    want = np.zeros((4, 3))
    for b in range(4):
        z, d = x_BF[b] @ arrays["read"], document_BF[b] @ arrays["read"]
        c = np.maximum((z * d) @ arrays["cross"], 0.0)
        for m in range(3):
            tokens = [arrays["uses"][m], d, c]
            mixed = []
            for head in range(NUM_HEADS):
                part = slice(2 * head, 2 * head + 2)
                ask = (arrays["uses"][m] @ arrays["ask"])[part]
                scores = np.array([ask @ (token @ arrays["key"])[part] for token in tokens]) / np.sqrt(2.0)
                share = np.exp(scores) / np.exp(scores).sum()
                mixed.append(sum(s * (t @ arrays["value"])[part] for s, t in zip(share, tokens, strict=True)))
            shift = np.concatenate(mixed) @ arrays["out"] if document_BF[b].any() else 0.0
            want[b, m] = z @ (arrays["knows"][m] + shift) / np.sqrt(8.0) + arrays["level"][m]
    tensors = [torch.tensor(array, dtype=torch.float32) for array in (x_BF, document_BF)]
    np.testing.assert_allclose(RagNet(arrays, NUM_HEADS)(*tensors).detach().numpy(), want, atol=1e-4)
    router = RAGRouter()
    router.net_ = {name: array.astype(np.float32) for name, array in arrays.items()}
    router.net_["unit"] = np.ones(1, np.float32)
    says = router._says(x_BF.astype(np.float32), document_BF.astype(np.float32))
    np.testing.assert_allclose(says, 1.0 / (1.0 + np.exp(-want)), atol=1e-5)


def test_the_log_loss_leaves_out_what_is_unknown() -> None:
    score, quality = torch.tensor([[[0.0, 5.0]]]), torch.tensor([[[1.0, torch.nan]]])
    assert float(log_loss(score, quality)) == pytest.approx(np.log(2.0), rel=1e-6)


def test_the_documents_decide_who_is_called() -> None:
    router, queries = RAGRouter().fit(planted(90)), asked(30, seed=9)
    estimate = router.estimate(queries)
    want = {"none": KNOWS, "right": READS, "stray": KNOWS}
    right = [
        choice == want[query.task or ""] or (query.task == "right" and choice == GULLIBLE)
        for query, choice in zip(queries, estimate.quality_QM.argmax(axis=1).tolist(), strict=True)
    ]
    assert np.mean(right) > 0.9
    # A stray document is worse than none for who believes it, and changes nothing for who knows.
    settings = {name: np.array([query.task == name for query in queries]) for name in want}
    mean = {name: estimate.quality_QM[rows].mean(axis=0) for name, rows in settings.items()}
    assert mean["stray"][GULLIBLE] < mean["none"][GULLIBLE] - 0.1
    assert mean["right"][READS] > mean["none"][READS] + 0.4
    # Who reads the query alone gives one answer for all three settings, and is wrong on some.
    for cls in (KNNRouter, RidgeRouter):
        blind = cls().fit(planted(90)).estimate(queries).quality_QM
        np.testing.assert_allclose(blind[0::3], blind[1::3], atol=1e-9)


def test_a_newcomer_is_like_whom_it_answers_like_with_documents_and_without() -> None:
    table = planted(90)
    router = RAGRouter().fit(table)
    probe = dense_table(table.quality_QM[:60, [READS]], [query.words for query in table.queries[:60]])
    probe = with_tags(probe, list(table.queries[:60]))
    twin = replace(table.candidates[READS], model="twin")
    probe = OutcomeTable(
        queries=probe.queries, candidates=[twin], query_index=probe.query_index,
        candidate_index=probe.candidate_index, quality=probe.quality,
    )  # fmt: skip
    begin = time.perf_counter()
    router.add_candidate(twin, probe)
    assert time.perf_counter() - begin < 3.0
    queries = asked(30, seed=9)
    quality_QM = router.estimate(queries).quality_QM
    assert np.corrcoef(quality_QM[:, READS], quality_QM[:, 3])[0, 1] > 0.6


def test_a_fitted_router_answers_where_torch_is_not_installed(tmp_path: Path) -> None:
    router = RAGRouter(embedder=TextEmbedder(num_features=16)).fit(planted(30))
    query = asked(3, seed=9)[1]
    artifact.save(router, tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from turnout.core import artifact, Query\n"
        f"query = Query(id='a', text={query.words!r}, tags={dict(query.tags)!r})\n"
        f"print(artifact.load({str(tmp_path)!r}).estimate([query]).quality_QM[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), router.estimate([query]).quality_QM[0], rtol=1e-5)


def test_what_is_missing_or_out_of_range_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"RAGRouter\.log_weight"):
        RAGRouter(log_weight=0.0)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"turnout\[nn\]"):
        RAGRouter().fit(planted(6))
