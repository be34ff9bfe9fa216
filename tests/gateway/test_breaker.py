"""One breaker: worked cases, and any order of events against a plain model of the rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnout.gateway.breaker import Breaker
from turnout.gateway.config import BreakerSettings

SETTINGS = BreakerSettings(
    failures=3, failure_share=0.5, min_calls=8, window_s=10.0, open_s=5.0, max_open_s=15.0, cooldown_s=2.0
)


def fail(breaker: Breaker, now_s: float) -> None:
    call = breaker.enter(now_s)
    assert call is not None
    breaker.failed(call, now_s)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(settings=SETTINGS)
    for _ in range(3):
        fail(breaker, now_s)
    return breaker


def test_it_opens_after_failures_in_a_row_and_a_success_between_them_counts() -> None:
    breaker = Breaker(settings=SETTINGS)
    fail(breaker, 0.0)
    fail(breaker, 0.0)
    call = breaker.enter(0.0)
    assert call is not None
    breaker.succeeded(call, 0.0)
    fail(breaker, 0.0)
    fail(breaker, 0.0)
    assert breaker.state(0.0) == "closed"
    fail(breaker, 0.0)
    assert (breaker.state(0.0), breaker.wait_s(1.0)) == ("open", 4.0)
    assert breaker.enter(4.9) is None


def test_it_opens_on_a_share_of_the_window_though_failures_are_never_in_a_row() -> None:
    breaker = Breaker(settings=SETTINGS)
    for number in range(8):
        call = breaker.enter(0.1 * number)
        assert call is not None, f"open after {number} calls"
        (breaker.failed if number % 2 else breaker.succeeded)(call, 0.1 * number)
    assert breaker.state(1.0) == "open"


def test_old_calls_leave_the_window() -> None:
    breaker = Breaker(settings=SETTINGS)
    for number in range(40):
        # Half of the calls fail, but never eight of them within ten seconds.
        now_s = 2.0 * number
        call = breaker.enter(now_s)
        assert call is not None
        (breaker.failed if number % 2 else breaker.succeeded)(call, now_s)
    assert breaker.state(80.0) == "closed"


def test_one_probe_passes_and_its_first_byte_closes() -> None:
    breaker = opened()
    assert breaker.state(5.0) == "half_open"
    probe = breaker.enter(5.0)
    assert probe is not None
    assert breaker.enter(5.0) is None, "one at a time"
    breaker.answered(probe)
    assert breaker.state(5.0) == "closed"
    assert breaker.enter(5.0) is not None


def test_a_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    breaker, now_s = opened(), 0.0
    for expected_s in (5.0, 10.0, 15.0, 15.0):
        assert breaker.wait_s(now_s) == expected_s
        now_s += expected_s
        fail(breaker, now_s)


def test_a_probe_whose_client_leaves_gives_its_place_back() -> None:
    breaker = opened()
    probe = breaker.enter(5.0)
    assert probe is not None
    breaker.abandoned(probe)
    assert breaker.state(5.0) == "half_open"
    assert breaker.enter(5.0) is not None, "stuck for ever otherwise"


def test_a_call_from_before_the_opening_neither_closes_nor_prolongs() -> None:
    breaker = Breaker(settings=SETTINGS)
    early = [breaker.enter(0.0), breaker.enter(0.0)]
    for _ in range(3):
        fail(breaker, 0.0)
    assert early[0] is not None
    assert early[1] is not None
    breaker.succeeded(early[0], 1.0)
    breaker.failed(early[1], 4.0)
    assert breaker.wait_s(4.0) == 1.0


def test_a_rate_limit_rests_as_long_as_it_says_and_counts_as_no_failure() -> None:
    breaker = Breaker(settings=SETTINGS)
    call = breaker.enter(0.0)
    assert call is not None
    breaker.limited(call, 0.0, 7.0)
    assert breaker.wait_s(0.0) == 7.0
    probe = breaker.enter(7.0)
    assert probe is not None
    breaker.limited(probe, 7.0, None)
    assert breaker.wait_s(7.0) == SETTINGS.cooldown_s
    far = breaker.enter(10.0)
    assert far is not None
    breaker.limited(far, 10.0, 1e9)
    assert breaker.wait_s(10.0) == SETTINGS.max_cooldown_s


def give_back(breaker: Breaker, what: str, call: int, now_s: float) -> None:
    if what == "succeeded":
        breaker.succeeded(call, now_s)
    elif what == "failed":
        breaker.failed(call, now_s)
    elif what == "limited":
        breaker.limited(call, now_s, 4.0)
    else:
        breaker.abandoned(call)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "answered", "succeeded", "failed", "limited", "abandoned"]),
        st.integers(0, 5),
        st.sampled_from([0.0, 0.5, 3.0, 20.0]),
    ),
    max_size=80,
)


@given(events=EVENTS)
def test_whatever_happens_at_most_one_call_passes_while_half_open_and_it_never_gets_stuck(
    events: list[tuple[str, int, float]],
) -> None:
    breaker, now_s = Breaker(settings=SETTINGS), 0.0
    running: list[int] = []
    probes: set[int] = set()
    for what, which, wait_s in events:
        now_s += wait_s
        if what == "enter":
            before = breaker.state(now_s)
            call = breaker.enter(now_s)
            assert call is not None or before != "closed"
            assert call is None or before != "open"
            if call is not None:
                running.append(call)
                if before == "half_open":
                    assert not probes & set(running[:-1]), "two probes at once"
                    probes.add(call)
        elif running:
            call = running[which % len(running)]
            if what == "answered":
                breaker.answered(call)
                continue
            running.remove(call)
            give_back(breaker, what, call, now_s)
        if breaker.state(now_s) == "closed":
            probes.clear()
    for call in running:
        breaker.abandoned(call)
    late_s = now_s + SETTINGS.max_cooldown_s + SETTINGS.max_open_s
    assert breaker.enter(late_s) is not None, "after every wait and with nobody running, a call passes"
