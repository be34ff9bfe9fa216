"""Rollouts: replies are fed, not sampled; log probabilities are the model's; rows do not see each other."""

from __future__ import annotations

import pytest
import torch

from tests.nn.rl.dialogues import Guess, tokenizer
from turnout.core import InputError
from turnout.nn.rl.rollout import Limits, Rollout, roll_out
from turnout.nn.tiny import tiny_llama

TOKENIZER = tokenizer()
STOPS = TOKENIZER.convert_tokens_to_ids(["</ask>", "</say>"])
LIMITS = Limits(max_tokens=20, max_turn_tokens=4)


@pytest.fixture(scope="module")
def model():
    return tiny_llama(vocab_size=len(TOKENIZER), width=16, layers=2, heads=2, positions=64, seed=3)


def play(model, prompts: list[str], *, temperature: float = 1.0, seed: int = 0, limits: Limits = LIMITS):
    tasks = [Guess(prompt) for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    rollouts = roll_out(
        model,
        TOKENIZER,
        tasks,
        limits=limits,
        stop_ids=STOPS,
        temperature=temperature,
        generator=generator,
    )
    return tasks, rollouts


def own_turns(rollout: Rollout) -> list[str]:
    """Return the model's turns as they stand in the tokens."""
    turns: list[list[int]] = [[]]
    for token, own in zip(rollout.completion_ids, rollout.own, strict=True):
        if own:
            turns[-1].append(token)
        elif turns[-1]:
            turns.append([])
    # The end of the text ends a turn and is no part of what the task is told.
    return [TOKENIZER.decode(ids).removesuffix("<eos>").strip() for ids in turns if ids]


def test_replies_stand_where_turns_end_and_are_marked(model) -> None:
    tasks, rollouts = play(model, ["red", "blue red", "red red red"] * 4)
    assert any(len(task.turns) > 2 for task in tasks)
    for task, rollout in zip(tasks, rollouts, strict=True):
        assert len(rollout.completion_ids) == len(rollout.own) == len(rollout.logprobs) <= 20
        fed = [t for t, own in zip(rollout.completion_ids, rollout.own, strict=True) if not own]
        whole = TOKENIZER.encode("<seen> one </seen>", add_special_tokens=False) * 9
        assert fed == whole[: len(fed)]
        # Turns that lie back to back cannot occur: after each turn but the last there is a reply.
        assert own_turns(rollout)[: len(task.turns)] == [turn.strip() for turn in task.turns]


def test_log_probabilities_are_those_of_one_pass_without_cache(model) -> None:
    _, rollouts = play(model, ["red", "blue red one two", "two"])
    for rollout in rollouts:
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        with torch.no_grad():
            logprobs_TV = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(dim=-1)
        first = len(rollout.prompt_ids)
        for at, (token, own, logprob) in enumerate(
            zip(rollout.completion_ids, rollout.own, rollout.logprobs, strict=True)
        ):
            expected = float(logprobs_TV[first + at - 1, token]) if own else 0.0
            assert logprob == pytest.approx(expected, abs=1e-4)


def test_greedy_rows_do_not_depend_on_their_batch(model) -> None:
    prompts = ["red", "blue red one two", "two"]
    _, together = play(model, prompts, temperature=0.0)
    for prompt, rollout in zip(prompts, together, strict=True):
        _, (alone,) = play(model, [prompt], temperature=0.0)
        assert alone.completion_ids == rollout.completion_ids


def test_the_seed_makes_the_samples_and_training_mode_comes_back(model) -> None:
    model.train()
    _, one = play(model, ["red"] * 4, seed=1)
    _, two = play(model, ["red"] * 4, seed=1)
    _, other = play(model, ["red"] * 4, seed=2)
    assert model.training
    model.eval()
    assert [r.completion_ids for r in one] == [r.completion_ids for r in two]
    assert [r.completion_ids for r in one] != [r.completion_ids for r in other]


def test_a_cut_dialogue_says_so(model) -> None:
    _, rollouts = play(model, ["red"] * 8, limits=Limits(max_tokens=2, max_turn_tokens=1))
    assert all(len(rollout.completion_ids) <= 2 for rollout in rollouts)
    assert not all(rollout.is_over for rollout in rollouts)


def test_limits_are_counts() -> None:
    with pytest.raises(InputError, match="max_tokens"):
        Limits(max_tokens=0, max_turn_tokens=1)
