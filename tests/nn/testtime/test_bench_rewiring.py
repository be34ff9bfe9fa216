from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import bench_rewiring, record, rewiring_picture


@pytest.mark.slow
def test_a_quick_run_measures_every_arm_and_writes_nothing(capsys, monkeypatch) -> None:
    monkeypatch.setattr(record, "write", lambda *_, **__: pytest.fail("a quick run is no result"))
    bench_rewiring.main(["--quick"])
    printed = capsys.readouterr().out
    assert all(name in printed for name, _ in bench_rewiring.arms())
    assert "once, half the layers" in printed


def test_random_offsets_are_as_long_as_those_they_stand_for() -> None:
    deltas = [torch.randn(3, 8), torch.zeros(3, 8)]
    found = bench_rewiring.random_like(deltas, 7)
    for one, other in zip(deltas, found, strict=True):
        assert torch.allclose(one.norm(dim=1), other.norm(dim=1))
    assert not torch.allclose(deltas[0], found[0])


def test_an_interval_holds_the_mean_and_shrinks_with_more_items() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bench_rewiring.interval(values)
    assert low < values.mean() < high
    wider = bench_rewiring.interval(values[:40])
    assert wider[1] - wider[0] > high - low


def test_the_picture_is_written(tmp_path) -> None:
    line = {"change": -0.1, "change_interval": (-0.2, 0.0)}
    result = {
        "olmoe": {"unshifted": {"dense": {"loss": 1.0}, "all": line}, "shifted": {"all": line}},
        "paper": {},
    }
    assert rewiring_picture.draw(result, tmp_path / "rewiring.png").stat().st_size > 1000
