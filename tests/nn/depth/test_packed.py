"""Several texts in one row, whose positions begin again, are refused where a router reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.nn.depth.families import LAYERS, make, prompts
from turnout.core.errors import InputError
from turnout.nn.depth import RandomSkip, RoutedDepth
from turnout.nn.depth.drllm.router import DrLLMRouter

PACKED_BT = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])


def routed_llama() -> tuple[Any, RoutedDepth]:
    model = make("llama")
    return model, RoutedDepth(model=model, router=DrLLMRouter(layers=LAYERS, width=32))


@pytest.mark.parametrize("is_positional", [False, True])
def test_a_packed_row_is_refused(*, is_positional: bool) -> None:
    model, _ = routed_llama()
    ids_BT = prompts(rows=1)[0]
    args = (ids_BT, None, PACKED_BT) if is_positional else (ids_BT,)
    kwargs = {} if is_positional else {"position_ids": PACKED_BT}
    with pytest.raises(InputError, match=r"position_ids begin again.*one text a row.*`forced`"):
        model.model(*args, **kwargs)


def test_decisions_that_read_nothing_are_taken_for_a_packed_row() -> None:
    model, routed = routed_llama()
    ids_BT = prompts(rows=1)[0]
    with routed.forced([1, 0, 1, 1]), torch.no_grad():
        packed_BTV = model(input_ids=ids_BT, position_ids=PACKED_BT, use_cache=False).logits
        alone_BTV = model(input_ids=ids_BT[:, 4:], use_cache=False).logits
    assert torch.allclose(packed_BTV[:, 4:], alone_BTV, atol=1e-5)
    routed.set_router(RandomSkip(layers=LAYERS, executed=2))
    model(input_ids=ids_BT, position_ids=PACKED_BT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("at_padding", [0, 1])
def test_padding_is_no_second_text(side: str, at_padding: int) -> None:
    model, _ = routed_llama()
    ids_BT, mask_BT = prompts(rows=3, padding=side)
    position_BT = (mask_BT.cumsum(-1) - 1).masked_fill(mask_BT == 0, at_padding)
    model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=position_BT)
    holed_BT = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 1, 1]]).expand(3, -1)
    model(input_ids=ids_BT, attention_mask=holed_BT, position_ids=torch.arange(9)[None])
