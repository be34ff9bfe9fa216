from __future__ import annotations

from collections.abc import Sequence

import pytest

from turnout.core.errors import InputError
from turnout.nn.depth.best_fixed import best_fixed_skip

WORTH = (3.0, 0.5, 2.0, 0.1, 1.0)


def quality(patterns: Sequence[tuple[int, ...]]) -> list[float]:
    return [sum(w * c for w, c in zip(WORTH, pattern, strict=True)) for pattern in patterns]


@pytest.mark.parametrize("most_patterns", [1000, 1])
@pytest.mark.parametrize(("executed", "best"), [(0, (0,) * 5), (2, (1, 0, 1, 0, 0)), (5, (1,) * 5)])
def test_the_best_blocks_are_kept_by_trying_all_and_one_by_one(
    executed: int, best: tuple[int, ...], most_patterns: int
) -> None:
    assert best_fixed_skip(quality, layers=5, executed=executed, most_patterns=most_patterns) == best


def test_a_budget_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="0 to 5 layers; got: 6"):
        best_fixed_skip(quality, layers=5, executed=6)
