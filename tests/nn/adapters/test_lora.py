from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.nn.adapters import helpers
from turnout.nn.adapters.lora import base_fingerprint, scale_of


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the target modules of a base, in no particular order."""
    found = {path: model.get_submodule(path) for path in reversed(helpers.paths())}
    return {path: module for path, module in found.items() if isinstance(module, nn.Linear)}


def test_a_fingerprint_names_the_weights_and_not_their_precision() -> None:
    here = base_fingerprint(linears(helpers.base()))
    assert base_fingerprint(linears(helpers.base().to(torch.bfloat16))) == here
    assert base_fingerprint(linears(helpers.base(seed=1))) != here
    assert base_fingerprint(dict(list(linears(helpers.base()).items())[:2])) != here


def test_scales_are_those_of_lora_and_of_its_stable_form() -> None:
    assert scale_of(alpha=8, rank=4, is_rank_stabilised=False) == 2.0
    assert scale_of(alpha=8, rank=4, is_rank_stabilised=True) == pytest.approx(4.0)
