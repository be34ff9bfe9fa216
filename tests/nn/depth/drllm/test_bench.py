"""The questions that the benchmark of depth teaches a base, and how it chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bench_depth_chains import (
    QUICK,
    Size,
    choose,
    draw_chains,
    split_questions,
    taught,
    train_base,
)
from benchmarks.chains_tables import Judged, load, regrets, save, with_mixes
from benchmarks.depth_judging import TOKENIZER, as_batch
from turnout.datasets.chains import walked
from turnout.nn.depth.duo import Oracle
from turnout.nn.tiny import IGNORED


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
