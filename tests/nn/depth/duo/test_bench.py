from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_duo, duo_corpora, duo_picture, duo_tables
from turnout.nn.depth.duo import Oracle


@pytest.mark.slow
@pytest.mark.parametrize("allow_skip", [False, True])
def test_the_benchmark_runs_and_no_policy_beats_the_exhaustive_oracle_of_its_kind(
    allow_skip: bool, tmp_path: Path
) -> None:
    settings = duo_corpora.QUICK
    found = bench_duo.measure(duo_corpora.procedural_corpus(settings), settings, allow_skip=allow_skip)
    for line in found["sequences"] + found["tokens"]:
        # The same pattern in a batch of another size may differ in the last bit of single precision.
        best = line["exhaustive"]["loss"]["value"] - 1e-6
        assert line["greedy"]["loss"]["value"] >= best
        assert line["best_fixed"]["loss"]["value"] >= best
        assert ("all_skip" in line) == allow_skip
        assert len(line["greedy"]["loss_by_seed"]) == len(settings.seeds)
    assert [("router" in line) for line in found["tokens"]] == [False, True, True, False]
    assert found["flops_per_budget"] == sorted(found["flops_per_budget"])
    assert all({"claim", "measured", "holds"} <= set(claim) for claim in found["claims"])
    assert duo_picture.draw({"procedural": found}, tmp_path / "duo.png").stat().st_size > 10_000


def _cell(loss_Q: list[float], best_KQ: list[list[float]], spent_Q: list[float]) -> duo_tables.Cell:
    best = np.array(best_KQ)
    oracle = Oracle(
        budget_K=np.array([0.0, 1.0]), loss_KQ=best, choice_KQL=np.zeros((*best.shape, 2), dtype=np.int64)
    )
    loss = {"router": np.array(loss_Q), "exhaustive": best[1]}
    return duo_tables.Cell(loss=loss, oracle=oracle, spent_Q=np.array(spent_Q))


def test_seeds_are_joined_and_a_router_is_judged_by_what_it_spent_on_each_item() -> None:
    cells = [
        _cell([3.0, 5.0], [[4.0, 4.0], [2.0, 2.0]], [1.0, 0.0]),
        _cell([4.0, 4.0], [[6.0, 4.0], [2.0, 2.0]], [0.5, 1.0]),
    ]
    router = duo_tables.line_of(1, cells, np.arange(2))["router"]
    assert router["loss"]["value"] == 4.0
    assert router["loss_by_seed"] == [4.0, 4.0]
    assert router["spent"] == 0.625
    # Beside 2 and 4 of the first seed's oracle, and (6 + 2) / 2 and 2 of the second one's.
    assert router["regret"]["value"] == (1.0 + 1.0 + 0.0 + 2.0) / 4


def test_skips_that_are_the_last_layers_alone_are_an_early_exit() -> None:
    choice_QL = np.array([[1, 0, 2], [0, 2, 2], [2, 1, 1], [1, 2, 0], [1, 1, 1]])
    oracle = Oracle(budget_K=np.array([3.0]), loss_KQ=np.zeros((1, 5)), choice_KQL=choice_QL[None])
    claim = duo_tables._not_an_early_exit(oracle, np.arange(5))
    assert claim["measured"]["value"] == 0.5
    assert claim["patterns_with_a_skip"] == 0.8
