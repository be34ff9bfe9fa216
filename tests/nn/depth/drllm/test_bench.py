"""The questions that the benchmark of depth teaches a base, and how it chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import chains_speed
from benchmarks.bench_depth_chains import (
    QUICK,
    Size,
    choose,
    draw_chains,
    split_questions,
    taught,
    train_base,
)
from benchmarks.bench_depth_mixed import Planned
from benchmarks.chains_tables import Judged, load, regrets, save, with_mixes
from benchmarks.depth_drllm_speed import measure_mixed
from benchmarks.depth_judging import TOKENIZER, as_batch, judge, searched_regret, with_router
from scripts.results_chains import speed
from turnout.datasets.chains import walked
from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.duo import Oracle
from turnout.nn.tiny import IGNORED, tiny_llama


def test_each_step_of_a_chain_is_taught_where_it_is_taken_and_no_answer_changes() -> None:
    asked = draw_chains(count=60, levels=[1, 2, 6], rng=np.random.default_rng(0))
    plain, batch = as_batch(asked), taught(asked)
    assert (batch.labels_BT[plain.labels_BT != IGNORED] == plain.labels_BT[plain.labels_BT != IGNORED]).all()
    for row, question in enumerate(asked):
        before = TOKENIZER.convert_ids_to_tokens(batch.input_ids_BT[row, :-1].tolist())
        labels = batch.labels_BT[row, 1:].tolist()
        said = [
            (token, TOKENIZER.decode(label))
            for token, label in zip(before, labels, strict=True)
            if label >= 0
        ]
        steps = [*zip(question.prompt[1:-1], walked(question), strict=True)]
        assert said[: len(steps)] == steps
        assert "".join(letter for _, letter in said[len(steps) : -1]) == question.answer


def test_no_question_is_in_two_splits() -> None:
    splits = split_questions(Size())
    assert [len(splits[name]) for name in ("test", "choice", "train")] == list(Size.questions)
    prompts = [question.prompt for group in splits.values() for question in group]
    assert len(prompts) == len(set(prompts))
    assert {question.level for question in splits["test"]} == set(Size.levels)


def test_a_base_that_did_not_learn_stops_the_run() -> None:
    torch.set_num_threads(1)
    asked = split_questions(QUICK)
    size = Size(levels=(1, 2), layers=2, width=16, steps=2, rounds=2)
    with pytest.raises(
        RuntimeError, match=r"base 0 did not learn its training questions; allowed: at least 95%"
    ):
        train_base(size, 0, set(), taught(asked["train"]))


def test_what_a_base_came_to_is_kept_and_read_again(tmp_path: Path) -> None:
    pair = (np.array([1.0, 0.5]), np.array([3.0, 4.0]))
    oracle = Oracle(
        budget_K=np.array([0.0, 1.0]),
        loss_KQ=np.array([[1.0, 1.0], [0.0, 1.0]]),
        choice_KQL=np.zeros((2, 2, 3), dtype=np.int64),
    )
    found = Judged(
        answers={"dense": pair}, notes={"base": {"seed": 1}}, spent={"own": [pair, pair]}, oracle=oracle
    )
    save(found, tmp_path / "folder" / "1.json")
    again = load(tmp_path / "folder" / "1.json")
    assert again.notes == found.notes
    assert regrets([again]) == regrets([found])
    assert again.answers["dense"][1].tolist() == [3.0, 4.0]


def test_a_mix_of_two_fixed_skips_spends_what_the_routers_spent() -> None:
    fixed = {f"fixed {n}": (np.array([n / 4, n / 8]), np.full(2, float(n))) for n in range(4)}
    answers = with_mixes({**fixed, "own": (np.ones(2), np.array([1.0, 1.5])), "shared": fixed["fixed 3"]})
    right_Q, calls_Q = answers["own, mix"]
    assert calls_Q.tolist() == [1.25, 1.25]
    assert right_Q.tolist() == [1.25 / 4, 1.25 / 8]
    assert answers["shared, mix"][1].tolist() == [3.0, 3.0]


def test_the_fewest_layers_that_keep_the_quality_are_chosen() -> None:
    def pair(quality: float, layers: float) -> tuple[np.ndarray, np.ndarray]:
        return np.full(4, quality), np.full(4, layers)

    tried = {(2, 0.0): pair(0.8, 3.0), (2, 0.1): pair(0.96, 5.0), (3, 0.0): pair(0.95, 4.0)}
    assert choose(tried, 0.95) == (3, 0.0)
    assert choose(tried, 0.99) == (2, 0.1)


def wrapped(layers: int) -> RoutedDepth:
    return RoutedDepth(model=tiny_llama(vocab_size=len(TOKENIZER), width=16, layers=layers, seed=0))


def test_time_is_that_of_the_router_whose_quality_was_recorded(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    drawn = draw_chains(count=16, levels=[1, 3], rng=np.random.default_rng(0))
    asked = {"test": drawn, "choice": drawn}
    routed, batch = wrapped(3), as_batch(drawn)
    routers = [DrLLMRouter(layers=3, width=16, knob=-0.3 * seed, seed=seed) for seed in range(2)]
    right, calls = [], []
    for router in routers:
        routed.set_router(router)
        right_Q, calls_Q = judge(routed, batch)
        right.append(float(right_Q.mean()))
        calls.append(float(calls_Q.mean()))
    assert calls[0] != calls[1]
    with pytest.raises(RuntimeError, match="no weights in '0'; remove its cell and measure"):
        chains_speed.measure(tmp_path / "0", asked, right, chains_speed.QUICK)
    chains_speed.keep(routed, {"shared": routers}, tmp_path / "0")
    pairs = chains_speed.Pairs(new_tokens=2, singles=8, repeats=1, mixed_repeats=1)
    found = chains_speed.measure(tmp_path / "0", asked, right, pairs)
    chosen = [line for line in found["routers"] if line["is_chosen"]]
    assert [line["knob"] for line in chosen] == [0.0, -0.3]
    assert [line["executed_layers"]["mean"] for line in chosen] == calls
    for line, router in zip(found["routers"][1::2], routers, strict=True):
        assert not line["is_chosen"]
        assert line["executed_layers"]["mean"] >= 0.7 * 3
        router.set_knob(line["knob"] - 2.0 ** (1 - chains_speed.HALVINGS))
        assert with_router(routed, router, batch)[1].mean() < 0.7 * 3
    table = [line.split(" | ") for line in speed([found], 3) if line.startswith("|")]
    assert [row[0][:6] for row in table[2:]] == ["| 0, 0", "| 0, 0", "| 0, 1", "| 0, 1"]
    for row, share, spent in zip(table[2::2], right, calls, strict=True):
        assert row[1].startswith(f"{share:.3f} [")
        assert row[2] == f"{spent:.2f}, {1 - spent / 3:.0%} fewer"
    with pytest.raises(RuntimeError, match=r"router 0 of '0': share of right answers; allowed: 2\.0"):
        chains_speed.measure(tmp_path / "0", asked, [2.0], pairs)


def test_a_mixed_batch_says_how_many_paths_it_mixes_and_what_no_row_calls() -> None:
    torch.set_num_threads(1)
    prompts = [question.prompt for question in draw_chains(count=8, levels=[2], rng=np.random.default_rng(0))]
    plan_BL = torch.tensor([[1, 0, 0, 2]] * 5 + [[1, 1, 0, 0]] * 3)
    found = measure_mixed(wrapped(4), Planned(plan_BL), TOKENIZER, prompts, repeats=1, new_tokens=2)
    assert (found["paths_mixed"], found["uncalled_share_mixed"]) == ([2], [0.25])
    assert found["called_share_mixed"] == [1.0]
    assert found["batch_8_mixed_as_called"]["pairs"] == 1
    assert found["batch_8_mixed"]["pairs"] == found["batch_8_mixed_split_into_groups"]["pairs"] == 1


def test_regret_to_searches_counts_each_router_and_only_what_a_search_did_better() -> None:
    oracle = Oracle(
        budget_K=np.array([0.0, 1.0, 2.0]),
        loss_KQ=np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]),
        choice_KQL=np.zeros((3, 2, 2), dtype=np.int64),
    )
    wrong, right = (np.zeros(2), np.ones(2)), (np.ones(2), np.full(2, 2.0))
    line = searched_regret("router", [wrong, right], oracle)
    assert line["loss"]["value"] == 0.5
    assert line["oracle_loss"] == 0.25
    assert line["regret"]["value"] == 0.25
