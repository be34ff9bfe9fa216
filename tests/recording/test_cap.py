"""A spend cap is never exceeded, whatever the order in which answers come."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.recording.desk import BAD_USD, GOOD_USD, JUDGED, Desk, write_prompts
from turnout.core.errors import InputError
from turnout.recording.purse import Purse


def test_a_cap_ends_the_run_and_a_higher_one_goes_on(desk: Desk, tmp_path: Path) -> None:
    desk.prompts = write_prompts(tmp_path, 30)
    each = GOOD_USD + BAD_USD
    told = desk.record("--score", "numeric", "--cap", str(15 * each), "--max-output-tokens", "40")
    assert told["is_capped"]
    assert told["spent_usd"] <= 15 * each
    # What is put aside for one call more than it costs keeps the last cells from being asked.
    assert 10 * each < told["spent_usd"]
    assert told["missing"] > 0
    assert "the cap ended the run" in told["notes"][0]
    before = len(desk.server.seen)
    told = desk.record("--score", "numeric", "--cap", "1", "--max-output-tokens", "40")
    assert not told["is_capped"]
    assert len(desk.server.seen) == 60
    assert before < 60
    assert told["spent_usd"] == pytest.approx(30 * each)


def test_a_cap_without_room_for_one_call_asks_nobody(desk: Desk) -> None:
    assert "the cap has no room for one call" in desk.refused("--score", "numeric", "--cap", "1e-7")
    assert desk.server.seen == []


def test_the_judge_is_paid_from_the_same_cap(desk: Desk) -> None:
    told = desk.record(*JUDGED, "--cap", "0.03", "--max-output-tokens", "10")
    assert told["spent_usd"] <= 0.03
    assert told["spent_usd"] == pytest.approx(6 * (GOOD_USD + BAD_USD) + 12 * GOOD_USD)
    desk.out = desk.folder / "second"
    told = desk.record(*JUDGED, "--cap", "0.006", "--max-output-tokens", "10")
    assert told["is_capped"]
    assert told["spent_usd"] <= 0.006
    unscored = sum(line["unscored"] for line in told["candidates"])
    scored = len(desk.server.asked("judge"))
    # With more money the answers that were paid for are judged, and not asked for again.
    told = desk.record(*JUDGED, "--max-output-tokens", "10")
    assert len(desk.server.asked("good")) == 12
    assert len(desk.server.asked("judge")) == 24
    assert sum(line["unscored"] for line in told["candidates"]) == 0
    assert unscored + scored >= 12


def test_what_was_answered_is_scored_anew_though_the_cap_is_spent(desk: Desk, tmp_path: Path) -> None:
    desk.record("--score", "exact")
    desk.prompts = write_prompts(tmp_path, 12)
    told = desk.record("--score", "contains", "--cap", "1e-6")
    assert (told["is_capped"], told["rows"], told["missing"]) == (True, 12, 12)
    assert [line["quality"] for line in told["candidates"]] == pytest.approx([1.0, 1 / 6])


def test_an_unknown_price_is_refused_under_a_cap_unless_it_is_allowed(desk: Desk) -> None:
    unknown = ("--score", "numeric", "--cap", "1", "--model", "free")
    assert "a spend cap without the price of 'free'" in desk.refused(*unknown)
    assert desk.server.seen == []
    desk.server.say["free"] = desk.server.say["good"]
    told = desk.record(*unknown, "--allow-unknown-prices")
    assert len(desk.server.asked("free")) == 6
    assert told["spent_usd"] == pytest.approx(6 * (GOOD_USD + BAD_USD))


def test_a_call_that_may_have_been_charged_counts_at_its_most(desk: Desk) -> None:
    desk.server.say["bad"] = desk.server.wait
    told = desk.record("--score", "numeric", "--timeout-s", "2")
    assert told["spent_usd"] > 6 * (GOOD_USD + 1024 * 0.4 / 1e6)
    first = told["spent_usd"]
    desk.server.say["bad"] = lambda _: "That makes 1."
    told = desk.record("--score", "numeric")
    assert told["spent_usd"] == pytest.approx(first + 6 * BAD_USD)


def test_no_order_of_answers_breaks_a_cap() -> None:
    chance = random.Random(3)

    async def call(purse: Purse, most: float, seen: list[float]) -> None:
        hold = await purse.reserve(most)
        if hold is None:
            return
        await asyncio.sleep(chance.random() / 1000)
        await purse.settle(hold, most * chance.random())
        seen.append(purse.spent_usd)

    async def main() -> None:
        for _ in range(30):
            purse = Purse(cap_usd=1.0, spent_usd=0.25)
            seen: list[float] = []
            await asyncio.gather(*(call(purse, chance.random() / 5, seen) for _ in range(60)))
            assert max(seen) <= 1.0
            # It ended because there was no room, not because somebody lost count.
            assert purse.spent_usd > 0.7

    asyncio.run(main())


@pytest.mark.parametrize("cap", [-1.0, float("nan"), float("inf")])
def test_a_cap_that_is_none_is_refused(cap: float) -> None:
    with pytest.raises(InputError, match="spend cap"):
        Purse(cap_usd=cap)
