"""What was written to a prompt cache is charged as the price table says, or as Anthropic's list does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from tests.gateway.chat_told import SAID, completion
from tests.gateway.client import Answer, call, row
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import HEADERS_OF, hashed
from tests.gateway.told import Told, sse, stream, told_server, whole
from turnout.core import Candidate, PriceCard
from turnout.core.candidate import candidate_from_dict
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_prices import PricesSettings
from turnout.gateway.settings_providers import AnthropicSettings

WRITTEN, WRITTEN_1H, READ, PLAIN, OUT = 60_000, 40_000, 1_000, 100, 10
"""Tokens, 40,000 of the 100,000 that were written being kept for an hour."""
USAGE: dict[str, Any] = {
    "input_tokens": PLAIN,
    "cache_creation_input_tokens": WRITTEN + WRITTEN_1H,
    "cache_creation": {"ephemeral_5m_input_tokens": WRITTEN, "ephemeral_1h_input_tokens": WRITTEN_1H},
    "cache_read_input_tokens": READ,
    "output_tokens": OUT,
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": USAGE,
}
EVENTS = b"".join(
    f"event: {event['type']}\n".encode() + sse(event, done=False)
    for event in (
        {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": OUT}},
        {"type": "message_stop"},
    )
)
PLAIN_USD = ((PLAIN + READ) * 3 + OUT * 15) / 1e6
READ_USD = (PLAIN * 3 + READ * 3 * 0.1 + OUT * 15) / 1e6
"""What Anthropic's list makes of it."""
LIST_USD = READ_USD + (WRITTEN * 3 * 1.25 + WRITTEN_1H * 3 * 2) / 1e6
ASKED: Any = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
BOTH = {"cache_write_usd_per_mtok": 5.0, "cache_write_1h_usd_per_mtok": 7.0}
POOL = tuple(
    Candidate(model=name, price_card=PriceCard(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0))
    for name in ("ant", "open")
)


@dataclass
class Stand:
    """A gateway before an upstream that speaks Messages, and chat as well."""

    base_url: str
    ledger: Path
    told: Told

    def post(self, path: str, **body: Any) -> Answer:
        sent = json.dumps({"model": "ant", **ASKED, **body}).encode()
        headers = {"content-type": "application/json", **HEADERS_OF}
        return call(self.base_url, path, method="POST", body=sent, headers=headers)


@contextmanager
def serving(folder: Path, prices: dict[str, float] | None = None, budget_usd: float = 9.0) -> Iterator[Stand]:
    with told_server() as told:
        plain = make_config(told.base_url, folder / "l.sqlite")
        config = msgspec.structs.replace(
            plain,
            default_provider="main",
            providers={**plain.providers, "anth": AnthropicSettings(base_url=told.base_url)},
            candidates={"ant": CandidateSettings(provider="anth")},
            keys={"team": KeySettings(sha256=hashed(), budget_usd=budget_usd, budget_period="total")},
            auth=AuthSettings(path=str(folder / "keys.sqlite")),
        )
        if prices is not None:
            card = {"input_usd_per_mtok": 3.0, "output_usd_per_mtok": 15.0, **prices}
            file = folder / "prices.json"
            file.write_text(json.dumps({"date": "2026-11-01", "models": {"ant": card, "open": card}}))
            config = msgspec.structs.replace(config, prices=PricesSettings(path=str(file)))
        with running(config, deployment=make_deployment(POOL)) as ready:
            yield Stand(ready.base_url, folder / "l.sqlite", told)


