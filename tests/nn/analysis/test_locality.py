from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.locality import locality_table, sch, segment_counts, srp
from turnout.nn.analysis.recording import chosen_of


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_chosen(num_sequences: int, num_tokens: int, num_experts: int, k: int) -> torch.Tensor:
    scores = torch.randn(num_sequences, num_tokens, num_experts)
    return chosen_of(scores.topk(k, dim=-1)[1], num_experts)


def test_srp_is_the_best_that_any_choice_of_one_set_per_segment_reaches() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        chosen_BSE = random_chosen(2, 6, 3, 1) | (torch.rand(2, 6, 3) < 0.15)
        count_GE = segment_counts(chosen_BSE, 3).flatten(0, 1).double()
        best = 0.0
        subsets = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.double)
        for picks in itertools.product(range(8), repeat=len(count_GE)):
            set_GE = subsets[list(picks)]
            hits, used = (set_GE * count_GE).sum(), 3 * set_GE.sum()
            best = max(best, float(2 * hits / (used + count_GE.sum())))
        assert srp(chosen_BSE, 3, rng=rng()).value == pytest.approx(best, abs=1e-12)


def test_constant_routing_has_srp_and_sch_of_one() -> None:
    chosen_BSE = chosen_of(torch.tensor([0, 3]).expand(4, 32, 2), 8)
    for length in (1, 4, 32):
        assert srp(chosen_BSE, length, rng=rng()).value == 1.0
        assert sch(chosen_BSE, length, rho=1.0, rng=rng()).value == 1.0


def test_single_tokens_are_their_own_segment() -> None:
    assert srp(random_chosen(3, 16, 8, 2), 1, rng=rng()).value == 1.0


def test_srp_of_random_routing_falls_towards_that_of_a_fixed_set() -> None:
    chosen_BSE = random_chosen(8, 256, 8, 2)
    values = [srp(chosen_BSE, length, rng=rng()).value for length in (1, 4, 16, 64, 256)]
    assert values == sorted(values, reverse=True)
    # With no information, all experts for everybody is about best: F1 = 2k / (E + k).
    assert values[-1] == pytest.approx(2 * 2 / (8 + 2), abs=0.02)


def test_sch_grows_with_the_cache_and_is_complete_when_all_fit() -> None:
    chosen_BSE = random_chosen(4, 64, 8, 2)
    rates = [sch(chosen_BSE, 16, rho=rho, rng=rng()).value for rho in (0.5, 1.0, 2.0, 3.0, 4.0)]
    assert rates == sorted(rates)
    assert rates[0] < 0.6
    assert rates[-1] == 1.0


def test_sch_against_a_slow_twin() -> None:
    chosen_BSE = random_chosen(2, 20, 5, 2)
    hits = 0
    for sequence in chosen_BSE:
        for t in range(20):
            window = sequence[t : t + 4].sum(dim=0).double() + 0.5 * sequence[t]
            cache = sorted(range(5), key=lambda e: -float(window[e]))[:3]
            hits += int(sequence[t][cache].sum())
    assert sch(chosen_BSE, 4, rho=1.5, rng=rng()).value == pytest.approx(hits / int(chosen_BSE.sum()))


def test_the_interval_covers_the_value_and_shrinks_with_sequences() -> None:
    few, many = random_chosen(4, 64, 8, 2), random_chosen(64, 64, 8, 2)
    small, large = srp(few, 16, rng=rng()), srp(many, 16, rng=rng())
    assert small.low <= small.value <= small.high
    assert large.high - large.low < small.high - small.low


def test_a_table_holds_the_lengths_that_fit() -> None:
    table = locality_table({"a": random_chosen(2, 20, 4, 1)}, rng=rng())
    assert table.column("segment_tokens") == [4, 16]
    assert all(0 < value <= 1 for value in table.column("srp") if isinstance(value, float))


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"S >= 8"):
        srp(random_chosen(2, 4, 4, 1), 8, rng=rng())
    with pytest.raises(InputError, match="rho"):
        sch(random_chosen(2, 4, 4, 1), 2, rho=0.0, rng=rng())
    with pytest.raises(InputError, match="a token with an expert"):
        srp(torch.zeros(1, 4, 4, dtype=torch.bool), 2, rng=rng())
    with pytest.raises(InputError, match="sch: chosen_BSE; allowed: a token with an expert"):
        sch(torch.zeros(1, 4, 4, dtype=torch.bool), 2, rho=1.0, rng=rng())


def test_a_layer_without_tokens_is_a_row_of_unknown_numbers() -> None:
    used = random_chosen(3, 9, 4, 1)
    late = used.clone()
    # Of 9 tokens the last is in no whole segment of 4.
    late[:, :8] = False
    table = locality_table({"0": used, "1": torch.zeros_like(used), "2": late}, rng=rng(), lengths=(4,))
    assert [row[:2] for row in table.rows] == [("0", 4), ("1", 4), ("2", 4)]
    assert [all(math.isnan(float(value)) for value in row[2:]) for row in table.rows] == [False, True, True]


def test_the_size_of_the_cache_is_rounded_to_the_nearest() -> None:
    """Of 2 experts a token, 1.2 times k is 2.4: a cache of 2, as 1.0 times is; 1.3 times is 2.6, one of 3."""
    chosen_BSE = random_chosen(2, 40, 8, 2)
    rates = [sch(chosen_BSE, 8, rho=rho, rng=rng()).value for rho in (1.0, 1.2, 1.3, 1.5)]
    assert rates[0] == rates[1] < rates[2] == rates[3]


def test_what_is_no_choice_and_no_size_is_refused() -> None:
    for measure in (lambda x: srp(x, 4, rng=rng()), lambda x: sch(x, 4, rho=1.0, rng=rng())):
        with pytest.raises(InputError, match=r"chosen_BSE; allowed: torch\.bool"):
            measure(torch.randint(0, 4, (2, 8, 2)))
    with pytest.raises(InputError, match=r"\(0, inf\)"):
        sch(random_chosen(2, 8, 4, 1), 4, rho=math.inf, rng=rng())
    with pytest.raises(InputError, match="locality_table: lengths"):
        locality_table({"a": random_chosen(2, 8, 4, 1)}, rng=rng(), lengths=(0,))
