"""A conversation stays where its prompt is cached for as long as that is worth it, and no longer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.gateway.client import Answer, ask, call, row
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.scripted import Scripted, scripted_server
from tests.gateway.settings import make_config
from tests.gateway.signals.facts import facts_of
from turnout.core.candidate import PriceCard
from turnout.core.clock import ManualClock
from turnout.gateway import warmth as module
from turnout.gateway.lifecycle import running
from turnout.gateway.settings import GoalSettings
from turnout.gateway.warmth import Warmth, key_of, reading_usd

CACHED = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0, cached_usd_per_mtok=0.1)
WARM_LARGE = replace(LARGE, price_card=CACHED)
COLD_SMALL = replace(SMALL, price_card=PriceCard(input_usd_per_mtok=0.5, output_usd_per_mtok=1.0))


def remembered(clock: ManualClock, **answer: Any) -> Warmth:
    warmth = Warmth(idle_s=300.0, clock=clock)
    warmth.note("k", "large", **{"input_tokens": 900, "output_tokens": 100, "cached_tokens": None, **answer})
    return warmth


def test_what_was_read_costs_the_last_one_its_cached_tariff_and_others_the_full_one() -> None:
    warm = remembered(ManualClock()).find("k")
    assert warm is not None
    usd_M = reading_usd(warm, [COLD_SMALL, WARM_LARGE], 5_000)
    assert usd_M == pytest.approx([1_000 * 0.5e-6, 1_000 * 0.1e-6])
    # A conversation that was cut short holds no more than it has.
    assert reading_usd(warm, [WARM_LARGE], 200) == pytest.approx([200 * 0.1e-6])
    # Without a cached tariff, or without a card, nothing is an advantage.
    plain, bare = replace(LARGE, price_card=None), LARGE
    assert reading_usd(warm, [plain, bare], 1_000) == pytest.approx([0.0, 1_000 * 1.0e-6])


def test_the_share_that_is_cached_is_what_the_provider_reported() -> None:
    warmth = remembered(ManualClock())
    for cached, share in ((250, 0.25), (None, 0.25), (0, 0.0)):
        before = warmth.find("k")
        assert before is not None
        seen = min(before.tokens, 1_000)
        warmth.note("k", "large", input_tokens=1_000, output_tokens=0, cached_tokens=cached)
        warm = warmth.find("k")
        assert warm is not None
        assert warm.share == pytest.approx(share if cached is None else cached / seen)
    warmth.note("k", "small", input_tokens=1_000, output_tokens=0, cached_tokens=0)
    changed = warmth.find("k")
    assert changed is not None
    assert (changed.name, changed.share) == ("small", 1.0)  # of another provider nothing is known yet


def test_a_cache_grows_cold() -> None:
    clock = ManualClock()
    warmth = remembered(clock)
    clock.advance(299.0)
    assert warmth.find("k") is not None
    clock.advance(2.0)
    assert warmth.find("k") is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONVERSATIONS", 3)
    warmth = Warmth(idle_s=300.0, clock=ManualClock())
    for number in range(5):
        warmth.note(str(number), "large", input_tokens=1, output_tokens=1, cached_tokens=None)
    assert len(warmth) == 3
    assert warmth.find("1") is None
    assert warmth.find("4") is not None


def test_a_conversation_has_one_name_and_tenants_share_none() -> None:
    first = facts_of("hello").request
    later = facts_of("hello", "hi", "and now?").request
    other = facts_of("good day").request
    assert key_of(first, [], "") == key_of(later, [], "")
    assert key_of(first, [], "") != key_of(other, [], "")
    assert key_of(first, [], "ann") != key_of(first, [], "bob")
    named = [(b"x-session-id", b"7")]
    assert key_of(first, named, "ann") == key_of(other, named, "ann")
    assert key_of(first, named, "ann") != key_of(first, named, "bob")
    cached = facts_of("hello", prompt_cache_key="a").request
    assert key_of(cached, [], "") != key_of(first, [], "")


@contextmanager
def gateway(tmp_path: Path, *, sticky: bool) -> Iterator[tuple[str, Path, Scripted]]:
    with scripted_server() as server:
        for model in ("small", "large"):
            server.say[model] = lambda body: "fine"
        plain = make_config(server.base_url, tmp_path / "ledger.sqlite")
        config = msgspec.structs.replace(
            plain,
            routing=msgspec.structs.replace(plain.routing, sticky=sticky),
            # One more right answer is worth 0.02 USD: large for its quality, small for an easy question.
            goal=GoalSettings(usd_per_quality=0.02),
        )
        with running(config, deployment=make_deployment((COLD_SMALL, WARM_LARGE))) as ready:
            yield ready.base_url, Path(config.ledger.path), server


def turn(base_url: str, *texts: str, **more: Any) -> Answer:
    return ask(base_url, {"messages": turns_of(texts)}, **more)


def turns_of(texts: Sequence[str]) -> list[dict[str, str]]:
    roles = ["user", "assistant"]
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def why(base_url: str, *texts: str) -> str:
    """Return who would be asked, as the explanation says."""
    body = json.dumps({"model": "turnout/auto", "messages": turns_of(texts)}).encode()
    return str(call(base_url, "/route", method="POST", body=body).json["chosen"])


LONG = "a hard question " * 40_000


@pytest.mark.parametrize("sticky", [True, False])
def test_a_long_conversation_stays_where_it_is_cached(
    tmp_path: Path, sticky: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The upstream reports the true length of the first prompt, all of it cached from then on.
    tokens = len(LONG) // 4
    usage = {"prompt_tokens": tokens, "completion_tokens": 10}
    usage["prompt_tokens_details"] = {"cached_tokens": tokens}  # type: ignore[assignment]
    monkeypatch.setattr("tests.gateway.scripted.USAGE", usage)
    monkeypatch.setattr("tests.gateway.scripted.sum", lambda values: 0, raising=False)
    with gateway(tmp_path, sticky=sticky) as (base_url, ledger, _):
        first = turn(base_url, LONG)
        assert first.headers["x-turnout-model"] == "large"
        row(ledger, first.decision_id)
        said = why(base_url, LONG, "fine", "an easy one")
        second = turn(base_url, LONG, "fine", "an easy one")
        assert second.headers["x-turnout-model"] == said == ("large" if sticky else "small")
        # Another conversation is nobody's, and a short one costs nothing to read again.
        assert turn(base_url, "an easy one").headers["x-turnout-model"] == "small"


def test_the_best_quality_has_no_price_and_nothing_sticks(tmp_path: Path) -> None:
    with gateway(tmp_path, sticky=True) as (base_url, ledger, _):
        best = {"x-turnout-usd-per-quality": "inf"}
        first = turn(base_url, LONG, headers=best)
        row(ledger, first.decision_id)
        assert first.headers["x-turnout-model"] == "large"
        second = turn(base_url, LONG, "fine", "an easy one", headers=best)
        assert second.headers["x-turnout-model"] == "small"  # equal quality: the cheaper estimate, as ever


def test_extra_charges_are_added_to_the_estimate() -> None:
    deployment = make_deployment((COLD_SMALL, WARM_LARGE))
    query = facts_of("hello").query
    _, plain = deployment.consider([query])
    _, dear = deployment.consider([query], extra_usd_QM=np.array([0.5, 0.0]))
    assert dear.cost_usd_QM - plain.cost_usd_QM == pytest.approx(np.array([[0.5, 0.0]]))
