from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from turnout.core.errors import InputError
from turnout.nn.depth.drllm.paths import Path, full_path
from turnout.nn.depth.drllm.search import SearchRule, TreeSearch, search_all

LAYERS = 8
CHAIN: dict[str, Any] = {"widening": 1.0, "widening_power": 0.0}
PLANTED = (0, 1, 3, 4, 4, 6, 7)
"""Three edits away from the whole path: without 2 and 5, with 4 twice."""


def distance(path: Path) -> int:
    return sum(abs(path.count(layer) - PLANTED.count(layer)) for layer in range(LAYERS))


def run(rule: SearchRule, reward, seed: int = 0) -> TreeSearch:
    search = TreeSearch(layers=LAYERS, rule=rule, rng=np.random.default_rng(seed))
    search_all([search], lambda asked: [reward(path) for _, path in asked])
    return search


def test_the_tree_finds_a_planted_path_three_edits_away() -> None:
    rule = SearchRule(simulations=400, length_penalty=0.1, exploration=0.3, is_exhausting=True)
    runs = [run(rule, lambda path: max(0.0, 1 - distance(path) / 4), seed) for seed in range(8)]
    assert sum(PLANTED in search.rewards for search in runs) >= 6


@pytest.mark.parametrize(("budget", "share"), [(50, 0.6), (100, 0.85)])
def test_the_tree_finds_the_block_in_the_way_and_the_chain_misses_it_at_the_same_budget(
    budget: int, share: float
) -> None:
    # The answer comes out right when block 2 is left out and every other one is called.
    def reward(path: Path) -> float:
        return float(set(path) == set(range(LAYERS)) - {2})

    def found(**rule: Any) -> float:
        runs = [run(SearchRule(simulations=budget, **rule), reward, seed) for seed in range(40)]
        return sum(search.best is not None for search in runs) / 40

    assert found() >= share
    assert found(**CHAIN) <= 0.2


def test_the_chain_gives_every_node_one_child_and_the_tree_widens() -> None:
    def widest(search: TreeSearch) -> tuple[int, int]:
        stack, most, deepest = [(search._root, 0)], 0, 0
        while stack:
            node, depth = stack.pop()
            most, deepest = max(most, len(node.children)), max(deepest, depth)
            assert len(node.children) <= np.ceil(
                search.rule.widening * node.visits**search.rule.widening_power
            )
            stack += [(child, depth + 1) for child in node.children]
        return most, deepest

    budget: dict[str, Any] = {"simulations": 60, "is_exhausting": True}
    assert widest(run(SearchRule(**budget, **CHAIN), lambda _: 0.0)) == (1, 60)
    most, deepest = widest(run(SearchRule(**budget), lambda _: 0.0))
    assert most >= 5
    assert 1 < deepest < 20


def test_the_budget_is_kept_and_no_path_is_measured_twice() -> None:
    asked: list[Path] = []

    def reward(path: Path) -> float:
        asked.append(path)
        return 0.0

    search = run(SearchRule(simulations=50), reward)
    assert search.simulations == 51
    assert asked[0] == full_path(LAYERS)
    assert len(asked) == len(set(asked)) == len(search.rewards) <= 51


def test_a_wrong_answer_that_becomes_right_ends_the_search() -> None:
    search = run(SearchRule(simulations=500), lambda path: float(3 not in path))
    assert search.is_done
    assert search.simulations < 500
    assert search.start == 0.0
    assert search.best is not None
    assert 3 not in search.best


def test_a_right_path_two_blocks_shorter_ends_the_search_and_one_block_does_not() -> None:
    search = run(SearchRule(), lambda path: float(len(path) >= LAYERS - 2))
    assert search.simulations < 50
    assert len(search.best or ()) == LAYERS - 2
    assert run(SearchRule(), lambda path: float(len(path) >= LAYERS - 1)).simulations == 51


def test_of_paths_that_answer_alike_the_search_follows_the_short_ones() -> None:
    # No reward leads anywhere, so what is left of the score is the length.
    def mean_length(penalty: float) -> float:
        rule = SearchRule(length_penalty=penalty, exploration=0.3, simulations=200, is_exhausting=True)
        runs = [run(rule, lambda _: 0.5, seed) for seed in range(5)]
        return float(np.mean([len(path) for search in runs for path in search.rewards]))

    assert mean_length(3.0) < mean_length(0.0) - 1.0


def test_nothing_right_has_no_label() -> None:
    assert run(SearchRule(simulations=30), lambda _: 0.5).best is None


def test_ties_are_broken_by_fewest_distinct_blocks() -> None:
    search = TreeSearch(layers=3, rng=np.random.default_rng(0))
    search.rewards = {(0, 1, 2): 1.0, (0, 2): 1.0, (1, 1): 1.0, (0,): 0.2}
    assert search.best == (1, 1)


def test_searches_in_step_are_what_they_are_alone() -> None:
    def reward(question: int, path: Path) -> float:
        return float(question in path and len(path) > 5)

    def make() -> list[TreeSearch]:
        return [TreeSearch(layers=LAYERS, rng=np.random.default_rng(q)) for q in range(4)]

    together, alone = make(), make()
    search_all(together, lambda asked: [reward(q, path) for q, path in asked])
    for question, search in enumerate(alone):
        while (path := search.propose()) is not None:
            search.report(reward(question, path))
    assert [s.rewards for s in together] == [s.rewards for s in alone]


def test_bad_rules_and_rewards_are_refused() -> None:
    with pytest.raises(InputError, match="random_share"):
        SearchRule(random_share=1.5)
    with pytest.raises(InputError, match="widening"):
        SearchRule(widening=0.5)
    with pytest.raises(InputError, match="simulations"):
        SearchRule(simulations=0)
    search = TreeSearch(layers=3, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="proposed last"):
        search.report(1.0)
    search.propose()
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        search.report(2.0)
