"""Answers in stretches end where the model's own `generate` ends them, item by item."""

from __future__ import annotations

from string import ascii_letters, digits
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria, StoppingCriteriaList
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from tests.nn.moe_models import decisive, tokens
from turnout.core.errors import InputError
from turnout.nn.testtime.rewiring import Rewiring
from turnout.nn.tiny import character_tokenizer

LENGTH, NEW, PAD, END = 12, 8, 0, 63
Options = dict[str, Any]
OPTIONS: Options = {
    "max_new_tokens": NEW,
    "do_sample": False,
    "pad_token_id": PAD,
    "eos_token_id": END,
}


class Lengths(StoppingCriteria):
    """Ends the item of number b at lengths[b] tokens."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        return torch.tensor([input_ids.shape[1] >= n for n in self.lengths])


class Rows(LogitsProcessor):
    """Lets the item of number b write tokens of its own alone, and counts its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        closed = torch.full_like(scores, -torch.inf)
        for item in range(len(scores)):
            low = 10 * (item + 1) + self.steps % 4
            closed[item, low : low + 3] = 0.0
        self.steps += 1
        return scores + closed


def both(
    given: dict[str, Any], again: dict[str, Any] | None = None, **settings: Any
) -> tuple[Tensor, Tensor]:
    """Return what stock `generate` writes, and what 0 steps in stretches of 3 tokens do."""
    model = decisive("olmoe")
    ids_BT = tokens(length=LENGTH)
    torch.manual_seed(0)
    stock_BT = model.generate(input_ids=ids_BT, **OPTIONS | given)
    torch.manual_seed(0)
    rewiring = Rewiring(model=model, steps=0, every_tokens=3, **settings)
    return stock_BT, rewiring.generate(ids_BT, **OPTIONS | (again or given)).sequences_BT


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("lengths", [(2, 99), (99, 3), (3, 3), (4, 6), (6, 1), (99, 99)])
def test_a_criterion_ends_each_item_where_it_says(lengths, kept) -> None:
    stops = Lengths([LENGTH + n for n in lengths])
    stock_BT, found_BT = both({"stopping_criteria": StoppingCriteriaList([stops])}, is_cache_kept=kept)
    assert found_BT.shape[1] == LENGTH + min(max(lengths), NEW)
    assert torch.equal(found_BT, stock_BT)


def test_the_mask_and_the_rounds_say_who_has_ended() -> None:
    model, stops = decisive("olmoe"), Lengths([LENGTH + 3, LENGTH + 99])
    rewiring = Rewiring(model=model, every_tokens=3)
    found = rewiring.generate(tokens(length=LENGTH), **OPTIONS, stopping_criteria=[stops])
    assert found.attention_mask_BT[:, LENGTH:].tolist() == [[1] * 3 + [0] * (NEW - 3), [1] * NEW]
    assert list(found.items) == [(0, 1), (1,), (1,)]


def test_an_item_that_ended_without_an_end_token_is_padded_to_the_end() -> None:
    # Stock `generate` pads for the sake of end tokens alone; what an item writes after its end is no text.
    stops = Lengths([LENGTH + 2, LENGTH + 99])
    stock_BT, found_BT = both({"stopping_criteria": [stops], "eos_token_id": None})
    assert torch.equal(found_BT[1], stock_BT[1])
    assert torch.equal(found_BT[0, : LENGTH + 2], stock_BT[0, : LENGTH + 2])
    assert (found_BT[0, LENGTH + 2 :] == PAD).all()


def test_stop_strings_end_an_answer_on_any_token_of_a_stretch() -> None:
    tokenizer = character_tokenizer((ascii_letters + digits)[:60])
    model = decisive("olmoe")
    assert len(tokenizer) <= model.config.vocab_size
    ids_BT = tokens(length=LENGTH)[:1].clamp_max(len(tokenizer) - 1)
    options = OPTIONS | {"eos_token_id": None, "suppress_tokens": [0, 1, 2, 3, *range(len(tokenizer), 64)]}
    free_BT = model.generate(input_ids=ids_BT, **options)
    lengths = set()
    for count in range(1, 7):
        text = tokenizer.decode(free_BT[0, LENGTH : LENGTH + count])[-1]
        stop: dict[str, Any] = {"stop_strings": [text], "tokenizer": tokenizer}
        stock_BT = model.generate(input_ids=ids_BT, **options, **stop)
        found = Rewiring(model=model, steps=0, every_tokens=3).generate(ids_BT, **options, **stop)
        assert torch.equal(found.sequences_BT, stock_BT)
        lengths.add(stock_BT.shape[1] - LENGTH)
    assert 3 in lengths


def test_a_constraint_keeps_the_number_of_its_item_when_another_has_ended() -> None:
    def allowed(item: int, ids_T: Tensor) -> list[int]:
        return [END] if item == 0 and len(ids_T) > LENGTH else [[5, 6, 7], [50, 51, 52]][item]

    stock_BT, found_BT = both({"prefix_allowed_tokens_fn": allowed})
    assert set(found_BT[1, LENGTH:].tolist()) <= {50, 51, 52}
    assert torch.equal(found_BT, stock_BT)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_processor_with_state_by_item_sees_every_item_at_every_step(sampled) -> None:
    def given() -> dict[str, Any]:
        stops = Lengths([LENGTH + 2, LENGTH + 99])
        return {"logits_processor": [Rows()], "stopping_criteria": [stops], "do_sample": sampled, "top_k": 0}

    stock_BT, found_BT = both(given(), given())
    assert torch.equal(found_BT, stock_BT)
    assert len(found_BT[1, LENGTH:].unique()) > 1


def test_a_criterion_gets_the_scores_of_the_whole_answer() -> None:
    counts: list[int] = []

    class Counts(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
            counts.append(len(scores))
            return torch.zeros(len(input_ids), dtype=torch.bool)

    Rewiring(model=decisive("olmoe"), steps=0, every_tokens=3).generate(
        tokens(length=LENGTH), **OPTIONS, stopping_criteria=[Counts()], output_scores=True
    )
    assert counts == list(range(1, NEW + 1))


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        ({}, {"stopping_criteria": [MaxLengthCriteria(3)]}, "MaxLengthCriteria.*pass max_new_tokens"),
        ({}, {"stopping_criteria": [EosTokenCriteria(3)]}, "EosTokenCriteria.*pass eos_token_id"),
        ({}, {"token_healing": True}, "token_healing means the whole of a call"),
        ({"is_cache_kept": True}, {"use_cache": False}, "cache that grows.*use_cache=False"),
        ({"is_cache_kept": True}, {"cache_implementation": "static"}, "cache that grows.*'static'"),
    ],
)
def test_what_can_not_be_had_in_stretches_is_refused(settings, options, words) -> None:
    rewiring = Rewiring(model=decisive("olmoe"), **settings)
    with pytest.raises(InputError, match=words):
        rewiring.generate(tokens(), max_new_tokens=4, **options)
