from __future__ import annotations

import math

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.change import chance_overlap, overlap, saturation_table
from turnout.nn.analysis.recording import chosen_of


def chosen(*rows: list[int], num_experts: int = 4) -> torch.Tensor:
    return chosen_of(torch.tensor(rows), num_experts)


def test_overlap_by_hand() -> None:
    here, there = chosen([0, 1], [2, 3], [0, 1]), chosen([0, 1], [0, 1], [1, 2])
    assert overlap(here, there) == pytest.approx((1 + 0 + 0.5) / 3)
    assert overlap(here, there) == overlap(there, here)
    assert overlap(here, here) == 1.0


def test_sets_of_different_sizes_are_compared_by_the_larger() -> None:
    assert overlap(chosen([0, -1]), chosen([0, 1])) == 0.5
    assert overlap(chosen([-1, -1]), chosen([-1, -1])) == 1.0
    assert overlap(chosen([-1, -1]), chosen([0, 1])) == 0.0


def test_the_published_share_for_k_experts() -> None:
    here = chosen_of(torch.randn(200, 16).topk(4)[1], 16)
    there = chosen_of(torch.randn(200, 16).topk(4)[1], 16)
    published = (here & there).sum(dim=1).double().mean() / 4
    assert overlap(here, there) == pytest.approx(float(published))


def test_chance_is_what_unrelated_choices_share() -> None:
    here = chosen_of(torch.randn(5000, 8).topk(2)[1], 8)
    assert chance_overlap(here, here) == pytest.approx(2 / 8, abs=0.02)
    constant = chosen_of(torch.tensor([1]).expand(50, 1), 8)
    assert chance_overlap(constant, constant) == 1.0


def test_saturation_ends_at_one_and_change_begins_unknown() -> None:
    first, middle, last = chosen([0, 1], [0, 1]), chosen([0, 1], [2, 3]), chosen([0, 2], [2, 3])
    table = saturation_table(["1", "2", "3"], [[first], [middle], [last]])
    assert table.column("saturation") == pytest.approx([0.25, 0.75, 1.0])
    changes = table.column("change_rate")
    assert math.isnan(float(changes[0]))
    assert changes[1:] == pytest.approx([0.5, 0.25])


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match="overlap"):
        overlap(chosen([0]), chosen([0], [1]))
    with pytest.raises(InputError, match="two or more"):
        saturation_table(["1"], [[chosen([0])]])
    with pytest.raises(ShapeError, match="as many in each checkpoint; got: '1, 2'"):
        saturation_table(["1", "2"], [[chosen([0])], [chosen([0])] * 2])
    with pytest.raises(InputError, match=r"overlap: chosen_TE; allowed: torch\.bool"):
        overlap(torch.rand(3, 4), torch.rand(3, 4))


def test_chance_does_not_look_at_the_token_beside() -> None:
    """The next token of a text often has the experts of this one; the one half a text away does not."""
    runs_T = torch.randint(8, (500,)).repeat_interleave(10)
    here = chosen_of(runs_T[:, None], 8)
    assert chance_overlap(here, here) == pytest.approx(1 / 8, abs=0.04)
