from __future__ import annotations

import pytest
import torch

from turnout.nn.gates.loss_free import LossFreeGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(512, 8, generator=torch.Generator().manual_seed(0)) + 1.0


def skewed(cls: type[LossFreeGate] | type[TopKGate]) -> LossFreeGate | TopKGate:
    """Return a gate whose first expert is everybody's favourite."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        gate = cls(width=8, num_experts=8, k=2)
        with torch.no_grad():
            weight = next(gate.parameters())
            weight[0] += 0.1
    return gate


def max_vio(gate: LossFreeGate | TopKGate) -> float:
    counts_E = gate(X_TD).counts_E.float()
    return float(counts_E.max() / counts_E.mean()) - 1


def test_the_bias_evens_the_load_and_the_weights_do_not_know_of_it() -> None:
    gate, rival = skewed(LossFreeGate), skewed(TopKGate)
    before = max_vio(gate)
    for _ in range(400):
        for one in (gate, rival):
            one(X_TD)
            one.after_step()
    assert before > 1
    assert max_vio(gate) < 0.1
    assert max_vio(rival) > 1
    plan = gate(X_TD)
    assert torch.equal(plan.weights_N, plan.scores_TE[plan.tokens_N, plan.experts_N])


def test_a_step_is_u_long_and_away_from_the_load() -> None:
    gate = LossFreeGate(width=4, num_experts=2, k=1, step=0.25)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(4)[:2])
    gate(torch.eye(4)[[0, 0, 0, 1]])
    gate.after_step()
    assert gate.bias_E.tolist() == [-0.25, 0.25]
    # What was counted is forgotten.
    gate.after_step()
    assert gate.bias_E.tolist() == [-0.25, 0.25]


def test_eval_learns_nothing() -> None:
    gate = skewed(LossFreeGate).eval()
    gate(X_TD)
    gate.after_step()
    assert not gate.get_buffer("bias_E").any()
    gate.train()(X_TD)
    gate.after_step()
    assert float(gate.get_buffer("bias_E")[0]) < 0


def test_weights_add_up_to_one_where_asked() -> None:
    gate = LossFreeGate(width=8, num_experts=8, k=3, is_normalised=True, score="softmax")
    gate.get_buffer("bias_E")[5] = 9.0
    plan = gate(X_TD)
    assert torch.allclose(plan.to_dense().sum(1), torch.ones(512))
    # A bias brings an expert in, and its weight stays its share of the scores.
    assert int(plan.counts_E[5]) == 512
    scores_TE = plan.scores_TE * (plan.to_dense() > 0)
    assert torch.allclose(plan.to_dense(), scores_TE / scores_TE.sum(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "change"), [("sign", 0.25), ("relative", 0.25 * 2 / 3), ("violation", 0.25 * 2)]
)
def test_the_gate_moves_its_bias_by_the_rule_that_was_asked_for(rule, change) -> None:
    """Loads 5 and 1, of a mean of 3: two tokens, two thirds of the mean, are too much."""
    gate = LossFreeGate(width=4, num_experts=2, k=1, step=0.25, rule=rule)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(4)[:2])
    gate(torch.eye(4)[[0, 0, 0, 0, 0, 1]])
    gate.after_step()
    assert gate.bias_E.tolist() == pytest.approx([-change, change])
