"""What rewiring refuses: settings out of range, families without a gate, what is no batch, no numbers."""

from __future__ import annotations

import pytest
import torch

from tests.nn.moe_models import decisive, tokens
from turnout.core.errors import InputError, ShapeError
from turnout.nn.depth import RoutedDepth
from turnout.nn.testtime.rewiring import Rewiring
from turnout.nn.tiny import tiny_llama


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": -1}, "steps; allowed"),
        ({"steps": 1.5}, "steps; allowed"),
        ({"steps": True}, "steps; allowed"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": "a"}, "step_size; allowed"),
        ({"step_size": float("nan")}, "step_size; allowed"),
        ({"fraction": "x"}, "fraction; allowed"),
        ({"layers": ["hard"]}, "layers; allowed"),
        ({"every_tokens": 0}, "every_tokens"),
        ({"layers": "some"}, "layers"),
        ({"select": "best"}, "select"),
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.01}, "fraction"),
        ({"where": "weights"}, "where"),
        ({"optimizer": "lion"}, "optimizer"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, words) -> None:
    with pytest.raises(InputError, match=words):
        Rewiring(model=decisive("olmoe"), **arguments)


def test_a_family_without_a_gate_is_refused() -> None:
    with pytest.raises(InputError, match="without a gate"):
        Rewiring(model=tiny_llama(vocab_size=16, layers=1))


@pytest.mark.parametrize(
    ("ids_BT", "mask_BT"),
    [
        (torch.zeros(1, 0, dtype=torch.long), None),
        (torch.ones(1, 1, dtype=torch.long), None),
        (torch.ones(2, 4, dtype=torch.long), torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1]])),
        (torch.ones(1, 3, dtype=torch.long), torch.tensor([[1, 0, 1]])),
    ],
    ids=["no token", "one token", "one masked down to one", "no two in a row"],
)
def test_a_prompt_without_a_next_token_is_refused(ids_BT, mask_BT) -> None:
    rewiring = Rewiring(model=decisive("olmoe"))
    with pytest.raises(InputError, match="no next token"):
        rewiring.adapt(ids_BT, mask_BT)
    with pytest.raises(InputError, match="no next token"):
        rewiring.generate(ids_BT, mask_BT, max_new_tokens=1)


def test_shapes_that_do_not_fit_are_refused() -> None:
    rewiring = Rewiring(model=decisive("olmoe"))
    with pytest.raises(ShapeError, match="attention_mask"):
        rewiring.adapt(tokens(), torch.ones(2, 3))
    with pytest.raises(ShapeError, match="deltas"):
        rewiring.adapt(tokens(), start=rewiring.zeros(3))
    with pytest.raises(InputError, match="at least one item"):
        rewiring.adapt(torch.ones(0, 4, dtype=torch.long))


def test_vectors_of_items_are_refused_where_a_block_sees_some_of_them() -> None:
    """Depth that differs between the items of a batch calls a block with those that it is for."""
    model = decisive("olmoe")
    rewiring = Rewiring(model=model)
    routed = RoutedDepth(model=model)
    deltas = rewiring.zeros(2)
    with (
        rewiring.applied(deltas),
        routed.forced([[1, 0, 1], [1, 1, 1]]),
        pytest.raises(ShapeError, match=r"got: 'B = 1, .*give all one depth"),
    ):
        model(tokens(batch=2))
    with rewiring.applied(deltas), routed.forced([1, 0, 1]):
        model(tokens(batch=2))


@pytest.mark.parametrize(
    ("ids_BT", "mask_BT", "words"),
    [
        ([[1, 2, 3]], None, "input_ids; allowed: a tensor of whole numbers; got: 'list'"),
        (torch.rand(1, 3), None, "got: 'torch.float32'"),
        (torch.ones(1, 3, dtype=torch.long), torch.full((1, 3), 2), "attention_mask; allowed: 0 and 1"),
    ],
)
def test_what_is_no_batch_of_ids_and_mask_is_refused(ids_BT, mask_BT, words) -> None:
    rewiring = Rewiring(model=decisive("olmoe"))
    with pytest.raises(InputError, match=words):
        rewiring.adapt(ids_BT, mask_BT)
    with pytest.raises(InputError, match=words):
        rewiring.generate(ids_BT, mask_BT, max_new_tokens=1)


def test_vectors_and_losses_that_are_no_numbers_are_refused() -> None:
    model = decisive("olmoe")
    rewiring = Rewiring(model=model)
    nothing = [delta_BE * torch.nan for delta_BE in rewiring.zeros(2)]
    with pytest.raises(InputError, match="start; allowed: finite numbers"):
        rewiring.adapt(tokens(), start=nothing)
    with pytest.raises(InputError, match="deltas; allowed: finite numbers"), rewiring.applied(nothing):
        pass
    with torch.no_grad():
        model.lm_head.weight[0] = torch.nan
    for layers in ("all", "hard"):
        broken = Rewiring(model=model, layers=layers)
        with pytest.raises(InputError, match=r"loss of a context; allowed: finite.*take smaller steps"):
            broken.adapt(tokens())


@pytest.mark.parametrize(
    "options", [{"num_beams": 2}, {"num_return_sequences": 2}, {"max_length": 9}, {"max_new_tokens": 0}]
)
def test_generation_that_makes_no_sense_is_refused(options) -> None:
    rewiring = Rewiring(model=decisive("olmoe"))
    with pytest.raises(InputError, match=next(iter(options))):
        rewiring.generate(tokens(), **{"max_new_tokens": 4, "do_sample": True, **options})


WHOLE = [
    {"forced_eos_token_id": 2},
    {"begin_suppress_tokens": [3, 4]},
    {"encoder_repetition_penalty": 1.5},
    {"exponential_decay_length_penalty": (2, 1.5)},
    {"guidance_scale": 1.5},
    {"max_time": 5.0},
]


@pytest.mark.parametrize("option", WHOLE, ids=lambda option: next(iter(option)))
@pytest.mark.parametrize("where", ["call", "model"])
def test_what_means_the_whole_answer_is_refused(option, where) -> None:
    """A stretch would take its own start and end for those of the answer, and write another one."""
    model = decisive("olmoe")
    if where == "model":
        model.generation_config.update(**option)
    rewiring = Rewiring(model=model, steps=0, every_tokens=3)
    with pytest.raises(InputError, match=f"{next(iter(option))} means the whole of a call"):
        rewiring.generate(tokens(), max_new_tokens=9, **(option if where == "call" else {}))


def test_prompts_padded_on_the_right_are_refused() -> None:
    """The new tokens would stand after the padding."""
    mask_BT = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    rewiring = Rewiring(model=decisive("olmoe"), steps=1)
    with pytest.raises(InputError, match="padding of prompts; allowed: on the left"):
        rewiring.generate(tokens(batch=2, length=4), mask_BT, max_new_tokens=1)
