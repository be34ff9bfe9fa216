"""This module holds the Triton kernel that looks for rows of numbers that are none.

What it finds it writes into memory of the processor, so that nothing is copied and nobody waits.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from turnout.nn.operation import define

BLOCK, WIDEST = 2048, 1024
"""Numbers that a program holds, and of one row at a time."""


@triton.jit(do_not_specialize=("num_rows",))
def _wrong_kernel(
    value_TX, mask_T, sign, num_rows,
    WIDTH: tl.constexpr, MAY_CLOSE: tl.constexpr, HAS_MASK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_there_R = row_R < num_rows
    if HAS_MASK:
        is_there_R = is_there_R & (tl.load(mask_T + row_R, mask=is_there_R, other=0) != 0)
    offset_R = row_R.to(tl.int64) * WIDTH
    wrong_R, closed_R = tl.zeros((ROWS,), tl.int32), tl.full((ROWS,), 1, tl.int32)
    for start in range(0, WIDTH, COLUMNS):
        column_C = start + tl.arange(0, COLUMNS)
        is_there_RC = is_there_R[:, None] & (column_C[None, :] < WIDTH)
        at_RC = value_TX + offset_R[:, None] + column_C[None, :]
        value_RC = tl.load(at_RC, mask=is_there_RC, other=0.0).to(tl.float32)
        low_RC = value_RC == float("-inf")
        # NaN is above and below nothing.
        is_wrong_RC = (value_RC != value_RC) | (value_RC == float("inf"))
        if not MAY_CLOSE:
            is_wrong_RC = is_wrong_RC | low_RC
        wrong_R = tl.maximum(wrong_R, tl.max((is_wrong_RC & is_there_RC).to(tl.int32), axis=1))
        closed_R = tl.minimum(closed_R, tl.min((low_RC | ~is_there_RC).to(tl.int32), axis=1))
    if MAY_CLOSE:
        wrong_R = tl.maximum(wrong_R, closed_R)
    tl.store(sign + tl.zeros((ROWS,), tl.int32), wrong_R, mask=is_there_R & (wrong_R > 0))


def _look(value_TX: Tensor, mask_T: Tensor | None, sign: Tensor, may_close: bool) -> None:
    num_rows, num_columns = value_TX.shape
    columns = min(triton.next_power_of_2(num_columns), WIDEST)
    rows = max(BLOCK // columns, 1)
    _wrong_kernel[(-(-num_rows // rows),)](
        value_TX.contiguous(), sign if mask_T is None else mask_T.contiguous(), sign, num_rows,
        WIDTH=num_columns, MAY_CLOSE=may_close, HAS_MASK=mask_T is not None,
        ROWS=rows, COLUMNS=columns,
    )  # fmt: skip


_operation = define(
    "look_for_wrong_rows(Tensor value_TX, Tensor? mask_T, Tensor(a!) sign, bool may_close) -> ()",
    _look,
    lambda *_given: None,
)


def look_for_wrong_rows(value_TX: Tensor, mask_T: Tensor | None, sign: Tensor, *, may_close: bool) -> None:
    """Set `sign` (1,) where a row that is not masked, of any width but 0, holds NaN or infinity.

    With `may_close` -inf is allowed beside a number: it closes an expert.
    """
    if len(value_TX):
        _operation(value_TX, mask_T, sign, may_close)
