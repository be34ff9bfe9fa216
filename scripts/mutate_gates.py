"""This module asks of each gate's tests whether they fail once the gate is a plain softmax over its k best.

    python -m scripts.mutate_gates [NAMES]    a line for each gate: which of its tests noticed

A test that can't fail proves nothing. `decide` alone is replaced, so that configuration, shapes and the
contract stay right; what a test notices is what the gate does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from scripts.mutation import Mutation, line
from turnout.nn import registry
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.plan import SparsePlan

TESTS = Path("tests/nn/gates")


def plain(gate: Gate, x_TD: Tensor, context: GateContext) -> SparsePlan:
    """Return the plan of a linear map, a softmax and its k best, whose weights add up to 1."""
    wanted = (gate.num_experts, gate.width)
    other_ED = torch.randn(wanted, generator=torch.Generator().manual_seed(0))
    weight_ED: Tensor = next((p for p in gate.parameters() if tuple(p.shape) == wanted), other_ED)
    logits_TE = functional.linear(x_TD.float(), weight_ED.float())
    k = min(int(getattr(gate, "k", 2)), gate.num_experts)
    weights_TK, indices_TK = logits_TE.softmax(dim=-1).topk(k, dim=-1)
    return SparsePlan.from_choices(
        weights_TK / weights_TK.sum(dim=-1, keepdim=True),
        indices_TK,
        num_experts=gate.num_experts,
        mask_T=context.mask_T(),
        logits_TE=logits_TE,
        scores_TE=logits_TE.softmax(dim=-1),
    )


def main(names: list[str]) -> int:
    """Judge the gates of these names, or all; return how many went unnoticed."""
    named = [registry.get(name) for name in names or list(registry)]
    gates = [kind for kind in named if issubclass(kind, Gate)]
    kinds = {kind.__module__.rpartition(".")[2]: kind for kind in gates}
    paths = [TESTS / f"test_{module}.py" for module in kinds]
    found = Mutation(kinds, lambda kind: mock.patch.object(kind, "decide", plain)).run(paths)
    for module, (noticed, total) in found.items():
        print(line(module, noticed, total))
    return sum(not noticed for noticed, _ in found.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
