from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_duo, duo_picture


@pytest.mark.slow
def test_the_benchmark_runs_and_no_policy_beats_the_exhaustive_oracle_of_its_kind(
    tmp_path: Path,
) -> None:
    found = bench_duo.measure(bench_duo.procedural_corpus(bench_duo.QUICK), bench_duo.QUICK)
    for line in found["sequences"] + found["tokens"]:
        # The same pattern in a batch of another size may differ in the last bit of single precision.
        best = line["exhaustive"]["loss"]["value"] - 1e-6
        assert line["best_fixed"]["loss"]["value"] >= best
        assert line["greedy"]["loss"]["value"] >= best
    assert found["flops_per_budget"] == sorted(found["flops_per_budget"])
    assert len(found["routers"]) == 2 * bench_duo.QUICK.router_seeds
    assert all({"claim", "measured", "holds"} <= set(claim) for claim in found["claims"])
    assert duo_picture.draw({"procedural": found}, tmp_path / "duo.png").stat().st_size > 10_000
