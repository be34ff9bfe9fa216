"""Where autocast is followed, experts multiply in half precision, and gradients are of the weights' own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.nn.executors.test_fast import plans, require_same
from turnout.nn.executors import contract
from turnout.nn.executors.auto import EXECUTORS, make_executor
from turnout.nn.experts import Experts


class Watched(Experts):
    """Experts that note in which precision they are active."""

    def __init__(self, **config) -> None:
        super().__init__(**config, activation="gelu", has_bias=True)
        self.seen = SimpleNamespace(dtypes=set())

    def activate(self, h_NF):
        self.seen.dtypes.add(h_NF.dtype)
        return super().activate(h_NF)


@pytest.mark.parametrize("name", sorted(EXECUTORS))
def test_experts_of_single_precision_are_multiplied_in_half_under_autocast(name, monkeypatch) -> None:
    monkeypatch.setattr(contract, "AUTOCAST", ("cpu",))
    experts, plan, found = Watched(width=16, inner=8, num_experts=6), plans(11)["spread"], []
    x_TD = torch.randn(11, 16, requires_grad=True)
    leaves = {"x": x_TD, "weights": plan.weights_N} | dict(experts.named_parameters())
    for is_autocast in (False, True):
        experts.seen.dtypes.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            y_TD = make_executor(name).run(x_TD, plan, experts)
        assert experts.seen.dtypes == {torch.bfloat16 if is_autocast else torch.float32}
        grads = torch.autograd.grad(y_TD.square().sum(), list(leaves.values()))
        found.append({"y": y_TD.detach()} | dict(zip(leaves, grads, strict=True)))
    require_same(found[1], {key: value.float() for key, value in found[0].items()}, torch.bfloat16)
    assert {value.dtype for value in found[1].values()} == {torch.float32}


def test_experts_of_half_precision_are_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(contract, "AUTOCAST", ("cpu",))
    experts = Experts(width=16, inner=8, num_experts=6).to(torch.float16)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        y_TD = make_executor("segments").run(torch.randn(11, 16), plans(11)["spread"], experts)
    assert y_TD.dtype == torch.float32
