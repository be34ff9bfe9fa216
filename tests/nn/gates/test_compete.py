from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from turnout.core.errors import InputError, ShapeError
from turnout.nn.balance.switch import balance_loss
from turnout.nn.experts import Experts
from turnout.nn.gates.compete import CompeteGate
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.mixture import MoE

X_TD = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))


def gate_of(**settings):
    return CompeteGate(width=8, num_experts=5, **settings)


def experts() -> Experts:
    return Experts(width=8, inner=12, num_experts=5)


def answers(own: Experts) -> torch.Tensor:
    return torch.stack([own.stack().one(e, X_TD) for e in range(5)], dim=1)


@pytest.mark.parametrize("version", ["second", "first"])
def test_the_strongest_answers_win_a_competition(version: str) -> None:
    own, gate = experts(), gate_of(version=version, chance=1.0)
    plan = gate(X_TD, GateContext(experts=own))
    outs_TED = answers(own)
    if version == "second":
        strength_TE = functional.softplus(outs_TED).mean(-1)
        best_TK, winners_TK = strength_TE.topk(2)
        expected_TK = best_TK / best_TK.sum(1, keepdim=True)
    else:
        strength_TE = outs_TED.norm(dim=-1)
        best_TK, winners_TK = strength_TE.topk(2)
        expected_TK = best_TK.softmax(1)
    expected_TE = torch.zeros(60, 5).scatter(1, winners_TK, expected_TK)
    assert torch.allclose(plan.to_dense(), expected_TE, atol=1e-6)


@pytest.mark.parametrize("version", ["second", "first"])
def test_the_gate_learns_to_foretell_who_wins(version: str) -> None:
    own = experts()
    with torch.no_grad():
        own.down_proj.mul_(6)  # strong answers: softmax shares that differ
    gate = gate_of(k=1, version=version, chance=1.0)
    context = GateContext(experts=own)
    winners_T = gate(X_TD, context).experts_N[gate(X_TD, context).tokens_N.argsort()]

    def agreement() -> float:
        plan = gate.eval()(X_TD, context)
        gate.train()
        return float((plan.experts_N[plan.tokens_N.argsort()] == winners_T).float().mean())

    before, optimizer = agreement(), torch.optim.Adam(gate.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        gate(X_TD, context).losses["distil"].backward()
        optimizer.step()
    assert agreement() > max(0.4, before + 0.2)


def test_a_competition_teaches_the_experts_by_its_weights_and_the_gate_by_distillation_alone():
    layer: Any = MoE(gate=gate_of(chance=1.0), experts=experts())

    def taught(loss: torch.Tensor) -> list[bool]:
        layer.zero_grad()
        loss.backward(retain_graph=True)
        return [part.grad is not None for part in (layer.gate.weight_ED, layer.experts.up_proj)]

    assert taught(layer(X_TD).square().sum()) == [False, True]
    assert taught(layer.plan.losses["distil"]) == [True, False]


def test_diversity_is_the_mean_cosine_of_the_winners_pairs() -> None:
    own, gate = experts(), gate_of(k=3, chance=1.0)
    plan = gate(X_TD, GateContext(experts=own))
    _, indices_TK, _ = plan.to_choices()
    picked_TKD = answers(own).take_along_dim(indices_TK[..., None], 1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    cosines = [functional.cosine_similarity(picked_TKD[:, i], picked_TKD[:, j], dim=-1) for i, j in pairs]
    assert torch.allclose(plan.losses["diversity"], torch.stack(cosines).mean(), atol=1e-6)


def test_other_steps_and_eval_mode_are_those_of_an_ordinary_gate() -> None:
    own = experts()
    gate, plain = gate_of(chance=1.0, warm_up=2), TopKGate(width=8, num_experts=5)
    with torch.no_grad():
        plain.weight_ED.copy_(gate.weight_ED)
    expected_TE = plain(X_TD).to_dense()
    for _ in range(2):
        plan = gate(X_TD, GateContext(experts=own))
        assert torch.allclose(plan.to_dense(), expected_TE, atol=1e-6)
        assert set(plan.losses) == {"balance", "z"}
        gate.after_step()
    assert "distil" in gate(X_TD, GateContext(experts=own)).losses
    assert torch.allclose(gate.eval()(X_TD, GateContext(experts=own)).to_dense(), expected_TE, atol=1e-6)


def test_competitions_come_as_often_as_the_schedule_says() -> None:
    gate, context = gate_of(chance=0.3), GateContext(experts=experts())
    shares = ["distil" in gate(X_TD, context).losses for _ in range(400)]
    assert sum(shares) / 400 == pytest.approx(0.3, abs=0.07)
    falling = gate_of(version="first", chance=None, warm_up=1)
    assert falling.chance_now == 0.0
    found = []
    for _ in range(4):
        falling.after_step()
        found.append(falling.chance_now)
    assert found == pytest.approx([2 / 3, 2 / (2 + 2**0.5), 2 / (2 + 3**0.5), 0.5])


def test_padding_is_in_no_loss_and_experts_of_another_shape_are_refused() -> None:
    gate, own = gate_of(chance=1.0), experts()
    mask_BS = (torch.arange(60) < 20)[None]
    masked = gate(X_TD, GateContext(mask_BS=mask_BS, experts=own)).losses
    alone = gate(X_TD[:20], GateContext(experts=own)).losses
    assert all(torch.allclose(masked[name], alone[name]) for name in alone)
    with pytest.raises(ShapeError, match=r"\(E, D\) = \(5, 8\)"):
        gate(X_TD, GateContext(experts=Experts(width=8, inner=4, num_experts=4)))
    with pytest.raises(InputError, match="a context with experts"):
        gate(X_TD)


@pytest.mark.parametrize("version", ["second", "first"])
def test_the_losses_of_a_competition_are_the_published_ones(version: str) -> None:
    """The first version's goal is the winners' softmax, 0 for others; the second's that of all responses.

    In the second the winners count `theta` times more, and what is balanced is the responses, not the gate.
    """
    own, gate = experts(), gate_of(version=version, chance=1.0, theta=0.7)
    with torch.no_grad():
        own.down_proj.mul_(6)
    losses = gate(X_TD, GateContext(experts=own)).losses
    gate_TE = (X_TD @ gate.weight_ED.T).softmax(-1)
    response_TE = gate.responses(answers(own))
    best_TK, winners_TK = response_TE.topk(2)
    share_TE = response_TE.softmax(-1)
    if version == "first":
        goal_TE = torch.zeros(60, 5).scatter(1, winners_TK, best_TK.softmax(-1))
        expected = (gate_TE - goal_TE).square().mean()
    else:
        gap_TE = (gate_TE - share_TE).square()
        expected = gap_TE.mean() + 0.7 * gap_TE.gather(1, winners_TK).mean()
    assert torch.allclose(losses["distil"], expected, rtol=1e-4)
    won_TE = torch.zeros(60, 5, dtype=torch.bool).scatter(1, winners_TK, value=True)
    assert torch.allclose(losses["balance"], balance_loss(share_TE, won_TE), rtol=1e-4)
    assert not torch.allclose(losses["balance"], balance_loss(gate_TE, won_TE), rtol=1e-3)
