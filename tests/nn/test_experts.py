"""Experts of families that keep their weights in ways of their own are run by executors too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import DbrxConfig, Llama4TextConfig
from transformers.models.dbrx.modeling_dbrx import DbrxExperts
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig
from transformers.models.step3p7.modeling_step3p7 import Step3p7Experts

from turnout.core.errors import InputError
from turnout.nn.executors.auto import EXECUTORS, make_executor
from turnout.nn.experts import stack_of
from turnout.nn.plan import SparsePlan


def dbrx() -> nn.Module:
    sizes = {"hidden_size": 32, "ffn_hidden_size": 24, "moe_num_experts": 6, "moe_top_k": 2}
    return DbrxExperts(DbrxConfig(d_model=32, ffn_config=sizes).ffn_config)


def step() -> nn.Module:
    return Step3p7Experts(_step(), swiglu_limit=None)


def limited_step() -> nn.Module:
    return Step3p7Experts(_step(), swiglu_limit=0.5)


def _step() -> Step3p7TextConfig:
    config = Step3p7TextConfig(hidden_size=32, moe_intermediate_size=24)
    config.num_local_experts = 6
    return config


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("make", [dbrx, step, limited_step])
def test_outputs_and_gradients_are_the_family_s(make: Callable[[], nn.Module], executor: str) -> None:
    torch.manual_seed(0)
    experts = make().eval()
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.2)
    x_TD, weights_TK = torch.randn(37, 32), torch.rand(37, 2)
    indices_TK = torch.rand(37, 6).argsort(1)[:, :2]
    plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=6)
    theirs_TD = experts(x_TD, indices_TK, weights_TK).reshape(37, 32)
    ours_TD = make_executor(executor).run(x_TD, plan, experts)
    torch.testing.assert_close(ours_TD, theirs_TD, rtol=1e-4, atol=1e-4)
    parameters = list(experts.parameters())
    grads = [torch.autograd.grad(y.square().sum(), parameters) for y in (ours_TD, theirs_TD)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_experts_whose_weights_multiply_what_goes_in_are_refused() -> None:
    experts = Llama4TextExperts(Llama4TextConfig(hidden_size=32, intermediate_size=16, num_local_experts=4))
    with pytest.raises(InputError, match="not stacked as executors read it"):
        stack_of(experts)
