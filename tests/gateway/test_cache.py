"""Answers that are given again: to whom, for how long, and when not; over a real gateway and upstream."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import hypothesis.strategies as st
import msgspec
import numpy as np
import openai
import pytest
from hypothesis import given, settings

from tests.gateway.client import Answer, ask, row
from tests.gateway.pool import make_deployment
from tests.gateway.test_keys import hashed
from tests.gateway.test_rules import config_with
from tests.gateway.upstream import Upstream
from turnout.core.clock import ManualClock
from turnout.core.errors import ConfigError
from turnout.datasets.importers.ledger import Ledger
from turnout.gateway.app import build_app
from turnout.gateway.cache import AnswerCache, Asked, Kept
from turnout.gateway.lifecycle import Ready, running
from turnout.gateway.settings_cache import CacheSettings
from turnout.gateway.settings_keys import AuthSettings, KeySettings

RULE = '[[rules]]\nname = "again"\n[rules.cache]\n'
KINDS = "".join(
    f"""
[signals.{name}]
kind = "header"
header = "x-kind"
values = ["{name}"]
[[rules]]
name = "{name}"
when = "{name}"
[rules.cache]
similarity = {similarity}
"""
    for name, similarity in (("loose", 0.01), ("near", 0.6))
)
LOOSE, NEAR = {"x-kind": "loose"}, {"x-kind": "near"}


@contextmanager
def serving(
    upstream: Upstream, folder: Path, cache: str = "", *, keys: dict[str, KeySettings] | None = None
) -> Iterator[Ready]:
    config = config_with(folder, KINDS + RULE + cache, upstream.base_url)
    if keys is not None:
        config = msgspec.structs.replace(config, keys=keys, auth=AuthSettings(path=str(folder / "k.sqlite")))
    with running(config, deployment=make_deployment()) as ready:
        yield ready


@dataclass
class Caching:
    """A gateway that keeps answers; the tests that share it ask different questions."""

    ready: Ready
    ledger: Path


@pytest.fixture(scope="module")
def one_caching(one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caching]:
    folder = tmp_path_factory.mktemp("cache")
    with serving(one_upstream, folder) as ready:
        yield Caching(ready, folder / "ledger.sqlite")


@pytest.fixture
def ready(one_caching: Caching, upstream: Upstream) -> Ready:
    return one_caching.ready


def says(ready: Ready, text: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    return ask(ready.base_url, {"messages": [{"role": "user", "content": text}]}, headers=headers, **fields)


def is_hit(answer: Answer) -> bool:
    assert answer.status == 200
    return answer.headers["x-turnout-cache"].startswith("hit")


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_same_request_gets_the_same_bytes_and_asks_nobody(
    upstream: Upstream, one_caching: Caching, is_stream: bool
) -> None:
    upstream.reset()
    first, again = (says(one_caching.ready, "what is a heron?", stream=is_stream) for _ in range(2))
    assert not is_hit(first)
    assert is_hit(again)
    assert again.body == first.body
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-turnout-model"] == first.headers["x-turnout-model"]
    assert again.headers["x-turnout-reason"] == "cache"
    assert again.headers["age"] == "0"
    assert len(upstream.seen) == 1
    paid, free = (row(one_caching.ledger, answer.decision_id) for answer in (first, again))
    assert paid["usd"] > 0
    assert paid["reason"] != "cache"
    assert (free["usd"], free["input_tokens"], free["output_tokens"], free["attempts"]) == (0.0, 0, 0, 0)
    assert (free["served"], free["provider"], free["reason"]) == (paid["served"], "cache", "cache")
    assert (free["status"], free["rule"], free["propensity"], free["scores"]) == (200, "again", None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"model": "small"},
        {"stream": True},
        {"user": "ann"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"headers": {"x-turnout-usd-per-quality": "1e-9", **LOOSE}},
        {"metadata": {"turnout": {"usd_per_quality": 0.5}}},
        {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a heron?"}]},
        {"messages": [{"role": "user", "content": "a heron?"}, {"role": "assistant", "content": "yes"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_may_change_the_answer_is_another_request(ready: Ready, change: dict[str, Any]) -> None:
    own = {"seed": zlib.crc32(repr(change).encode())}  # what the cases share nothing of
    assert not is_hit(says(ready, "a heron?", headers=LOOSE, **own))
    assert not is_hit(says(ready, "a heron?", **{"headers": LOOSE, **own, **change}))
    assert is_hit(says(ready, "a heron?", headers=LOOSE, metadata={"trace": "7"}, **own))


def test_a_near_message_counts_only_with_a_similarity(ready: Ready) -> None:
    first, near, far = "how do I bake a rye bread?", "how do i bake rye bread", "who wrote the Aeneid?"
    assert not is_hit(says(ready, first))
    assert not is_hit(says(ready, near))
    assert not is_hit(says(ready, first, headers=NEAR))
    found = says(ready, near, headers=NEAR)
    assert is_hit(found)
    assert 0.6 <= float(found.headers["x-turnout-cache"].rpartition("=")[2]) < 1.0
    assert not is_hit(says(ready, far, headers=NEAR))


def test_other_numbers_are_another_question(ready: Ready) -> None:
    texts = ["what is 17 minus 4?", "what is 4 minus 17?", "what is 17 minus 5?", "so what is 17 minus 4?"]
    hits = [is_hit(says(ready, text, headers=LOOSE, seed=1)) for text in texts]
    assert hits == [False, False, False, True]


def test_what_a_tool_answered_must_be_the_same(ready: Ready) -> None:
    def ask_about(result: str) -> Answer:
        use = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": CALL}]}
        told = {"role": "tool", "tool_call_id": "c", "content": result}
        turns = [{"role": "user", "content": "how warm is it?"}, use, told]
        return ask(ready.base_url, {"messages": turns}, headers=LOOSE)

    assert [is_hit(ask_about(result)) for result in ("warm", "rather warm", "warm")] == [False, False, True]


CALL = {"name": "warmth", "arguments": "{}"}


def test_the_client_may_ask_for_a_new_answer(ready: Ready, upstream: Upstream) -> None:
    secret = says(ready, "a secret", headers={"cache-control": "no-store"})
    assert "x-turnout-cache" not in secret.headers
    assert not is_hit(says(ready, "a secret"))
    assert not is_hit(says(ready, "a secret", headers={"cache-control": "max-age=0, no-cache"}))
    assert is_hit(says(ready, "a secret"))
    assert len(upstream.seen) == 3


@pytest.mark.parametrize("how", ["500", "cut", "error event", "ends early", "hangs up"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_what_did_not_come_whole_is_not_kept(
    ready: Ready, upstream: Upstream, how: str, is_stream: bool
) -> None:
    text = f"is {how} {is_stream}?"
    if not is_stream and how not in ("500", "hangs up"):
        how = "half a body"
    upstream.behave["small"] = upstream.behave["large"] = how
    says(ready, text, stream=is_stream)
    upstream.behave.clear()
    assert not is_hit(says(ready, text, stream=is_stream))
    assert is_hit(says(ready, text, stream=is_stream))


def test_tenants_share_nothing_unless_it_is_said(upstream: Upstream, tmp_path: Path) -> None:
    keys = {
        "ann": KeySettings(sha256=hashed("tk-a"), tenant="one", budget_usd=1.0),
        "bob": KeySettings(sha256=hashed("tk-b"), tenant="one"),
        "cid": KeySettings(sha256=hashed("tk-c"), tenant="two"),
    }
    for extra, others in ("", False), ("across_tenants = true\n", True):
        folder = tmp_path / str(others)
        folder.mkdir()
        with serving(upstream, folder, extra, keys=keys) as ready:
            hits = [
                is_hit(says(ready, "a heron?", headers={"authorization": f"Bearer tk-{name}"}))
                for name in "aabc"
            ]
        assert hits == [False, True, True, others]


def test_a_draw_by_chance_does_not_answer_for_others(upstream: Upstream, tmp_path: Path) -> None:
    config = config_with(tmp_path, RULE, upstream.base_url)
    config = msgspec.structs.replace(
        config, routing=msgspec.structs.replace(config.routing, explore_share=1.0)
    )
    with running(config, deployment=make_deployment()) as ready:
        answers = [says(ready, "a heron?") for _ in range(12)]
    fresh = [answer for answer in answers if not is_hit(answer)]
    # Asked anew until chance hits on the router's own choice, which is kept.
    assert {answer.headers["x-turnout-reason"] for answer in fresh[:-1]} <= {"explored"}
    assert fresh[-1].headers["x-turnout-reason"] != "explored"
    assert all(is_hit(answer) for answer in answers[len(fresh) :])


def test_a_hit_is_charged_to_no_budget(upstream: Upstream, tmp_path: Path) -> None:
    key = KeySettings(sha256=hashed("tk-a"), budget_usd=1.0)
    with serving(upstream, tmp_path, keys={"team": key}) as ready:
        answers = [says(ready, "a heron?", headers={"authorization": "Bearer tk-a"}) for _ in "abc"]
    assert [is_hit(answer) for answer in answers] == [False, True, True]
    paid = row(tmp_path / "ledger.sqlite", answers[0].decision_id)["usd"]
    with closing(sqlite3.connect(tmp_path / "k.sqlite")) as connection:
        assert connection.execute("SELECT spent_usd, held_usd FROM spend").fetchall() == [(paid, 0.0)]


def test_the_official_clients_read_what_is_given_again(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path) as ready:
        client = openai.OpenAI(base_url=ready.base_url, api_key="none", max_retries=0)
        said: list[Any] = [{"role": "user", "content": "a heron?"}]
        whole = [client.chat.completions.create(model="turnout/auto", messages=said) for _ in range(2)]
        assert whole[0] == whole[1]
        streams = [
            list(client.chat.completions.create(model="turnout/auto", messages=said, stream=True))
            for _ in range(2)
        ]
        assert streams[0] == streams[1]
        messages = anthropic.Anthropic(
            base_url=ready.base_url.removesuffix("/v1"), api_key="none", max_retries=0
        )
        told = [messages.messages.create(model="turnout/auto", max_tokens=9, messages=said) for _ in range(2)]
        assert told[0].content == told[1].content
        assert len(upstream.seen) == 3
        # Another version, or another beta, may be answered otherwise.
        for headers in (
            {"anthropic-beta": "a"},
            {"anthropic-beta": "b"},
            {"anthropic-version": "2030-01-01"},
        ):
            messages.messages.create(model="turnout/auto", max_tokens=9, messages=said, extra_headers=headers)
        assert len(upstream.seen) == 6


def test_an_outcome_table_holds_only_what_a_model_answered(one_caching: Caching) -> None:
    first, again = (says(one_caching.ready, "a bittern?") for _ in "ab")
    assert is_hit(again)
    assert row(one_caching.ledger, again.decision_id)["reason"] == "cache"
    names = {query.id for query in Ledger().read(one_caching.ledger).queries}
    assert first.decision_id in names
    assert again.decision_id not in names


def test_an_embedder_that_is_none_stops_the_start(upstream: Upstream, tmp_path: Path) -> None:
    for extra, word in (("similarity = 0.9\nembedder = 'txt'\n", "did you mean"), ("similarity = 2\n", "1")):
        with pytest.raises(ConfigError, match=r"rules\[0\]\.cache") as raised:
            build_app(config_with(tmp_path, RULE + extra), deployment=make_deployment())
        assert word in str(raised.value)


def test_answers_survive_a_reload_that_leaves_the_cache_as_it_is(upstream: Upstream, tmp_path: Path) -> None:
    config = config_with(tmp_path, RULE, upstream.base_url)
    deployment = make_deployment()
    before, after = (build_app(config, deployment=deployment).parts.rules for _ in range(2))
    changed = config_with(tmp_path, RULE + "ttl_s = 5\n", upstream.base_url)
    other = build_app(changed, deployment=deployment).parts.rules
    assert before is not None
    before.caches["again"].keep(ASKED, None, kept(0.0))
    for rules, is_kept in ((after, True), (other, False)):
        assert rules is not None
        rules.carry_over(before)
        assert (len(rules.caches["again"]) == 1) is is_kept


ASKED = Asked(bucket=b"b", text="a heron?", is_comparable=True)


def kept(born_s: float, body: bytes = b"{}") -> Kept:
    return Kept(content_type=b"", body=body, is_stream=False, served="small", born_s=born_s)


def test_an_answer_ages_and_dies() -> None:
    clock = ManualClock(start_s=100.0)
    cache = AnswerCache(settings=CacheSettings(ttl_s=10.0), clock=clock, where="w")
    cache.keep(ASKED, None, kept(100.0))
    clock.advance(9.5)
    hit = cache.exact(ASKED)
    assert hit is not None
    assert hit.age_s == pytest.approx(9.5)
    clock.advance(0.5)
    assert cache.exact(ASKED) is None
    assert len(cache) == 0


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    cache = AnswerCache(settings=CacheSettings(max_entries=2, max_mb=1e-4), clock=ManualClock(), where="w")
    asked = [Asked(bucket=b"b", text=text, is_comparable=True) for text in "abc"]
    for one in asked[:2]:
        cache.keep(one, None, kept(0.0))
    assert cache.exact(asked[0]) is not None
    cache.keep(asked[2], None, kept(0.0))
    assert [cache.exact(one) is not None for one in asked] == [True, False, True]
    cache.keep(asked[1], None, kept(0.0, b"x" * 97))
    assert [cache.exact(one) is not None for one in asked] == [False, True, False]
    cache.keep(asked[0], None, kept(0.0, b"x" * 100))
    assert [cache.exact(one) is not None for one in asked] == [False, True, False]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.booleans()), max_size=40))
def test_the_nearest_is_the_nearest_of_all_that_are_kept(steps: list[tuple[int, int, bool]]) -> None:
    """The matrix that grows and closes its gaps, against a plain search through everything kept."""
    rng = np.random.default_rng(0)
    space = rng.normal(size=(6, 3)).astype(np.float32)
    space /= np.linalg.norm(space, axis=1, keepdims=True)
    clock = ManualClock()
    cache = AnswerCache(settings=CacheSettings(similarity=0.2, max_entries=4), clock=clock, where="w")
    plain: dict[tuple[bytes, str], np.ndarray] = {}
    for bucket, word, is_kept in steps:
        asked = Asked(bucket=b"%d" % bucket, text="abcdef"[word], is_comparable=True)
        if is_kept:
            cache.keep(asked, space[word], kept(0.0, asked.text.encode()))
            plain.pop((asked.bucket, asked.text), None)
            plain[asked.bucket, asked.text] = space[word]
            while len(plain) > 4:
                del plain[next(iter(plain))]
            continue
        near = {text: float(x_F @ space[word]) for (b, text), x_F in plain.items() if b == asked.bucket}
        best = max(near, key=lambda text: near[text], default=None)
        hit = cache.near(asked, space[word])
        if best is None or near[best] < 0.2:
            assert hit is None
        else:
            assert hit is not None
            assert hit.kept.body == best.encode()
            plain[asked.bucket, best] = plain.pop((asked.bucket, best))


def test_an_embedder_that_may_take_its_time_is_asked_beside_the_loop() -> None:
    made = [
        AnswerCache(settings=CacheSettings(similarity=0.9, embedder=name), clock=ManualClock(), where="w")
        for name in ("signals", "text")
    ]
    assert [cache.is_slow for cache in made] == [True, False]
    assert all(cache.vector(ASKED) is not None for cache in made)
