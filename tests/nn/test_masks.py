"""A mask that is not boolean is refused wherever one is taken: whole numbers would be read as rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.recording import Recording
from turnout.nn.analysis.specialisation import counts_by_domain
from turnout.nn.balance.dirichlet import prior_loss
from turnout.nn.balance.sinkhorn import sinkhorn
from turnout.nn.balance.switch import balance_loss
from turnout.nn.balance.variance import importance_loss, load_loss
from turnout.nn.balance.z_loss import z_loss
from turnout.nn.gates.contract import GateContext
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan

Z_TE = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
P_TE = Z_TE.softmax(dim=-1)
INDICES_TK = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3]])
PAIR: dict[str, Any] = {"num_tokens": 6, "num_experts": 4}

# Each takes a mask of six tokens.
TAKERS: dict[str, Callable[[Tensor], object]] = {
    "from_choices": lambda m: SparsePlan.from_choices(P_TE[:, :2], INDICES_TK, num_experts=4, mask_T=m),
    "from_dense": lambda m: SparsePlan.from_dense(P_TE, mask_T=m),
    "from_pairs": lambda m: SparsePlan.from_pairs(
        torch.arange(6), torch.arange(6) % 4, P_TE[:, 0], mask_T=m, **PAIR
    ),
    "slots": lambda m: SlotPlan(
        dispatch_BSZ=P_TE.softmax(0)[None], combine_BSZ=P_TE[None], mask_T=m, num_tokens=6, num_experts=4
    ),
    "merged": lambda m: MergedPlan(mix_GE=P_TE, groups_T=torch.arange(6), mask_T=m, **PAIR),
    "context": lambda m: GateContext(mask_BS=m[None]).validate(6),
    "z_loss": lambda m: z_loss(Z_TE, mask_T=m),
    "importance_loss": lambda m: importance_loss(P_TE, mask_T=m),
    "load_loss": lambda m: load_loss(Z_TE, Z_TE + 0.1, torch.ones_like(Z_TE), 2, mask_T=m),
    "prior_loss": lambda m: prior_loss(P_TE, torch.ones(4), mask_T=m),
    "balance_loss": lambda m: balance_loss(P_TE, Z_TE > 0, mask_T=m),
    "sinkhorn": lambda m: sinkhorn(Z_TE, mask_T=m),
    "Recording": lambda m: Recording(chosen=((Z_TE > 0)[None],), mask_BS=m[None]),
    "counts_by_domain": lambda m: counts_by_domain((Z_TE > 0)[None], ["a"], m[None]),
}


@pytest.mark.parametrize("name", TAKERS)
def test_one_rule_for_all_masks(name) -> None:
    mask_T = torch.tensor([1, 1, 1, 1, 0, 0])
    TAKERS[name](mask_T.bool())
    for wrong in (mask_T, mask_T.int(), mask_T.float(), mask_T.to(torch.uint8)):
        with pytest.raises(InputError, match=r"mask_(T|BS); allowed: torch.bool; got: torch\..*\.bool\(\)"):
            TAKERS[name](wrong)
    with pytest.raises(ShapeError, match=r"mask_(T|BS); allowed: .* = "):
        TAKERS[name](torch.ones(5, dtype=torch.bool))


def test_marks_of_pairs_and_of_choices_are_boolean_too() -> None:
    with pytest.raises(InputError, match=r"is_pair_TK; allowed: torch.bool"):
        SparsePlan.from_choices(P_TE[:, :2], INDICES_TK, num_experts=4, is_pair_TK=torch.ones(6, 2))
    with pytest.raises(InputError, match=r"is_pair_TE; allowed: torch.bool"):
        SparsePlan.from_dense(P_TE, is_pair_TE=torch.ones(6, 4))
    with pytest.raises(ShapeError, match=r"weights_TE; allowed: \(T, E\)"):
        SparsePlan.from_dense(P_TE[0])
    with pytest.raises(InputError, match=r"chosen\[0\]; allowed: torch.bool; got: torch.float32"):
        Recording(chosen=(P_TE[None],))
