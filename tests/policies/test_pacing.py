from __future__ import annotations

import numpy as np
import pytest

from tests.policies.pools import random_estimate
from turnout.core import Budget, InputError
from turnout.policies import Best, Pacer

RNG = np.random.default_rng(0)


def spend(pacer: Pacer, seed: int, num: int, factor: float) -> tuple[float, float]:
    """Return mean usd and mean quality of `num` queries whose answers cost `factor` times the estimate."""
    estimate = random_estimate(seed, num)
    usd, quality = [], []
    for row in range(num):
        decision = Best().decide(estimate.rows([row]), Budget(price=pacer.price), RNG)
        paid = float(decision.cost_usd_Q[0]) * factor
        pacer.observe(paid)
        usd.append(paid)
        quality.append(float(decision.quality_Q[0]))
    return float(np.mean(usd)), float(np.mean(quality))


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("start", [0.0, 60.0, float("inf")])
def test_spend_meets_the_cap_though_answers_cost_other_than_calibrated(factor: float, start: float) -> None:
    cap_usd = 0.004
    pacer = Pacer(usd_per_1k=1000 * cap_usd, price=start)
    spend(pacer, 1, 1500, factor)
    usd, _ = spend(pacer, 2, 1500, factor)
    assert usd == pytest.approx(cap_usd, rel=0.1)


def test_money_that_is_not_scarce_has_no_price() -> None:
    pacer = Pacer(usd_per_1k=1e6, price=5.0)
    spend(pacer, 3, 200, 1.0)
    assert pacer.price == 0.0


def test_overspending_is_bounded_by_the_movement_of_the_price() -> None:
    pacer = Pacer(usd_per_1k=2.0, price=10.0)
    first, step = pacer.price, pacer.rate * pacer.scale / 0.002
    usd, _ = spend(pacer, 4, 400, 3.0)
    assert usd - 0.002 <= (pacer.price - first) / (step * 400) + 1e-12


@pytest.mark.parametrize(
    ("arguments", "where"),
    [({"usd_per_1k": 0.0}, "usd_per_1k"), ({"price": -1.0}, "price"), ({"rate": 0.0}, "rate")],
)
def test_bad_settings_are_refused_by_name(arguments: dict[str, float], where: str) -> None:
    with pytest.raises(InputError, match=f"Pacer.{where}"):
        Pacer(**{"usd_per_1k": 1.0, "price": 1.0, **arguments})


def test_an_unknown_bill_is_refused() -> None:
    with pytest.raises(InputError, match=r"Pacer\.observe: usd"):
        Pacer(usd_per_1k=1.0, price=1.0).observe(float("nan"))
