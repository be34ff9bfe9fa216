from __future__ import annotations

import pytest

from benchmarks import bench_adapters


@pytest.mark.slow
def test_the_benchmark_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    bench_adapters.main(["--quick"])
    shown = capsys.readouterr().out
    assert "glider_chosen" in shown
    assert "renamed" in shown
    assert "against PHATGOOSE" in shown
