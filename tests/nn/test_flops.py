from __future__ import annotations

import torch

from turnout.nn.flops import executed_flops


def test_a_matrix_product_counts_two_for_every_multiplication() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    product, flops = executed_flops(lambda: a @ b)
    assert flops == 2 * 3 * 5 * 7
    assert torch.equal(product, torch.full((3, 7), 5.0))


def test_what_is_not_executed_is_not_counted() -> None:
    a = torch.ones(4, 4)
    gate = torch.zeros(())
    assert executed_flops(lambda: (a @ a) * gate)[1] == 2 * 4**3
    assert executed_flops(lambda: a @ a if bool(gate) else a)[1] == 0
