from __future__ import annotations

from collections.abc import Sequence

import pytest

from turnout.core.errors import InputError
from turnout.nn.depth.best_fixed import Quality, best_fixed_skip

WORTH = (3.0, 0.5, 2.0, 0.1, 1.0)


def quality(patterns: Sequence[tuple[int, ...]]) -> list[float]:
    return [sum(w * c for w, c in zip(WORTH, pattern, strict=True)) for pattern in patterns]


@pytest.mark.parametrize("most_patterns", [1000, 1])
@pytest.mark.parametrize(("executed", "best"), [(0, (0,) * 5), (2, (1, 0, 1, 0, 0)), (5, (1,) * 5)])
def test_the_best_blocks_are_kept_by_trying_all_and_one_by_one(
    executed: int, best: tuple[int, ...], most_patterns: int
) -> None:
    assert best_fixed_skip(quality, layers=5, executed=executed, most_patterns=most_patterns) == best


def tempting(bonus: tuple[int, ...]) -> Quality:
    """Blocks 0 and 1 are missed least, whatever else runs, yet `bonus` is by far the best pair."""
    worth = (0.1, 0.2, 1.0, 1.1, 1.2, 1.3)

    def values(patterns: Sequence[tuple[int, ...]]) -> list[float]:
        single = [sum(w * c for w, c in zip(worth, pattern, strict=True)) for pattern in patterns]
        return [9.0 if pattern == bonus else value for pattern, value in zip(patterns, single, strict=True)]

    return values


def test_a_block_that_was_taken_out_comes_back_where_an_exchange_is_better() -> None:
    near = (1, 0, 0, 0, 0, 1)
    found = best_fixed_skip(tempting(near), layers=6, executed=2, most_patterns=1, restarts=0)
    assert found == near


def test_other_starts_find_what_no_exchange_leads_to() -> None:
    far = (1, 1, 0, 0, 0, 0)
    stuck, found = (
        best_fixed_skip(tempting(far), layers=6, executed=2, most_patterns=1, restarts=restarts)
        for restarts in (0, 8)
    )
    assert stuck == (0, 0, 0, 0, 1, 1)
    assert found == far


def test_no_pattern_is_measured_twice() -> None:
    seen: list[tuple[int, ...]] = []

    def counted(patterns: Sequence[tuple[int, ...]]) -> list[float]:
        seen.extend(patterns)
        return quality(patterns)

    best_fixed_skip(counted, layers=5, executed=2, most_patterns=1)
    assert len(seen) == len(set(seen))


def test_a_budget_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="0 to 5 layers; got: 6"):
        best_fixed_skip(quality, layers=5, executed=6)
