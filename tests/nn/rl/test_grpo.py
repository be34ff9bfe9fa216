"""TRL's GRPO over dialogues of two turns: the reward rises, and replies are no part of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.nn.rl.dialogues import Guess, tokenizer
from turnout.core import InputError
from turnout.nn.rl.demonstrations import Demonstration, demonstration_batch
from turnout.nn.rl.grpo import PATIENCE, GRPOSettings, NothingToLearn, Start, train_grpo
from turnout.nn.rl.rollout import Limits
from turnout.nn.tiny import tiny_llama, train

TOKENIZER = tokenizer()
STOPS = TOKENIZER.convert_tokens_to_ids(["</ask>", "</say>"])


@pytest.mark.parametrize(
    "wrong", [{"group": 1}, {"steps": 0}, {"lr": 0.0}, {"temperature": 0.0}, {"beta": -1.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="GRPOSettings"):
        GRPOSettings(**wrong)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_reward_rises_over_the_warm_start() -> None:
    pytest.importorskip("trl")
    torch.manual_seed(0)
    model = tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=2, heads=2, positions=64, seed=0)
    # The demonstrations say one or two, whatever was seen: the warm start knows the format and not the task.
    shown = [
        Demonstration(
            prompt="red",
            turns=("<ask> red </ask>", f"<say> {said} </say>"),
            replies=("<seen> two </seen>",),
        )
        for said in ("one", "two")
    ]
    train(model, lambda: demonstration_batch(TOKENIZER, shown), steps=40, lr=5e-3)
    history = train_grpo(
        model,
        TOKENIZER,
        ["red"],
        lambda prompt: Guess(prompt, "two"),
        lambda tasks: [task.score for task in tasks],
        limits=Limits(max_tokens=20, max_turn_tokens=5),
        stop_ids=STOPS,
        settings=GRPOSettings(steps=15, prompts=2, group=8, lr=3e-3),
    )
    assert len(history) == 15
    assert np.mean(history[:3]) < 0.75
    assert np.mean(history[-3:]) > np.mean(history[:3]) + 0.2
    assert not model.training


def test_rewards_that_never_differ_within_a_task_are_told_once() -> None:
    start = Start(updates=2)
    start.see(["a", "a", "b", "b"], [-1.0, -1.0, 0.5, 0.5])
    with pytest.warns(NothingToLearn, match=r"nothing is learned; got: 'rewards \[-1.0, 0.5\]'; warm up"):
        start.see(["b", "b"], [-1.0, -1.0])
    start.see(["b", "b"], [-1.0, -1.0])


def test_one_difference_is_enough_to_learn_from() -> None:
    start = Start(updates=2)
    start.see(["a", "a", "b", "b"], [-1.0, -1.0, 0.5, -1.0])
    for _ in range(3):
        start.see(["a", "a"], [-1.0, -1.0])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_without_a_warm_start_is_told_that_it_learns_nothing() -> None:
    pytest.importorskip("trl")
    model = tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=2, heads=2, positions=64, seed=0)
    before = [weight.detach().clone() for weight in model.parameters()]
    with pytest.warns(NothingToLearn, match=r"rewards \[-1.0\]"):
        history = train_grpo(
            model,
            TOKENIZER,
            ["red"],
            lambda prompt: Guess(prompt, "two"),
            lambda tasks: [-1.0] * len(tasks),
            limits=Limits(max_tokens=20, max_turn_tokens=5),
            stop_ids=STOPS,
            settings=GRPOSettings(steps=PATIENCE, prompts=1, group=2),
        )
    assert history == [-1.0] * PATIENCE
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
