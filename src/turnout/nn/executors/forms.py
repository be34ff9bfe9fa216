"""This module does one matrix product in the form that is fastest on this machine.

A library is not the fastest on every processor: for single precision torch asks MKL, which took twice as long
as oneDNN, which is in torch too, on a processor of another maker than MKL's. So the forms of a product are
timed once for each kind and class of rows, and the fastest is kept for the process. A result's last digits
depend on the form: under `torch.use_deterministic_algorithms` it is always torch's own.

Axes: N rows, K inputs, J outputs.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

Kind = Literal["outputs", "inputs", "weights"]
Form = Callable[[Tensor, Tensor], Tensor]

TURNS = 7
"""How often each form is timed, turn by turn; the least counts, since others may use the processor too."""

MARGIN = 0.85
"""Another form is taken only below this share of the time of torch's own."""

LARGE = 2**18
"""A weight with so many numbers is large: its form matters for any number of rows."""

MUCH = 2**24
"""So many multiplications are many, whatever the weight's size. Below both the form does not matter, and
nothing is timed."""

SIDE = 1024
"""The sides of the weights that forms are timed on."""

COLD = 12
"""So many weights take turns, 48 MB together, since an expert's weights are seldom in a cache."""

CLASSES = ((4, 3), (15, 10))
"""A class of rows: up to how many, and on how many it is timed. One row waits for memory in any form."""

MANY = 64
"""On so many rows the class of all larger numbers is timed."""


def outputs(x_NK: Tensor, weight_JK: Tensor) -> Tensor:
    """Return (N, J): x W^T; a packed weight has a form of its own."""
    if weight_JK.is_mkldnn:
        return _onednn(x_NK, weight_JK)
    return _form("outputs", x_NK.shape[0], weight_JK)(x_NK, weight_JK)


def inputs(dy_NJ: Tensor, weight_JK: Tensor) -> Tensor:
    """Return (N, K): dy W, the gradient in the inputs."""
    return _form("inputs", dy_NJ.shape[0], weight_JK)(dy_NJ, weight_JK)


def outputs_into(y_NJ: Tensor, x_NK: Tensor, weight_JK: Tensor) -> None:
    """Overwrite (N, J) by x W^T; a packed weight has a form of its own."""
    if weight_JK.is_mkldnn:
        y_NJ.copy_(_onednn(x_NK, weight_JK))
        return
    form = _form("outputs", x_NK.shape[0], weight_JK)
    if form is functional.linear and x_NK.dtype == y_NJ.dtype:
        torch.mm(x_NK, weight_JK.T, out=y_NJ)
    else:
        y_NJ.copy_(form(x_NK, weight_JK))


def inputs_into(dx_NK: Tensor, dy_NJ: Tensor, weight_JK: Tensor) -> None:
    """Overwrite (N, K) by dy W."""
    form = _form("inputs", dy_NJ.shape[0], weight_JK)
    if form is torch.matmul and dy_NJ.dtype == dx_NK.dtype:
        torch.mm(dy_NJ, weight_JK, out=dx_NK)
    else:
        dx_NK.copy_(form(dy_NJ, weight_JK))


def weights_into(grad_JK: Tensor, dy_NJ: Tensor, x_NK: Tensor) -> None:
    """Overwrite (J, K) by dy^T x, the gradient in the weights."""
    form = _form("weights", dy_NJ.shape[0], grad_JK)
    if form is _own_weights and dy_NJ.dtype == grad_JK.dtype:
        torch.mm(dy_NJ.T, x_NK, out=grad_JK)
    else:
        grad_JK.copy_(form(dy_NJ, x_NK))


def weights(dy_NJ: Tensor, x_NK: Tensor) -> Tensor:
    """Return (J, K): dy^T x."""
    # Both sides name the size of the gradient, which is not there yet.
    numbers, rows = dy_NJ.shape[1] * x_NK.shape[1], dy_NJ.shape[0]
    return _chosen("weights", rows, dy_NJ, numbers)(dy_NJ, x_NK)


def _form(kind: Kind, rows: int, weight_JK: Tensor) -> Form:
    return _chosen(kind, rows, weight_JK, weight_JK.numel())


def _chosen(kind: Kind, rows: int, like: Tensor, numbers: int) -> Form:
    forms = _FORMS[kind]
    is_large = numbers >= LARGE or rows * numbers >= MUCH
    is_open = is_large and rows > 1 and like.dtype == torch.float32 and like.device.type == "cpu"
    if (
        not is_open
        or torch.are_deterministic_algorithms_enabled()
        # Dynamo traces through the cache, and would time the forms in every pass.
        or torch.compiler.is_compiling()
        or not getattr(torch.backends.mkldnn, "enabled", True)
    ):
        return forms["own"]
    timed_rows = next((rows_timed for end, rows_timed in CLASSES if rows <= end), MANY)
    return forms[fastest(kind, timed_rows, torch.get_num_threads())]


@functools.cache
def fastest(kind: Kind, rows: int, _threads: int) -> str:
    """Return the name of the fastest form of a product in single precision; timed once."""
    # Whoever counts operations or keeps random numbers must not notice.
    with _disable_current_modes(), torch.inference_mode():
        left = torch.full((rows, SIDE), 0.5)
        right = (rows, SIDE) if kind == "weights" else (SIDE, SIDE)
        rights = itertools.cycle([torch.full(right, 0.5) for _ in range(COLD)])
        timed: dict[str, list[float]] = {name: [] for name in _FORMS[kind]}
        for _, (name, form) in itertools.product(range(TURNS + 1), _FORMS[kind].items()):
            timed[name].append(_seconds(form, left, next(rights)))
    # The first turn of each also prepares what later ones find prepared.
    best = {name: min(seconds[1:]) for name, seconds in timed.items()}
    quickest = min(best, key=best.__getitem__)
    return quickest if best[quickest] < MARGIN * best["own"] else "own"


def _seconds(form: Form, left: Tensor, right: Tensor) -> float:
    # The time of this thread alone does not count what others do meanwhile.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    try:
        form(left, right)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return float("inf")
    return clock() - start


def _onednn(x_NK: Tensor, weight_JK: Tensor) -> Tensor:
    # The product that `torch.compile` calls on a CPU; it takes any strides, and has no gradient.
    product: Any = torch.ops.mkldnn._linear_pointwise
    y_NJ: Tensor = product(x_NK, weight_JK, None, "none", [], "")
    return y_NJ


def _turned(x_NK: Tensor, weight_JK: Tensor) -> Tensor:
    # For a few rows one pass over the weight, where torch's own order makes several. In rows again, since a
    # product that reads columns is several times as slow.
    return (weight_JK @ x_NK.T).T.contiguous()


def _own_weights(dy_NJ: Tensor, x_NK: Tensor) -> Tensor:
    return dy_NJ.T @ x_NK


_FORMS: Mapping[Kind, Mapping[str, Form]] = {
    "outputs": {
        "own": functional.linear,
        "turned": _turned,
        "onednn": _onednn,
    },
    "inputs": {
        "own": torch.matmul,
        "onednn": lambda dy_NJ, weight_JK: _onednn(dy_NJ, weight_JK.T),
    },
    "weights": {"own": _own_weights, "onednn": lambda dy_NJ, x_NK: _onednn(dy_NJ.T, x_NK.T)},
}
