from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn import registry
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import GateContext
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan, as_slots


def slots(*, masked: bool = False) -> SlotPlan:
    logits_BSZ = torch.randn(2, 3, 8)
    mask_BS = torch.tensor([[True, True, not masked], [True, True, True]])
    dispatch_BSZ = logits_BSZ.masked_fill(~mask_BS[..., None], float("-inf")).softmax(1)
    return SlotPlan(
        num_tokens=6,
        num_experts=4,
        dispatch_BSZ=dispatch_BSZ,
        combine_BSZ=logits_BSZ.softmax(2) * mask_BS[..., None],
        mask_T=mask_BS.reshape(-1) if masked else None,
    )


def test_weights_of_slots_add_up_per_expert() -> None:
    plan = slots()
    plan.validate()
    assert plan.slots_per_expert == 2
    assert torch.allclose(plan.to_dense().sum(1), torch.ones(6))
    assert torch.allclose(plan.to_dense()[4, 3], plan.combine_BSZ[1, 1, 6:].sum())


def test_padding_in_a_slot_is_found() -> None:
    slots(masked=True).validate()
    with pytest.raises(InputError, match="mixes padding"):
        replace(slots(), mask_T=torch.tensor([True] * 5 + [False])).validate()
    with pytest.raises(InputError, match="sums of 1"):
        replace(slots(), combine_BSZ=torch.ones(2, 3, 8)).validate()


def test_shapes_are_refused_as_an_equation() -> None:
    with pytest.raises(ShapeError, match="B \\* S = T = 7"):
        replace(slots(), num_tokens=7)
    with pytest.raises(ShapeError, match="Z = E \\* P with E = 3"):
        replace(slots(), num_experts=3)
    with pytest.raises(ShapeError, match="\\(B, S, Z\\)"):
        replace(slots(), dispatch_BSZ=torch.ones(6, 8))
    with pytest.raises(ShapeError, match="\\(G, E\\) with E = 4"):
        MergedPlan(num_tokens=2, num_experts=4, mix_GE=torch.ones(1, 3), groups_T=torch.zeros(2).long())


def test_a_merged_plan_gives_each_token_its_groups_mix() -> None:
    mix_GE = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    mask_T = torch.tensor([True, True, False])
    groups_T = torch.tensor([1, 0, 1])
    plan = MergedPlan(num_tokens=3, num_experts=3, mix_GE=mix_GE, groups_T=groups_T, mask_T=mask_T)
    plan.validate()
    assert plan.to_dense().tolist() == [[0.0, 0.25, 0.75], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    with pytest.raises(InputError, match="0 to 1"):
        replace(plan, groups_T=torch.tensor([2, 0, 1])).validate()
    with pytest.raises(InputError, match="sums of 1"):
        replace(plan, mix_GE=mix_GE * 2).validate()


@pytest.mark.parametrize("name", ["top_k", "switch", "expert_choice", "relu", "null_experts", "vq"])
def test_every_choice_has_the_form_of_slots(name: str) -> None:
    """Two tensors say it all, whoever chose whom: what a slot is made of, and who hears its answer."""
    gate = registry.get(name)(width=8, num_experts=4)
    experts, x_TD = Experts(width=8, inner=6, num_experts=4), torch.randn(20, 8)
    mask_BS = (torch.arange(20) < 15)[None]
    plan = gate(x_TD, GateContext(mask_BS=mask_BS))
    spread = as_slots(plan)
    assert set(spread.dispatch_BSZ.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(spread.to_dense(), plan.to_dense())
    pairs_TD, slots_TD = (LoopExecutor().run(x_TD, one, experts) for one in (plan, spread))
    assert torch.allclose(pairs_TD, slots_TD, atol=1e-5)
    one, other = (torch.autograd.grad(y.square().sum(), experts.up_proj)[0] for y in (pairs_TD, slots_TD))
    assert torch.allclose(one, other, atol=1e-4)


def test_no_pairs_are_empty_slots() -> None:
    empty = torch.zeros(0, dtype=torch.long)
    plan = SparsePlan.from_pairs(empty, empty, torch.zeros(0), num_tokens=3, num_experts=2)
    assert not bool(as_slots(plan).dispatch_BSZ.any())
