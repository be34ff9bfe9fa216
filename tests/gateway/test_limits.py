"""Spend and rates are counted once, whoever counts: no two requests get the same money."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core import ManualClock
from turnout.gateway.keyfile import open_keyfile
from turnout.gateway.limits import Limits, Rate, Spend, largest
from turnout.gateway.limits_redis import RedisLimits
from turnout.gateway.limits_sqlite import SqliteLimits

Make = Callable[[], Limits]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_s=1e9)


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Make:
    """Return a maker of counters that share one count."""

    if request.param == "redis":
        url = request.getfixturevalue("redis").url
        prefix = secrets.token_hex(4)

        def in_redis() -> Limits:
            from redis.asyncio import Redis

            return RedisLimits(client=Redis.from_url(url), clock=clock, prefix=prefix, timeout_s=5.0)

        return in_redis

    def made() -> Limits:
        return SqliteLimits(connection=open_keyfile(tmp_path / "keys.sqlite"), clock=clock)

    return made


def run(make: Make, work: Callable) -> object:
    """Do some work with counters of their own, in an event loop of its own."""

    async def main() -> object:
        limits = make()
        try:
            return await work(limits)
        finally:
            await limits.close()

    return asyncio.run(main())


def test_the_largest_sum_that_is_left_is_reserved(make: Make) -> None:
    async def work(limits: Limits) -> None:
        wanted = [0.5, 0.2]
        assert await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=wanted) == (0.5, Spend())
        assert (await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=wanted))[0] == 0.5
        assert await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=wanted) == (
            None,
            Spend(held_usd=1.0),
        )
        limits.settle("a", "p", held_usd=0.5, usd=0.25)
        assert await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=wanted) == (
            0.2,
            Spend(spent_usd=0.25, held_usd=0.5),
        )
        assert await limits.spend("b", "p") == Spend()
        assert (await limits.reserve("a", "q", budget_usd=1.0, wanted_usd=[1.0]))[0] == 1.0

    run(make, work)


def test_all_that_is_left_may_be_asked_for(make: Make) -> None:
    async def work(limits: Limits) -> None:
        assert (await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=[0.75]))[0] == 0.75
        assert (await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=[math.inf]))[0] == 0.25
        assert (await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=[math.inf]))[0] is None
        assert (await limits.reserve("a", "p", budget_usd=1.0, wanted_usd=[0.0]))[0] == 0.0

    run(make, work)


def test_workers_together_never_reserve_more_than_the_budget(make: Make) -> None:
    """Four workers with connections of their own ask for random sums until none is left."""
    got: list[float] = []

    def worker(seed: int) -> None:
        chance = random.Random(seed)

        async def work(limits: Limits) -> None:
            for _ in range(60):
                usd, _before = await limits.reserve(
                    "a", "p", budget_usd=1.0, wanted_usd=[chance.uniform(0.001, 0.03)]
                )
                if usd is not None:
                    got.append(usd)
                    if chance.random() < 0.5:
                        limits.settle("a", "p", held_usd=usd, usd=usd)

        run(make, work)

    threads = [threading.Thread(target=worker, args=(seed,)) for seed in range(4)]
    before_s = sys.getswitchinterval()
    # Threads change places as often as they can, so that one comes between another's reading and writing.
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before_s)
    assert 0.95 < sum(got) <= 1.0 + 1e-9
    spend = run(make, lambda limits: limits.spend("a", "p"))
    assert isinstance(spend, Spend)
    assert spend.spent_usd + spend.held_usd == pytest.approx(sum(got))


_RESERVING = """
import asyncio, sys, time
from pathlib import Path
from turnout.core import ManualClock
from turnout.gateway.keyfile import open_keyfile
from turnout.gateway.limits_sqlite import SqliteLimits

class Slow(SqliteLimits):
    def _spend(self, key, period):
        spend = super()._spend(key, period)
        time.sleep(0.002)  # long enough for another one to come between reading and writing
        return spend

async def main():
    limits = Slow(connection=open_keyfile(Path(sys.argv[1])), clock=ManualClock(start_s=1e9))
    print("ready", flush=True)
    sys.stdin.readline()
    got = 0
    for _ in range(12):
        usd, _before = await limits.reserve("a", "p", budget_usd=0.4, wanted_usd=[0.01])
        if usd is not None:
            got += 1
            limits.settle("a", "p", held_usd=usd, usd=usd)
    print(got, flush=True)
    await limits.close()

