from __future__ import annotations

import pytest
import torch

from turnout.nn.depth.windows import make_windows


@pytest.mark.parametrize("tokens", [1, 3, 7, 8, 9, 15, 16, 23])
def test_pooling_is_the_published_one_and_drops_the_remainder(tokens: int) -> None:
    hidden_BTD = torch.randn(1, tokens, 5)
    count = min(8, tokens)
    size = tokens // count
    means = torch.stack([hidden_BTD[0, j * size : (j + 1) * size].mean(0) for j in range(count)])
    parts = make_windows(torch.ones(1, tokens, dtype=torch.bool))
    found_BWD = parts.means(hidden_BTD)
    assert int(parts.is_used_BW.sum()) == count
    torch.testing.assert_close(found_BWD[0, :count], means)
    assert not found_BWD[0, count:].any()
    other_BTD = hidden_BTD.clone()
    other_BTD[:, count * size :] += 100.0
    assert torch.equal(parts.means(other_BTD), found_BWD)


def test_the_average_is_over_the_windows_that_there_are() -> None:
    parts = make_windows(torch.tensor([[1, 1, 1, 0], [0, 1, 0, 0]]))
    values_BWC = torch.arange(16.0).reshape(2, 8, 1)
    assert parts.average(values_BWC).flatten().tolist() == [1.0, 8.0]


def test_padding_on_either_side_or_between_changes_nothing_whatever_it_holds() -> None:
    tokens_TD = torch.randn(11, 4)
    means = make_windows(torch.ones(1, 11)).means(tokens_TD[None])
    for kept in (range(11), range(6, 17), [0, 2, 3, 5, 6, 7, 9, 10, 12, 14, 16]):
        padded = torch.full((1, 17, 4), float("nan"))
        mask = torch.zeros(1, 17)
        padded[0, list(kept)], mask[0, list(kept)] = tokens_TD, 1.0
        torch.testing.assert_close(make_windows(mask).means(padded), means)
