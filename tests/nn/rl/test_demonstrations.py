"""The loss of a demonstration falls on the model's turns, and a warm start learns them."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import Cohere2Config, Cohere2ForCausalLM

from tests.nn.rl.dialogues import Guess, tokenizer
from turnout.core import InputError
from turnout.nn.rl.demonstrations import Demonstration, demonstration_batch
from turnout.nn.rl.rollout import Limits, roll_out
from turnout.nn.tiny import IGNORED, tiny_llama, train

TOKENIZER = tokenizer()
SHOWN = [
    Demonstration(
        prompt="red blue" if word == "one" else "blue",
        turns=("<ask> red </ask>", f"<say> {word} </say>"),
        replies=(f"<seen> {word} </seen>",),
    )
    for word in ("one", "two")
]


def test_only_turns_carry_a_label() -> None:
    batch = demonstration_batch(TOKENIZER, SHOWN)
    for row, one in enumerate(SHOWN):
        labels = [label for label in batch.labels_BT[row].tolist() if label != IGNORED]
        assert TOKENIZER.decode(labels) == " ".join(one.turns)
        ids = batch.input_ids_BT[row][batch.attention_mask_BT[row].bool()].tolist()
        whole = f"<bos> {one.prompt} {one.turns[0]} {one.replies[0]} {one.turns[1]}"
        assert TOKENIZER.decode(ids) == whole


def test_a_reply_too_many_is_refused() -> None:
    with pytest.raises(InputError, match=r"Demonstration\.replies"):
        Demonstration(prompt="", turns=("a",), replies=("b",))


def test_a_warm_start_learns_to_read_a_reply() -> None:
    model = tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=2, heads=2, positions=64, seed=0)
    losses = train(model, lambda: demonstration_batch(TOKENIZER, SHOWN), steps=60, lr=5e-3)
    assert losses[-1] < 0.1 < losses[0]
    stops = TOKENIZER.convert_tokens_to_ids(["</ask>", "</say>"])
    tasks = [Guess("red blue", "one"), Guess("blue", "two")]
    limits = Limits(max_tokens=20, max_turn_tokens=5)
    roll_out(model, TOKENIZER, tasks, limits=limits, stop_ids=stops, temperature=0.0)
    assert [task.score for task in tasks] == [1.0, 1.0]


@pytest.mark.parametrize("logit_scale", [None, 1.0])
def test_a_head_that_scales_logits_down_wants_that_scale_set_to_the_width(logit_scale: float | None) -> None:
    """Cohere's 1/16 is made for a width of 8192: in a narrow model it holds logits near zero."""
    torch.manual_seed(0)
    config = Cohere2Config(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **({} if logit_scale is None else {"logit_scale": logit_scale}),
    )
    model = Cohere2ForCausalLM(config).eval()
    losses = train(model, lambda: demonstration_batch(TOKENIZER, SHOWN), steps=60, lr=5e-3)
    guessing = math.log(len(TOKENIZER))
    assert losses[-1] > 0.8 * guessing if logit_scale is None else losses[-1] < 0.2 * guessing
    tasks = [Guess(one.prompt, one.replies[0].split()[1]) for one in SHOWN * 8]
    sampling = torch.Generator().manual_seed(0)
    roll_out(
        model,
        TOKENIZER,
        tasks,
        limits=Limits(max_tokens=20, max_turn_tokens=5),
        stop_ids=TOKENIZER.convert_tokens_to_ids(["</ask>", "</say>"]),
        generator=sampling,
    )
    assert any(task.score for task in tasks) == (logit_scale is not None)
