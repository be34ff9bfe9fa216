from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from turnout.core.errors import InputError
from turnout.nn import registry
from turnout.nn.depth.drllm.router import DrLLMRouter

HIDDEN_BTD = torch.randn(6, 19, 16, generator=torch.Generator().manual_seed(0)) * 4
KEY = "heads.0.0.weight"
MASK_BT = torch.ones(6, 19, dtype=torch.bool)


def decide(router: DrLLMRouter, layer: int = 1) -> torch.Tensor:
    return router.decide(layer, HIDDEN_BTD, MASK_BT, router.plan(HIDDEN_BTD, MASK_BT))


def test_each_block_has_the_published_network_and_start() -> None:
    router = DrLLMRouter(layers=3, width=16)
    assert registry.get("drllm") is DrLLMRouter
    assert len(router.heads) == 3
    heads: Any = router.heads
    first, middle, last = heads[0]
    assert (first.in_features, first.out_features, last.out_features) == (16, 128, 3)
    assert isinstance(middle, nn.GELU)
    assert middle.approximate == "tanh"
    bound = math.sqrt(6 / (16 + 128))
    assert bound * 0.95 < first.weight.abs().max() <= bound
    assert not first.bias.any()
    assert not last.bias.any()
    assert not torch.equal(first.weight, heads[1][0].weight)


def test_logits_are_averaged_over_windows_and_not_the_windows() -> None:
    router = DrLLMRouter(layers=2, width=16)
    head = router.heads[1]
    means = torch.stack([HIDDEN_BTD[:, 2 * j : 2 * j + 2].mean(1) for j in range(8)], dim=1)
    parts = router.plan(HIDDEN_BTD, MASK_BT)
    found_BC = router.logits(1, parts.means(HIDDEN_BTD), parts)
    torch.testing.assert_close(found_BC, head(means).mean(1))
    assert not torch.allclose(found_BC, head(means.mean(1)), atol=1e-3)
    assert torch.equal(decide(router), found_BC.argmax(-1))


def test_the_knob_is_neutral_at_zero_and_at_the_published_minus_a_half() -> None:
    plain = decide(DrLLMRouter(layers=2, width=16))
    assert torch.equal(decide(DrLLMRouter(layers=2, width=16, knob=-0.5, is_published=True)), plain)
    assert len(plain.unique()) > 1
    assert not torch.equal(decide(DrLLMRouter(layers=2, width=16, knob=0.0, is_published=True)), plain)


@pytest.mark.parametrize(("knob", "count"), [(-1.0, 0), (2 / 3, 1), (1.0, 2)])
def test_the_knob_reaches_all_skip_all_execute_and_all_repeat(knob: float, count: int) -> None:
    router = DrLLMRouter(layers=2, width=16)
    router.set_knob(knob)
    assert decide(router).tolist() == [count] * 6


def test_same_seed_same_router() -> None:
    first, second, other = (DrLLMRouter(layers=2, width=16, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.state_dict()[KEY], second.state_dict()[KEY])
    assert not torch.equal(first.state_dict()[KEY], other.state_dict()[KEY])


@pytest.mark.parametrize(
    "bad", [{"knob": 1.1}, {"layers": 0}, {"width": 0}, {"width": "a"}, {"bottleneck": 2.5}, {"windows": 0}]
)
def test_arguments_out_of_range_are_refused(bad: dict) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        DrLLMRouter(**{"layers": 2, "width": 16, **bad})


@pytest.mark.parametrize("knob", [-0.2, 0.0, 0.4, 1.0])
def test_without_repeats_the_better_of_skip_and_execute_is_taken(knob: float) -> None:
    router = DrLLMRouter(layers=2, width=8, knob=knob, seed=3)
    once = DrLLMRouter(layers=2, width=8, knob=knob, seed=3, repeats=False)
    hidden_BTD = 4 * torch.randn(64, 9, 8, generator=torch.Generator().manual_seed(0))
    mask_BT = torch.ones(64, 9, dtype=torch.bool)
    for layer in range(2):
        both = [
            one.decide(layer, hidden_BTD, mask_BT, one.plan(hidden_BTD, mask_BT)) for one in (router, once)
        ]
        assert int(both[1].max()) <= 1
        is_once_B = both[0] < 2
        assert torch.equal(both[0][is_once_B], both[1][is_once_B])
    assert DrLLMRouter(**once.config()).repeats is False
