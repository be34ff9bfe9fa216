from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from turnout.nn.flops import executed_flops
from turnout.nn.tiny import tiny_llama


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


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_count_is_that_of_torchs_own_counter(mode: type) -> None:
    model = tiny_llama(vocab_size=16, width=32, layers=2)
    ids_BT = torch.randint(4, 16, (2, 7), generator=torch.Generator().manual_seed(0))

    def work() -> None:
        with mode():
            loss = model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
            if loss.requires_grad:
                loss.backward()

    with FlopCounterMode(display=False) as counter:
        work()
    assert executed_flops(work)[1] == counter.get_total_flops() > 10_000
