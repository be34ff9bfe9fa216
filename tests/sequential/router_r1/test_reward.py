"""Format before outcome before cost, whatever the numbers are; and what the corrected reward adds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core import InputError, PriceCard, Query
from turnout.sequential.actions import Call, Choice, Stop, Think
from turnout.sequential.loop import Outcome
from turnout.sequential.router_r1.reward import BROKEN, Episode, RewardR1, cost_credit, episode_of
from turnout.sequential.trace import Bounds, Chosen, Ended, Observed, Started, Thought, Trace

weights = st.floats(0.0, 0.99)
costs = st.floats(0.0, 1.0)
episodes = st.builds(Episode, is_valid=st.booleans(), quality=st.sampled_from([0.0, 1.0]), usd=costs)
CARDS = {"small": PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)}


@given(st.lists(episodes, min_size=1, max_size=30), weights, st.booleans())
def test_format_dominates_and_right_beats_wrong(batch: list[Episode], a: float, corrected: bool) -> None:
    scores = RewardR1(cost_weight=a, corrected=corrected).scores(batch)
    for episode, score in zip(batch, scores, strict=True):
        if not episode.is_valid:
            assert score == BROKEN
        elif episode.quality == 1.0:
            assert 1 - a - 1e-12 <= score <= 1.0
        elif corrected:
            assert BROKEN < -a - 1e-12 <= score <= 0.0 or score == pytest.approx(-a)
        else:
            assert score == 0.0


@given(costs, costs, st.floats(0, 1), st.floats(0, 1))
def test_a_dearer_episode_never_earns_more(one: float, two: float, low: float, width: float) -> None:
    cheap, dear = sorted((one, two))
    assert 0.0 <= cost_credit(dear, low, low + width) <= cost_credit(cheap, low, low + width) <= 1.0


@given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=30), st.floats(0.01, 100.0))
def test_the_currency_does_not_matter(usd: list[float], rate: float) -> None:
    def scores(factor: float) -> list[float]:
        batch = [Episode(is_valid=True, quality=1.0, usd=value * factor) for value in usd]
        return RewardR1(cost_weight=0.5).scores(batch)

    if len({round(math.sqrt(value), 6) for value in usd}) > 1:
        assert scores(rate) == pytest.approx(scores(1.0), abs=1e-6)


def test_the_published_numbers() -> None:
    # sqrt(cost) = 0, 1, ..., 100: P5 = 5 and P95 = 95.
    reward = RewardR1(cost_weight=0.9)
    reward.scores([Episode(is_valid=True, quality=1.0, usd=float(root**2)) for root in range(101)])
    assert reward.scale() == pytest.approx((5.0, 95.0))
    assert cost_credit(50.0**2, *reward.scale()) == pytest.approx(0.5)
    assert cost_credit(2.0**2, *reward.scale()) == 1.0
    assert cost_credit(99.0**2, *reward.scale()) == 0.0


def test_the_window_forgets() -> None:
    reward = RewardR1(cost_weight=0.5, window=3)
    reward.scores([Episode(is_valid=True, quality=1.0, usd=100.0)] * 3)
    reward.scores([Episode(is_valid=True, quality=1.0, usd=1.0)] * 3)
    assert reward.scale() == (1.0, 1.0)


def test_a_charge_nobody_knows_earns_no_credit() -> None:
    known, unknown = RewardR1(cost_weight=0.4).scores(
        [Episode(is_valid=True, quality=1.0, usd=value) for value in (0.0, math.nan)]
    )
    assert (known, unknown) == (1.0, 0.6)


def outcome(*events: object, how: str = "stop", violations: float = 0.0, quality: float = 1.0) -> Outcome:
    trace = Trace(Started(query=Query(id="q", text="?"), candidates=("small",), bounds=Bounds(), seed=0))
    for event in events:
        trace.append(event)  # type: ignore[arg-type]
    trace.append(Chosen(choice=Choice(action=Stop(), values={"violations": violations})))
    ended = Ended(how=how, answer="4")  # type: ignore[arg-type]
    trace.append(ended)
    return Outcome(trace=trace, ended=ended, quality=quality)


def test_what_is_counted() -> None:
    thought = Thought(text="x", usd=0.5, output_tokens=10)
    answered = Observed(call=Call(candidate="small"), usd=0.3, input_tokens=100, output_tokens=50)
    failed = Observed(call=Call(candidate="small", sample=1), usd=0.2, error="cut", output_tokens=9)
    whole = outcome(Chosen(choice=Choice(action=Think(messages=()))), thought, answered, failed)
    # Published: 50 output tokens at 2 usd a million. Corrected: every charge there is.
    assert episode_of(whole, CARDS, corrected=False).usd == pytest.approx(1e-4)
    assert episode_of(whole, CARDS, corrected=True).usd == pytest.approx(1.0)
    unknown = outcome(Observed(call=Call(candidate="small"), error="no answer within 3 s"))
    assert math.isnan(episode_of(unknown, CARDS, corrected=True).usd)
    assert episode_of(unknown, CARDS, corrected=False).usd == 0.0
    no_tariff = outcome(answered)
    assert episode_of(no_tariff, {}, corrected=False).usd == 0.3


@pytest.mark.parametrize(
    "broken",
    [outcome(violations=1.0), outcome(how="abstain"), outcome(how="steps"), outcome(quality=math.nan)],
)
def test_what_is_no_valid_episode(broken: Outcome) -> None:
    assert not episode_of(broken, CARDS, corrected=False).is_valid


@pytest.mark.parametrize("usd", [-1.0, math.inf])
def test_a_cost_that_is_no_amount_is_refused(usd: float) -> None:
    with pytest.raises(InputError, match=r"Episode\.usd"):
        Episode(is_valid=True, quality=1.0, usd=usd)


def test_the_quality_may_come_from_outside() -> None:
    assert episode_of(outcome(quality=math.nan), CARDS, corrected=False, quality=0.25).quality == 0.25


@pytest.mark.parametrize(
    "settings", [{"cost_weight": 1.5}, {"window": 0}, {"cost_weight": 1.0, "corrected": True}]
)
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match="RewardR1"):
        RewardR1(**settings)
