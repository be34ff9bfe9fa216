"""On a GPU every gate keeps its promises, and every loss is that of a processor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from tests.nn.gpu.here import DEVICE, IS_CUDA, far, needs_gpu, nobody_waits
from turnout.checks import check_gate, run
from turnout.core.errors import InputError
from turnout.nn import registry
from turnout.nn.balance.assignment import assign
from turnout.nn.balance.bias import LossFreeBias
from turnout.nn.balance.coupling import coupling_loss
from turnout.nn.balance.dirichlet import prior_loss
from turnout.nn.balance.dual import dual_point
from turnout.nn.balance.quantile import quantile_prices
from turnout.nn.balance.sinkhorn import sinkhorn
from turnout.nn.balance.switch import balance_loss
from turnout.nn.balance.variance import importance_loss, load_loss
from turnout.nn.balance.z_loss import z_loss
from turnout.nn.best import best_of
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import Gate, GateContext, chosen, fp32_logits
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.gradients.sparse_mixer import sparse_mixer
from turnout.nn.gradients.straight_through import gumbel_one_hot
from turnout.nn.late import refuse_arrived, same, wrong_rows
from turnout.nn.mixture import MoE

pytestmark = needs_gpu

GATES = [name for name in registry if issubclass(registry.get(name), Gate)]
MASK_T = torch.arange(24) % 5 > 0
ITEMS_T = torch.arange(24) // 8

LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda z: balance_loss(z.softmax(-1), chosen(z.topk(2)[1], 8), mask_T=MASK_T.to(z.device)),
    "sigmoid, by item": lambda z: balance_loss(
        z.sigmoid(), chosen(z.topk(2)[1], 8), kind="sigmoid", items_T=ITEMS_T.to(z.device)
    ),
    "relu": lambda z: balance_loss(z.relu(), z > 0, kind="relu", k=2),
    "z": lambda z: z_loss(z, mask_T=MASK_T.to(z.device)),
    "importance": lambda z: importance_loss(z.softmax(-1), mask_T=MASK_T.to(z.device)),
    "load": lambda z: load_loss(z, z + 0.1, torch.ones_like(z), 2, mask_T=MASK_T.to(z.device)),
    "prior": lambda z: prior_loss(z.softmax(-1), torch.ones(8, dtype=torch.float64, device=z.device)),
    "coupling": lambda z: coupling_loss(
        z[:8, :4], torch.arange(64.0, device=z.device).view(8, 2, 4).sin(), is_noisy=False
    ),
    "sinkhorn": lambda z: sinkhorn(z).square().sum(),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_keeps_its_promises(name) -> None:
    torch.manual_seed(0)
    report = run(check_gate(registry.get(name)(width=16, num_experts=8).to(DEVICE)))
    assert report.is_clean, str(report)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_and_its_gradient_are_those_of_a_processor(name) -> None:
    logits_TE = torch.randn(24, 8)
    found = []
    for device in (torch.device("cpu"), DEVICE):
        z_TE = logits_TE.to(device).requires_grad_()
        loss = LOSSES[name](z_TE)
        found.append((loss, *torch.autograd.grad(loss, z_TE)))
    for one, other in zip(*found, strict=True):
        assert far(other, one) < 1e-4


def test_biases_prices_and_assignments_are_those_of_a_processor() -> None:
    scores_TE = torch.rand(24, 8)
    found = []
    for device in (torch.device("cpu"), DEVICE):
        s_TE = scores_TE.to(device)
        bias_E, balance = torch.zeros(8, device=device), LossFreeBias(num_experts=8, step=0.1).to(device)
        for _ in range(3):
            balance.observe(chosen((s_TE + bias_E).topk(2)[1], 8).sum(dim=0))
            balance.update(bias_E)
        prices_E = quantile_prices(s_TE, torch.zeros(8, device=device), 2)
        found.append((bias_E, prices_E, assign(s_TE).experts_T, dual_point(s_TE, bias_E, 2).violation_E))
    for one, other in zip(*found, strict=True):
        assert other.device.type == DEVICE.type
        assert torch.allclose(other.cpu().double(), one.double(), atol=1e-5)


def test_estimators_draw_on_the_device() -> None:
    z_TE = torch.randn(4096, 8, device=DEVICE)
    for weights_TK, indices_TK in (sparse_mixer(z_TE, 2), (gumbel_one_hot(z_TE), z_TE)):
        assert weights_TK.device == indices_TK.device == z_TE.device
    share_E = gumbel_one_hot(z_TE[:1].expand(4096, -1)).mean(dim=0)
    assert torch.allclose(share_E, z_TE[0].softmax(-1), atol=0.05)


@pytest.mark.parametrize(("num_experts", "k"), [(64, 8), (128, 8), (7, 3), (1, 1)])
def test_the_best_are_those_of_torch(num_experts, k) -> None:
    score_TE = torch.randn(3000, num_experts, device=DEVICE)
    assert torch.equal(best_of(score_TE, k), score_TE.topk(k, dim=-1)[1])


@pytest.mark.parametrize("gate_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_have_the_digits_of_single_precision(dtype, gate_dtype) -> None:
    x_TD = torch.randn(513, 2048, device=DEVICE).to(dtype)
    weight_ED = (torch.randn(64, 2048, device=DEVICE) * 0.02).to(gate_dtype)
    found = []
    for exact in (torch.float32, torch.float64):
        x, weight = x_TD.clone().requires_grad_(), weight_ED.clone().requires_grad_()
        y_TE = fp32_logits(x, weight) if exact == torch.float32 else x.to(exact) @ weight.to(exact).T
        found.append((y_TE, *torch.autograd.grad(y_TE.square().sum(), (x, weight))))
    assert found[0][0].dtype == torch.float32
    for one, other, kind in zip(*found, (torch.float32, dtype, gate_dtype), strict=True):
        assert far(one, other) < (1e-5 if kind == torch.float32 else 4e-3)


def test_what_is_no_number_is_refused_without_waiting() -> None:
    gate, x_TD = TopKGate(width=16, num_experts=8).to(DEVICE), torch.randn(6, 16, device=DEVICE)
    broken_TD = x_TD.clone()
    broken_TD[1, 0] = torch.nan
    if IS_CUDA:
        with nobody_waits():
            gate(broken_TD)
        torch.cuda.synchronize()
        with pytest.raises(InputError, match="logits of a token of this or an earlier pass are NaN"):
            gate(x_TD)
    gate(x_TD)
    refuse_arrived(wait=True)
    nothing = GateContext(mask_BS=torch.zeros(1, 6, dtype=torch.bool, device=DEVICE))

    def masked() -> None:
        gate(x_TD, nothing)
        refuse_arrived(wait=True)

    with pytest.raises(InputError, match="all tokens are masked"):
        masked()


def test_who_looks_for_what_is_no_number_copies_nothing() -> None:
    if not IS_CUDA:
        pytest.skip("a processor is asked at once")
    value_TX = torch.randn(3000, 64, device=DEVICE)
    error = same(InputError, "no number")
    # The first call also finds out whether the kernel works.
    assert wrong_rows(error, value_TX, may_close=True) == {}
    for broken in (value_TX, value_TX.clone()):
        if broken is not value_TX:
            broken[2999, 63] = torch.nan
        with nobody_waits():
            assert wrong_rows(error, broken, may_close=True) == {}
        with pytest.raises(InputError, match="no number") if broken is not value_TX else nullcontext():
            refuse_arrived(wait=True)


def test_mixed_devices_are_refused_in_a_sentence() -> None:
    gate = TopKGate(width=16, num_experts=8).to(DEVICE)
    other = "cpu" if IS_CUDA else "meta"
    with pytest.raises(InputError, match="the parts are on several devices"):
        gate(torch.randn(6, 16, device=other))


@pytest.mark.parametrize("name", ["top_k", "switch", "loss_free", "relu", "soft", "smear"])
def test_a_layer_learns_under_autocast(name) -> None:
    gate = registry.get(name)(width=32, num_experts=8)
    layer = MoE(gate=gate, experts=Experts(width=32, inner=16, num_experts=8)).to(DEVICE)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
    x_BSD, losses = torch.randn(4, 16, 32, device=DEVICE), []
    for _ in range(12):
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = (layer(x_BSD).float() - x_BSD.flip(-1)).square().mean()
        assert layer.plan is not None
        (loss + 0.01 * sum(layer.plan.losses.values())).backward()
        optimizer.step()
        optimizer.zero_grad()
        gate.after_step()
        losses.append(float(loss.detach()))
    refuse_arrived(wait=True)
    assert losses[-1] < 0.8 * losses[0]
