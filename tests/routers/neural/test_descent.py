"""Descent of torch losses: the published step, held-out rows that stay held out, no global chance."""

from __future__ import annotations

import numpy as np
import torch

from turnout.routers.neural.descent import TorchDescent, arrays_of, generator, tensor


class Line(torch.nn.Module):
    def __init__(self, start: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(start))


def test_a_step_is_that_of_adam_with_decoupled_decay() -> None:
    net = Line([1.0, -2.0, 0.5])
    # Four rows: none is held out, and every step sees all of them.
    descent = TorchDescent(rate=0.05, decay=0.1, effort=12.0 / 4**0.6 + 1e-9)
    held_out = descent.run(
        net, lambda _: (net.weight**3).sum(), lambda _: torch.zeros(()), 4, np.random.default_rng(0)
    )
    assert held_out.size == 0
    w, first, second = np.array([1.0, -2.0, 0.5]), np.zeros(3), np.zeros(3)
    for step in range(1, 13):
        slope = 3.0 * w**2
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        rate = 0.05 * 0.5 * (1.0 + np.cos(np.pi * (step - 1) / 12))
        mean, size = first / (1.0 - 0.9**step), np.sqrt(second / (1.0 - 0.999**step)) + 1e-8
        w = w - rate * (mean / size + 0.1 * w)
    np.testing.assert_allclose(arrays_of(net)["weight"], w, rtol=1e-5)


def test_held_out_rows_are_never_learned_and_the_best_step_counts() -> None:
    net, learned, asked, weights = Line([1.0]), set(), set(), []

    def loss(rows: torch.Tensor) -> torch.Tensor:
        learned.update(rows.tolist())
        return net.weight.sum()

    def error(rows: torch.Tensor) -> torch.Tensor:
        asked.update(rows.tolist())
        weights.append(float(net.weight.detach()))
        return (net.weight - 0.6).abs().sum()

    held_out = TorchDescent(rate=0.1).run(net, loss, error, 100, np.random.default_rng(0))
    assert set(held_out.tolist()) == asked
    assert len(asked) == 20
    assert learned == set(range(100)) - asked
    # The loss has no end; the error was least near 0.6, and the parameters of that step are kept.
    assert float(net.weight.detach()) == min(weights, key=lambda w: abs(w - 0.6))
    assert min(weights) < 0.2


def descend_by_chance(net: Line, rng: np.random.Generator) -> None:
    chance = generator(rng)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return (net.weight * torch.rand(1, generator=chance)).sum()

    TorchDescent().run(net, loss, lambda rows: torch.zeros(()), 40, rng)


def test_a_descent_neither_reads_nor_moves_the_chance_of_the_process() -> None:
    before = torch.random.get_rng_state()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        net, rng = Line([1.0]), np.random.default_rng(3)
        descend_by_chance(net, rng)
        assert torch.equal(torch.random.get_rng_state(), torch.manual_seed(seed).get_state())
        found.append(arrays_of(net)["weight"])
    np.testing.assert_array_equal(found[0], found[1])
    torch.random.set_rng_state(before)


def test_tensors_are_single_precision() -> None:
    assert tensor(np.ones((2, 2))[:, ::-1]).dtype == torch.float32