asyncio.run(main())
"""


def test_processes_that_reserve_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """Each reads what is left under the lock that it writes under: none dies, and none overspends."""
    path = tmp_path / "keys.sqlite"
    open_keyfile(path).close()
    command = [sys.executable, "-c", _RESERVING, str(path)]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [worker.communicate(timeout=60) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, told
    assert sum(int(said) for said, _ in told) == 40


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.4), st.floats(0, 1), st.booleans()), max_size=40),
    st.floats(0.01, 1.0),
)
def test_spent_and_held_stay_within_the_budget(steps: list[tuple[float, float, bool]], budget: float) -> None:
    """Whatever order requests come and go in, as long as none costs more than it reserved."""

    async def work(limits: Limits) -> None:
        held: list[float] = []
        for usd, share, comes in steps:
            if comes or not held:
                reserved, _ = await limits.reserve("a", "p", budget_usd=budget, wanted_usd=[usd])
                if reserved is not None:
                    held.append(reserved)
            else:
                reserved = held.pop(0)
                limits.settle("a", "p", held_usd=reserved, usd=reserved * share)
            spend = await limits.spend("a", "p")
            assert spend.spent_usd + spend.held_usd <= budget * (1 + 1e-9)
            assert spend.held_usd == pytest.approx(sum(held), abs=1e-9)

    with tempfile.TemporaryDirectory() as folder:
        connection = open_keyfile(Path(folder) / "keys.sqlite")
        run(lambda: SqliteLimits(connection=connection, clock=ManualClock(start_s=0.0)), work)


def test_a_budget_that_is_spent_in_equal_parts_pays_the_last_of_them() -> None:
    left = 0.3
    for _ in range(3):
        usd = largest([0.1], left)
        assert usd == 0.1
        left -= usd
    assert largest([0.1], left) is None


def test_a_rate_gives_a_minutes_worth_and_then_its_speed(make: Make, clock: ManualClock) -> None:
    async def work(limits: Limits) -> None:
        rate = Rate(kind="requests", per_min=6, amount=1.0)
        assert [await limits.take("a", [rate]) for _ in range(6)] == [None] * 6
        refused = await limits.take("a", [rate])
        assert refused is not None
        assert (refused.kind, refused.per_min) == ("requests", 6)
        assert refused.wait_s == pytest.approx(10.0)
        clock.advance(9.9)
        assert await limits.take("a", [rate]) is not None
        clock.advance(0.2)
        assert await limits.take("a", [rate]) is None
        assert await limits.take("a", [rate]) is not None
        assert await limits.take("b", [rate]) is None
        clock.advance(3600.0)
        assert [await limits.take("a", [rate]) is None for _ in range(7)] == [True] * 6 + [False]

    run(make, work)


def test_all_rates_give_or_none_does(make: Make) -> None:
    async def work(limits: Limits) -> None:
        requests = Rate(kind="requests", per_min=2, amount=1.0)
        tokens = Rate(kind="tokens", per_min=100, amount=60.0)
        assert await limits.take("a", [requests, tokens]) is None
        refused = await limits.take("a", [requests, tokens])
        assert refused is not None
        assert refused.kind == "tokens"
        assert refused.left == pytest.approx(40.0)
        assert refused.wait_s == pytest.approx(12.0)
        # The refused one took no request.
        assert await limits.take("a", [requests]) is None
        assert await limits.take("a", [requests]) is not None

    run(make, work)


def test_tokens_are_corrected_by_what_was_used(make: Make) -> None:
    async def work(limits: Limits) -> None:
        tokens = Rate(kind="tokens", per_min=100, amount=80.0)
        assert await limits.take("a", [tokens]) is None
        limits.give_back("a", Rate(kind="tokens", per_min=100, amount=70.0))
        assert await limits.take("a", [tokens]) is None
        limits.give_back("a", Rate(kind="tokens", per_min=100, amount=-30.0))
        refused = await limits.take("a", [Rate(kind="tokens", per_min=100, amount=1.0)])
        assert refused is not None
        assert refused.wait_s == pytest.approx((1.0 + 20.0) * 0.6)

    run(make, work)


def test_a_request_larger_than_the_bucket_passes_when_it_is_full(make: Make, clock: ManualClock) -> None:
    async def work(limits: Limits) -> None:
        huge = Rate(kind="tokens", per_min=100, amount=250.0)
        assert await limits.take("a", [huge]) is None
        refused = await limits.take("a", [huge])
        assert refused is not None
        assert refused.wait_s == pytest.approx(150.0)
        clock.advance(150.1)
        assert await limits.take("a", [huge]) is None

    run(make, work)
