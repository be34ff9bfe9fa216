from __future__ import annotations

import pytest
import torch

from benchmarks import bench_adapters, bench_token_gates
from tests.nn.adapters import helpers
from turnout.nn.adapters import OracleAdapter


@pytest.mark.slow
def test_the_benchmark_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    bench_adapters.main(["--quick"])
    shown = capsys.readouterr().out
    assert "glider_chosen" in shown
    assert "renamed" in shown
    assert "against PHATGOOSE" in shown


@pytest.mark.slow
def test_the_question_about_token_gates_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    bench_token_gates.main(["--quick"])
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in bench_token_gates.KINDS)


def test_a_noisy_oracle_takes_the_own_adapter_as_often_as_it_says() -> None:
    pool, ids = helpers.pool(), helpers.tokens(rows=3)
    tasks = ["a", "c", "b"]
    sure = bench_token_gates.NoisyOracle(chance=1.0, seed=0)
    with pool.routed(router=sure, tasks=tasks):
        noisy = helpers.logits(pool, ids)
    with pool.routed(router=OracleAdapter(), tasks=tasks):
        torch.testing.assert_close(noisy, helpers.logits(pool, ids), rtol=1e-4, atol=1e-5)
    half = bench_token_gates.NoisyOracle(chance=0.5, seed=0)
    with pool.routed(router=half, tasks=tasks), pool.recording() as trace:
        helpers.logits(pool, ids)
    own_B = torch.tensor([pool.names.index(task) for task in tasks])
    shares = [
        w_BTE.gather(-1, own_B[:, None, None].expand(-1, w_BTE.shape[1], 1)) for [w_BTE] in trace.values()
    ]
    assert 0.35 < float(torch.cat(shares).mean()) < 0.65
