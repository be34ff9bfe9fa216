from __future__ import annotations

import pytest
import torch

from tests.nn.depth.families import LAYERS, make, prompts
from turnout.core.errors import InputError
from turnout.nn.depth import FixedDepth, RoutedDepth
from turnout.nn.depth.fixed import skipping


def test_every_sequence_has_the_fixed_depth() -> None:
    routed = RoutedDepth(model=make("llama"), router=FixedDepth(counts=[1, 0, 2, 1]))
    ids_BT, _ = prompts(rows=3)
    with torch.no_grad():
        found = routed.model(ids_BT).logits
        with routed.forced([1, 0, 2, 1]):
            assert torch.equal(routed.model(ids_BT).logits, found)
    assert routed.counts_BL.tolist() == [[1, 0, 2, 1]] * 3


def test_blocks_are_skipped_by_number() -> None:
    assert skipping(LAYERS, [1, 3]).counts == (1, 0, 1, 0)


@pytest.mark.parametrize("layer", [-1, LAYERS, 99])
def test_a_layer_that_does_not_exist_is_refused(layer: int) -> None:
    with pytest.raises(InputError, match=f"no such layer; allowed: 0 to 3; got: {layer}"):
        skipping(LAYERS, [layer])


def test_other_counts_are_refused() -> None:
    with pytest.raises(InputError, match="repeat"):
        FixedDepth(counts=[1, 3])
