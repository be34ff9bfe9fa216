from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.plan_dense import MergedPlan, SlotPlan


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
