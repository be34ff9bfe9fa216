"""This module descends the loss of a torch network by Adam, and stops where held-out rows say so.

Every random number comes from the generator that is handed in, never from torch's global state, so that a
fit neither disturbs nor depends on anything else in the process. Rows come in the order of `learn_ground`,
so the result does not depend on the order of a table.

Source: D. P. Kingma, J. Ba, "Adam", ICLR 2015, algorithm 1; I. Loshchilov, F. Hutter, "Decoupled weight
decay regularization", ICLR 2019, algorithm 2; L. Prechelt, "Early stopping - but when?", 1998.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from turnout.core.outcomes import Ints

_HELD_OUT = 0.2
_MIN_HELD_OUT, _MAX_HELD_OUT = 5, 2_000
_NUM_CHECKS = 20
_PATIENCE = 5


@dataclass(frozen=True, slots=True)
class TorchDescent:
    """How to descend."""

    rate: float = 0.01
    decay: float = 1e-4
    """Weight decay per step, in units of the rate."""
    batch_size: int = 256
    effort: float = 5.0
    """The number of steps is this times the number of rows to the power 0.6, at most `max_steps`."""
    max_steps: int = 1_500

    def run(
        self,
        net: nn.Module,
        loss: Callable[[Tensor], Tensor],
        error: Callable[[Tensor], Tensor],
        num_rows: int,
        rng: np.random.Generator,
    ) -> Ints:
        """Leave the network at the step of least `error` on held-out rows; returns those rows, sorted.

        `loss` and `error` take row numbers. A fifth of the rows is held out; with less than five of them,
        all are learned, the last step counts, and what is returned is empty.
        """
        order = rng.permutation(num_rows)
        num_out = min(int(_HELD_OUT * num_rows), _MAX_HELD_OUT)
        num_out = num_out if num_out >= _MIN_HELD_OUT else 0
        held_out, rows = np.sort(order[:num_out]), np.sort(order[num_out:])
        num_steps = max(min(int(self.effort * rows.size**0.6), self.max_steps), 1)
        adam = _Adam(list(net.parameters()), self.decay)
        best = _Best(net, error, torch.from_numpy(held_out))
        every = max(num_steps // _NUM_CHECKS, 1)
        for step in range(1, num_steps + 1):
            batch = rows
            if rows.size > self.batch_size:
                batch = np.sort(rng.choice(rows, self.batch_size, replace=False))
            net.zero_grad()
            loss(torch.from_numpy(batch)).backward()  # type: ignore[no-untyped-call]
            # The rate falls to zero along a cosine, so that the last steps settle.
            adam.step(self.rate * 0.5 * (1.0 + np.cos(np.pi * (step - 1) / num_steps)))
            if num_out and step % every == 0 and best.is_done():
                break
        best.take()
        return held_out


class _Adam:
    """Adam with decoupled decay; that of `torch.optim` first imports a compiler, which takes seconds."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay, self._num = parameters, decay, 0
        self._first = [torch.zeros_like(parameter) for parameter in parameters]
        self._second = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        self._num += 1
        for parameter, first, second in zip(self._parameters, self._first, self._second, strict=True):
            if parameter.grad is None:
                continue
            first.lerp_(parameter.grad, 0.1)
            second.lerp_(parameter.grad.square(), 0.001)
            size = (second / (1.0 - 0.999**self._num)).sqrt_().add_(1e-8)
            parameter.mul_(1.0 - rate * self._decay)
            parameter.addcdiv_(first, size, value=-rate / (1.0 - 0.9**self._num))


class _Best:
    """The parameters of least error so far; those of the start may be the best."""

    def __init__(self, net: nn.Module, error: Callable[[Tensor], Tensor], rows: Tensor) -> None:
        self._net, self._error, self._rows = net, error, rows
        self._least, self._num_worse = float("inf"), 0
        self._state: dict[str, Tensor] = {}
        if rows.numel():
            self.is_done()

    def is_done(self) -> bool:
        """Whether the error has not fallen for a while."""
        self._net.eval()
        with torch.no_grad():
            found = float(self._error(self._rows))
        self._net.train()
        if found < self._least:
            self._least, self._num_worse = found, 0
            self._state = {name: value.clone() for name, value in self._net.state_dict().items()}
            return False
        self._num_worse += 1
        return self._num_worse >= _PATIENCE

    def take(self) -> None:
        """Put the best parameters into the network, which is left in its mode of answering."""
        if self._state:
            self._net.load_state_dict(self._state)
        self._net.eval()


def tensor(array: np.ndarray) -> Tensor:
    """Return the array in single precision."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def generator(rng: np.random.Generator) -> torch.Generator:
    """Return a generator of torch that is seeded by this one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def arrays_of(net: nn.Module) -> dict[str, np.ndarray]:
    """Return the parameters by name."""
    return {name: value.detach().numpy().copy() for name, value in net.state_dict().items()}
