from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.dynamoe import SCHEDULES, DynaMoEGate, expert_counts

X_TD = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))


def gate_of(**settings):
    torch.manual_seed(1)
    gate = DynaMoEGate(width=8, num_experts=8, **({"k": 8} | settings))
    with torch.no_grad():
        gate.weight_ED.mul_(20)
    return gate


def counts(gate, x_TD, context=None):
    return (gate(x_TD, context).to_dense() > 0).sum(1)


def test_a_token_has_the_experts_above_its_own_bar() -> None:
    gate = gate_of(threshold=0.4)
    p_TE = (X_TD @ gate.weight_ED.T).softmax(1)
    low_T1, high_T1 = p_TE.amin(1, keepdim=True), p_TE.amax(1, keepdim=True)
    is_above_TE = (p_TE - low_T1) / (high_T1 - low_T1) > 0.4
    expected_TE = p_TE * is_above_TE
    assert torch.allclose(gate(X_TD).to_dense(), expected_TE / expected_TE.sum(1, keepdim=True), atol=1e-6)
    assert len(counts(gate, X_TD).unique()) >= 4


def test_sure_tokens_have_fewer_and_a_higher_bar_leaves_fewer() -> None:
    gate = gate_of()
    steps = [counts(gate, scale * X_TD) for scale in (0.1, 0.5, 1.0, 3.0, 30.0)]
    assert all(bool((one >= other).all()) for one, other in pairwise(steps))
    assert bool((steps[-1] == 1).float().mean() > 0.9)
    bars = [counts(gate_of(threshold=bar), X_TD) for bar in (0.0, 0.3, 0.6, 0.999)]
    assert all(bool((one >= other).all()) for one, other in pairwise(bars))
    # Between the least, which is never above it, and the best, which always is.
    assert bool((bars[0] == 7).all())
    assert int(counts(gate_of(threshold=0.0, k=3), X_TD).max()) == 3
    assert bool((counts(gate, torch.zeros(4, 8)) == 1).all())


def test_a_percentile_of_the_tokens_own_scores_would_be_no_dynamic_count() -> None:
    p_TE = (X_TD @ gate_of().weight_ED.T).softmax(1)
    assert len((p_TE > p_TE.quantile(0.6, dim=1, keepdim=True)).sum(1).unique()) == 1


def test_layers_choose_from_as_many_experts_as_the_schedule_says() -> None:
    for schedule in SCHEDULES:
        gate = gate_of(schedule=schedule, threshold=0.0, low=3)
        for layer, num_open in enumerate(expert_counts(schedule, 5, low=3, high=8)):
            plan = gate(0.1 * X_TD, GateContext(layer=layer, num_layers=5))
            assert plan.counts_E.nonzero().flatten().tolist() == list(range(num_open))
            assert not bool(plan.scores_TE[:, num_open:].any())


def test_the_schedules_by_hand() -> None:
    by_name = {name: expert_counts(name, 5, low=2, high=10) for name in SCHEDULES}
    assert by_name == {
        "uniform": (10, 10, 10, 10, 10),
        "descending": (10, 8, 6, 4, 2),
        "ascending": (2, 4, 6, 8, 10),
        "pyramid_up": (2, 6, 10, 6, 2),
        "pyramid_down": (10, 6, 2, 6, 10),
        "wave": (6, 10, 6, 2, 6),
    }
    assert expert_counts("descending", 1, low=2, high=10) == (10,)
    with pytest.raises(InputError, match="low"):
        expert_counts("uniform", 3, low=5, high=4)
    with pytest.raises(InputError, match="num_layers - 1 = 1"):
        gate_of()(X_TD, GateContext(layer=2, num_layers=2))


def test_one_open_expert_is_enough() -> None:
    gate = gate_of(schedule="ascending", low=1)
    assert gate(X_TD, GateContext(layer=0, num_layers=3)).counts_E.tolist() == [100, 0, 0, 0, 0, 0, 0, 0]
