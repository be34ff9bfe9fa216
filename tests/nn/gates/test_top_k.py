from __future__ import annotations

import pytest
import torch

from tests.nn.moe_models import FAMILIES, decisive
from turnout.core.errors import InputError, UnknownNameError
from turnout.nn.gate_hook import GateHook
from turnout.nn.gates.top_k import TopKGate


def test_a_case_worked_by_hand() -> None:
    gate = TopKGate(width=2, num_experts=3, k=2, weight="score")
    with torch.no_grad():
        gate.weight_ED.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]).log1p())
    plan = gate(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    # exp(log 3) = 3 against 1 and 1; exp(log 2) = 2 against 1 and 1.
    assert torch.allclose(plan.to_dense()[0, 0], torch.tensor(3 / 5))
    assert torch.allclose(plan.to_dense()[1, 1], torch.tensor(2 / 4))
    assert plan.counts_E.sum() == 4


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_is_the_gate_of_a_checkpoint_bit_for_bit(family: str) -> None:
    model = decisive(family)
    hook = GateHook(model)
    for layer, rule in zip(hook.layers, hook.rules, strict=True):
        weight = next(p for p in layer.gate.parameters() if p.ndim == 2)
        bias = getattr(layer.gate, "bias", None)
        gate = TopKGate(
            width=weight.shape[1],
            num_experts=layer.num_experts,
            k=rule.k,
            score=rule.score,
            weight=rule.weight,
            scale=rule.scale,
            is_biased=rule.bias_name is not None,
            num_groups=rule.num_groups,
            topk_group=rule.topk_group,
            group_score=rule.group_score,
        )
        x_TD = torch.randn(40, gate.width)
        with torch.no_grad():
            gate.weight_ED.copy_(weight)
            if rule.bias_name is not None:
                theirs_E = rule.bias(layer.block)
                assert theirs_E is not None
                gate.get_buffer("selection_bias").copy_(theirs_E)
            if isinstance(bias, torch.Tensor):
                bias.zero_()
            _, weights_TK, indices_TK = layer.gate(x_TD)
        plan = gate(x_TD)
        weights, indices, is_pair = plan.to_choices()
        assert bool(is_pair.all())
        theirs, ours = indices_TK.sort(dim=1), indices.sort(dim=1)
        assert torch.equal(theirs.values, ours.values)
        assert torch.equal(weights_TK.gather(1, theirs.indices), weights.gather(1, ours.indices))


def test_a_selection_bias_moves_the_choice_and_not_the_weights() -> None:
    gate = TopKGate(width=8, num_experts=4, k=2, score="sigmoid", weight="score", is_biased=True)
    x_TD = torch.randn(20, 8)
    plain_TE = gate(x_TD).scores_TE
    gate.get_buffer("selection_bias")[3] = 10.0
    plan = gate(x_TD)
    assert plan.counts_E[3] == 20
    assert torch.equal(plan.to_dense()[:, 3], plain_TE[:, 3])


def test_jitter_is_for_training_alone() -> None:
    gate = TopKGate(width=8, num_experts=4, jitter=0.5)
    x_TD = torch.randn(9, 8)
    assert not torch.equal(gate(x_TD).logits_TE, gate(x_TD).logits_TE)
    gate.eval()
    assert torch.equal(gate(x_TD).logits_TE, gate(x_TD).logits_TE)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"k": 9}, "1 <= k <= E = 8"),
        ({"k": 0}, "at least 1"),
        ({"score": "cosine"}, "score"),
        ({"weight": "mean"}, "guarded_sum"),
        ({"group_score": "sum"}, "top2"),
        ({"jitter": 1.0}, "jitter.*\\[0, 1\\)"),
        ({"scale": "2"}, "scale.*number"),
        ({"num_groups": 3}, "E = 8 = num_groups"),
        ({"num_groups": 4, "topk_group": 5}, "topk_group"),
        ({"num_groups": 4, "topk_group": 1, "k": 3}, "k <= topk_group \\* size = 1 \\* 2"),
        ({"num_groups": 8, "topk_group": 4}, "size >= 2"),
    ],
    ids=str,
)
def test_knobs_that_do_not_fit_are_refused(setting: dict, message: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=message):
        TopKGate(**{"width": 16, "num_experts": 8, **setting})
