"""A token's rows are added up in one pass: the sum is that of double precision, rounded once."""

from __future__ import annotations

import pytest
import torch

from turnout.nn.executors.blocks import BLOCK_ROWS, EVEN, EVEN_ROWS, blocks_of, segments_of
from turnout.nn.executors.memory import LARGE_BYTES, release, scratch
from turnout.nn.executors.sums import TokenSums


def exact(tokens_N, rows_ND, weights_N, num_tokens) -> torch.Tensor:
    weighted_ND = rows_ND.double() if weights_N is None else rows_ND.double() * weights_N.double()[:, None]
    return torch.zeros(num_tokens, rows_ND.shape[1], dtype=torch.float64).index_add(0, tokens_N, weighted_ND)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16, None], ids=str)
def test_sums_are_those_of_double_precision_rounded_once(dtype, weight_dtype) -> None:
    random = torch.Generator().manual_seed(0)
    # Token 3 has no row, others have any number, in any order; 0 and 40 rows too.
    for num_rows in (0, 1, 40):
        tokens_N = torch.randint(0, 9, (num_rows,), generator=random)
        tokens_N[tokens_N == 3] = 5
        rows_ND = torch.randn(num_rows, 7, generator=random).to(dtype)
        weights_N = None if weight_dtype is None else torch.rand(num_rows, generator=random).to(weight_dtype)
        found_TD = TokenSums(tokens_N, 9).of(rows_ND, weights_N)
        expected_TD = exact(tokens_N, rows_ND, weights_N, 9)
        assert found_TD.dtype == dtype
        assert not found_TD[3].any()
        # Half a unit in the last place of the sum, and what single precision loses on the way.
        step = torch.finfo(dtype).eps * 0.51
        bound_TD = expected_TD.abs() * step + 40 * 4 * torch.finfo(torch.float32).eps
        assert bool(((found_TD.double() - expected_TD).abs() <= bound_TD).all())


def test_a_weight_in_single_precision_is_not_rounded_to_half() -> None:
    # 1 + 2^-10 is 1 in bfloat16: the sum of the two differs in what is left of 256 after 255.75.
    rows_ND = torch.tensor([[256.0], [-256.0]], dtype=torch.bfloat16)
    weights_N = torch.tensor([1 + 2**-10, 1.0])
    assert TokenSums(torch.zeros(2, dtype=torch.int64), 1).of(rows_ND, weights_N).item() == 0.25


def test_rows_are_cut_evenly_and_none_is_lost() -> None:
    counts = [0, 1, BLOCK_ROWS, BLOCK_ROWS + 18, 3 * BLOCK_ROWS + 5, 0, 7]
    offsets_E = torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    blocks = blocks_of(offsets_E)
    stretches = [stretch for block in blocks for stretch in block.stretches]
    assert [stretch.start for stretch in stretches] == [0, *(stretch.end for stretch in stretches[:-1])]
    assert all(stretch.reach == stretch.end for stretch in stretches)
    found = [sum(s.num_rows for s in stretches if s.expert == e) for e in range(len(counts))]
    assert found == counts
    assert max(block.num_rows for block in blocks) <= 1.5 * BLOCK_ROWS
    # No expert with as many rows as a block has a part of a few.
    assert min(s.num_rows for s in stretches if counts[s.expert] >= BLOCK_ROWS) >= BLOCK_ROWS * 2 / 3
    for e, n in enumerate(counts):
        own = [s for s in stretches if s.expert == e]
        assert [s.is_first for s in own] == [True, *[False] * (len(own) - 1)] * bool(n)
        assert [s.is_last for s in own] == [*[False] * (len(own) - 1), True] * bool(n)
    assert [(segment.expert, segment.num_rows) for segment in segments_of(offsets_E)] == [
        (expert, count) for expert, count in enumerate(counts) if count
    ]


def test_products_of_many_rows_go_over_an_even_number_but_never_past_the_last_pair() -> None:
    counts = [EVEN_ROWS + 1, EVEN_ROWS - 1, EVEN_ROWS, 2, EVEN_ROWS + EVEN - 1]
    offsets_E = torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    stretches = [stretch for block in blocks_of(offsets_E, is_even=True) for stretch in block.stretches]
    over = [stretch.reach - stretch.end for stretch in stretches]
    assert over == [EVEN - 1, 0, 0, 0, 0]
    assert stretches[-1].reach == sum(counts)


def test_scratch_memory_of_nearly_the_same_size_is_used_again() -> None:
    release()
    like, rows = torch.zeros(1), LARGE_BYTES // 2 // 64
    first = scratch(rows, 64, like, torch.float32)
    place = first.data_ptr()
    first.fill_(1.0)
    other = scratch(rows, 64, like, torch.float32)
    assert other.data_ptr() != place
    del first
    assert scratch(rows - 1, 64, like, torch.float32).data_ptr() == place
    del other
    release()
