"""Kernels are launched where their tensors are, and not where the process stands."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from turnout.nn.operation import current


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True
    device = torch.device("cuda", 1)


def test_the_first_tensor_on_a_gpu_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    def device(which: torch.device) -> nullcontext[None]:
        entered.append(which)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device", device)
    with current(3, torch.ones(2), torch.ones(2).as_subclass(Elsewhere), None):
        assert entered == [torch.device("cuda", 1)]
    with current(torch.ones(2), "no tensor"):
        assert len(entered) == 1
