"""TRL's GRPO over dialogues of two turns: the reward rises, and replies are no part of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.nn.rl.dialogues import Guess, tokenizer
from turnout.core import InputError
from turnout.nn.rl.demonstrations import Demonstration, demonstration_batch
from turnout.nn.rl.grpo import GRPOSettings, train_grpo
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