@pytest.mark.parametrize("path", ["/messages", "/chat/completions"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_anthropics_writes_cost_what_its_list_says(tmp_path: Path, path: str, is_stream: bool) -> None:
    with serving(tmp_path) as stand:
        stand.told.say = lambda _: stream(EVENTS, size=500) if is_stream else whole(MESSAGE)
        answer = stand.post(path, stream=is_stream)
        found = row(stand.ledger, answer.decision_id)
    assert (found["input_tokens"], found["cached_tokens"]) == (PLAIN + READ + WRITTEN + WRITTEN_1H, READ)
    assert (found["usd"], found["usage_estimated"]) == (pytest.approx(LIST_USD), 0)


@pytest.mark.parametrize(
    ("prices", "usd", "is_estimated"),
    [
        (BOTH, WRITTEN * 5 + WRITTEN_1H * 7, 0),
        ({"cache_write_usd_per_mtok": 5.0}, WRITTEN * 5 + WRITTEN_1H * 6, 1),
        ({}, WRITTEN * 3.75 + WRITTEN_1H * 6, 1),
    ],
)
def test_a_price_table_may_say_it_and_a_guess_is_marked(
    tmp_path: Path, prices: dict[str, float], usd: float, is_estimated: int
) -> None:
    details = {
        "cached_tokens": READ,
        "cache_write_tokens": WRITTEN + WRITTEN_1H,
        "cache_write_1h_tokens": WRITTEN_1H,
    }
    usage = {
        "prompt_tokens": PLAIN + READ + WRITTEN + WRITTEN_1H,
        "completion_tokens": OUT,
        "prompt_tokens_details": details,
    }
    with serving(tmp_path, prices) as stand:
        stand.told.say = lambda _: whole({**completion(SAID, "stop"), "usage": usage})
        found = row(stand.ledger, stand.post("/chat/completions", model="open").decision_id)
        stand.told.say = lambda _: whole(MESSAGE)
        of_list = row(stand.ledger, stand.post("/messages").decision_id)
    assert (found["usd"], found["usage_estimated"]) == (pytest.approx(PLAIN_USD + usd / 1e6), is_estimated)
    # Whose prices nobody lists charges for what it read as for input, which is never too little.
    assert of_list["usd"] == pytest.approx(found["usd"] - READ * 3 * 0.9 / 1e6)
    assert of_list["usage_estimated"] == 0


@pytest.mark.parametrize("model", ["ant", "open"])
def test_a_price_of_reads_in_the_table_holds_for_everybody(tmp_path: Path, model: str) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": READ}}
    usage = {"prompt_tokens": PLAIN + READ, "completion_tokens": OUT, **details}
    told = {"input_tokens": PLAIN, "cache_read_input_tokens": READ, "output_tokens": OUT}
    read = {**MESSAGE, "usage": told}
    with serving(tmp_path, {"cached_usd_per_mtok": 2.0}) as stand:
        stand.told.say = lambda _: whole(
            read if model == "ant" else {**completion(SAID, "stop"), "usage": usage}
        )
        found = row(stand.ledger, stand.post("/chat/completions", model=model).decision_id)
    assert found["usd"] == pytest.approx((PLAIN * 3 + READ * 2.0 + OUT * 15) / 1e6)


def test_a_budget_reserves_what_a_request_may_write(tmp_path: Path) -> None:
    system = [{"type": "text", "text": "x" * 4000, "cache_control": {"type": "ephemeral"}}]
    # 2 tokens are reserved for each of the 1,000: 0.006 as input, and 0.012 where all of it is written.
    with serving(tmp_path, budget_usd=0.01) as stand:
        stand.told.say = lambda _: whole(MESSAGE)
        refused = stand.post("/messages", system=system)
        stand.told.seen.clear()
        passed = stand.post("/messages", system=[{"type": "text", "text": "x" * 4000}])
    assert (refused.status, passed.status) == (429, 200)


def test_the_official_clients_are_told_of_both(tmp_path: Path) -> None:
    with serving(tmp_path) as stand:
        stand.told.say = lambda _: whole(MESSAGE)
        secret = HEADERS_OF["authorization"].removeprefix("Bearer ")
        with openai.OpenAI(base_url=stand.base_url, api_key=secret, max_retries=0) as client:
            usage = client.chat.completions.create(model="ant", **ASKED).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.model_dump()["cache_write_1h_tokens"] == WRITTEN_1H
        url = stand.base_url.removesuffix("/v1")
        with anthropic.Anthropic(base_url=url, api_key=secret, max_retries=0) as claude:
            creation = claude.messages.create(model="ant", **ASKED).usage.cache_creation
        assert creation is not None
        assert creation.ephemeral_1h_input_tokens == WRITTEN_1H


def test_a_card_that_says_nothing_of_writes_is_described_as_before() -> None:
    card = PriceCard(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
    assert list(card.to_dict()) == ["input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok"]
    told = PriceCard(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0, cache_write_usd_per_mtok=4.0)
    assert candidate_from_dict(Candidate(model="a", price_card=told).to_dict()).price_card == told
    counts: Any = {"input_tokens": 100, "output_tokens": 0, "written_tokens": 50, "written_1h_tokens": 10}
    assert card.usd(**counts) == pytest.approx(100 * 3 / 1e6), "unknown is as input"
    assert told.usd(**counts) == pytest.approx((50 * 3 + 50 * 4) / 1e6)
