"""The kernel refuses what torch's operations refuse; `make test-triton` runs it."""

from __future__ import annotations

import importlib.util
import math
import os

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.late import wrong_rows

HAS_TRITON = importlib.util.find_spec("triton") is not None
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")

if not HAS_TRITON or not (IS_INTERPRETED or torch.cuda.is_available()):
    pytest.skip("needs Triton, and a GPU or its interpreter", allow_module_level=True)

from turnout.nn.late_kernel import look_for_wrong_rows  # noqa: E402 - it needs Triton


def error() -> InputError:
    return InputError("no number")


@pytest.mark.parametrize("width", [1, 6, 64, 1500])
@pytest.mark.parametrize("may_close", [False, True])
@pytest.mark.parametrize("value", [1.0, torch.nan, torch.inf, -torch.inf])
def test_the_kernel_refuses_what_torch_refuses(width, may_close, value) -> None:
    for is_masked in (None, False, True):
        for columns in (slice(width - 1, None), slice(None)):
            value_TX = torch.randn(37, width)
            value_TX[36, columns] = value
            mask_T = None if is_masked is None else torch.ones(37, dtype=torch.bool)
            if mask_T is not None:
                mask_T[36] = not is_masked
            # On a processor torch is asked.
            (asked,) = wrong_rows(error, value_TX, mask_T, may_close=may_close).values()
            sign = torch.zeros(1, dtype=torch.int32, device=DEVICE)
            masked = None if mask_T is None else mask_T.to(DEVICE)
            look_for_wrong_rows(value_TX.to(DEVICE), masked, sign, may_close=may_close)
            assert bool(sign) == (not math.isfinite(asked))


def test_nothing_is_fine() -> None:
    sign = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    look_for_wrong_rows(torch.empty(0, 4, device=DEVICE), None, sign, may_close=False)
    assert int(sign) == 0
