from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.nn.depth.duo.setup import make_choice, make_duo, make_ids
from turnout.nn.depth.duo import execute, naive
from turnout.nn.flops import executed_flops


def modules(num_choices: int) -> list[nn.Module | None]:
    torch.manual_seed(0)
    made: list[nn.Module | None] = [
        nn.Linear(5, 5),
        nn.Sequential(nn.Linear(5, 9), nn.GELU(), nn.Linear(9, 5)),
    ]
    return [*made, None][:num_choices]


def run(which: object, x_BTD: Tensor, choice_BT: Tensor, num_choices: int) -> tuple[Tensor, list[Tensor]]:
    parts = modules(num_choices)
    leaf_BTD = x_BTD.clone().requires_grad_()
    out_BTD = which.execute(leaf_BTD, choice_BT, parts)  # type: ignore[attr-defined]
    weights = [p for part in parts if part is not None for p in part.parameters()]
    # With the residual, as in a block: all-skip alone has no gradient at all.
    weighted_BTD = (out_BTD + leaf_BTD) * torch.arange(out_BTD.numel()).view_as(out_BTD)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        weighted_BTD.sum(), [leaf_BTD, *weights], allow_unused=True
    )
    zeros = [torch.zeros_like(t) for t in (leaf_BTD, *weights)]
    return out_BTD, [z if g is None else g for g, z in zip(found, zeros, strict=True)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 1), (5, 11)])
@pytest.mark.parametrize("num_choices", [2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_executor_equals_its_slow_twin_in_values_and_gradients(
    shape: tuple[int, int], num_choices: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(*shape, 5, generator=generator)
    choice_BT = torch.randint(num_choices, shape, generator=generator)
    fast, fast_gradients = run(execute, x_BTD, choice_BT, num_choices)
    slow, slow_gradients = run(naive, x_BTD, choice_BT, num_choices)
    torch.testing.assert_close(fast, slow)
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("only", [0, 1, 2])
def test_a_module_without_tokens_is_not_called(only: int) -> None:
    class Loud(nn.Module):
        def forward(self, x_BTD: Tensor) -> Tensor:
            raise RuntimeError("called")

    parts: list[nn.Module | None] = [Loud(), Loud(), None]
    if only < 2:
        parts[only] = nn.Identity()
    x_BTD = torch.randn(2, 3, 4)
    out_BTD = execute.execute(x_BTD, torch.full((2, 3), only), parts)
    assert torch.equal(out_BTD, torch.zeros_like(x_BTD) if only == 2 else x_BTD)


def test_mixed_small_and_skip_calls_no_big() -> None:
    parts: list[nn.Module | None] = [nn.Identity(), None, None]
    choice_BT = torch.tensor([[0, 2, 0]])
    x_BTD = torch.ones(1, 3, 2)
    assert execute.execute(x_BTD, choice_BT, parts)[0, :, 0].tolist() == [1, 0, 1]


def test_no_tokens_give_no_output() -> None:
    assert execute.execute(torch.zeros(0, 3, 5), torch.zeros(0, 3), modules(2)).shape == (0, 3, 5)


@pytest.mark.parametrize("allow_skip", [False, True])
def test_a_whole_model_equals_its_slow_twin(allow_skip: bool) -> None:
    duo = make_duo(allow_skip=allow_skip)
    ids_BT = make_ids(3, 7)
    found = []
    with duo.forced(make_choice(3, 7, choices=3 if allow_skip else 2)):
        for is_slow in (False, True):
            duo.model.zero_grad()
            duo.flow.is_slow = is_slow
            out = duo.model(input_ids=ids_BT, labels=ids_BT, use_cache=False)
            out.loss.backward()
            gradients = [None if p.grad is None else p.grad.clone() for p in duo.model.parameters()]
            found.append((out.logits, gradients))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_what_is_not_chosen_costs_nothing() -> None:
    duo = make_duo()
    ids_BT = make_ids(4, 6)

    def flops(choice: object, *, is_slow: bool = False) -> int:
        duo.flow.is_slow = is_slow
        with duo.forced(choice), torch.no_grad():
            return executed_flops(lambda: duo.model(input_ids=ids_BT, use_cache=False))[1]

    tokens, width, big, small = 24, 32, 96, 6
    counts = [flops([1] * k + [0] * (4 - k)) for k in range(5)]
    # Three products of width by inner width, two operations each.
    step = tokens * 3 * 2 * width * (big - small)
    assert [b - a for a, b in itertools.pairwise(counts)] == [step] * 4
    mixed_BTL = make_choice(4, 6)
    per_token = step // tokens
    assert flops(mixed_BTL) == counts[0] + int(mixed_BTL.sum()) * per_token
    assert flops(mixed_BTL, is_slow=True) > counts[4]
