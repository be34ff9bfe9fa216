"""OpenAI's client makes conversations through a gateway, and goes on from them where they are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.client import Answer, call, check_advice, rows
from tests.gateway.conftest import Served
from tests.gateway.keeping import Keeping, not_found
from tests.gateway.pool import LARGE, SMALL, THINKING, make_deployment
from tests.gateway.servers import RedisServer
from tests.gateway.settings import make_config
from tests.gateway.test_keys import hashed
from tests.gateway.told import Told, stream, told_server, whole
from turnout.gateway.config import Config
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_providers import OpenAISettings
from turnout.gateway.settings_rules import RuleSettings
from turnout.gateway.settings_shared import SharedSettings
from turnout.gateway.settings_signals import KeywordSettings, TenantSettings

EASY, HARD = "an easy one", "prove it"
EFFORT = "large[effort=high,max_output_tokens=500]"
HELLO = {"role": "user", "content": "hello"}
POOL = (SMALL, LARGE, THINKING)


class Upstreams:
    """`first` serves `small`, `second` the two others; a third keeps nothing."""

    def __init__(self, servers: dict[str, Told]) -> None:
        self.servers = servers
        self.memories = {name: Keeping(name) for name in servers}
        for name, server in servers.items():
            server.seen.clear()
            server.say = self.memories[name].say

    def config(self, ledger: Path, **changes: Any) -> Config:
        """Return settings of a gateway before them."""
        providers = {name: OpenAISettings(base_url=one.base_url) for name, one in self.servers.items()}
        providers["chat"] = OpenAISettings(base_url=self.servers["first"].base_url, apis=["chat"])
        keys = {
            name: KeySettings(sha256=hashed(f"sk-{name}"), tenant=name.partition("-")[0])
            for name in ("one", "one-more", "two")
        }
        keys["narrow"] = KeySettings(sha256=hashed("sk-narrow"), models=["small"])
        keys["chatty"] = KeySettings(sha256=hashed("sk-chatty"), models=["chatty"])
        settings: dict[str, Any] = {
            "providers": providers,
            "default_provider": "first",
            "candidates": {name: CandidateSettings(provider="second") for name in ("large", EFFORT)},
            "models": {"chatty": ModelSettings(provider="chat")},
            "auth": AuthSettings(path=str(ledger.with_name("keys.sqlite"))),
            "keys": keys,
        }
        return msgspec.structs.replace(make_config("http://x", ledger), **{**settings, **changes}).check()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Told]]:
    with told_server() as first, told_server() as second:
        yield {"first": first, "second": second}


@pytest.fixture
def upstreams(servers: dict[str, Told]) -> Upstreams:
    return Upstreams(servers)


@contextmanager
def gateway(upstreams: Upstreams, ledger: Path, **changes: Any) -> Iterator[Served]:
    with running(upstreams.config(ledger, **changes), deployment=make_deployment(POOL)) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture
def stand(upstreams: Upstreams, tmp_path: Path) -> Iterator[Served]:
    with gateway(upstreams, tmp_path / "ledger.sqlite") as served:
        yield served


@contextmanager
def client_of(stand: Served, key: str = "one") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stand.base_url, api_key=f"sk-{key}", max_retries=0, timeout=20) as client:
        yield client


def ask(
    stand: Served, path: str, *, method: str = "GET", key: str = "one", body: Any = None, **headers: str
) -> Answer:
    sent = {"authorization": f"Bearer sk-{key}"} | {
        name.replace("_", "-"): one for name, one in headers.items()
    }
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return call(stand.base_url, path, method=method, body=raw, headers=sent)


def test_the_client_makes_reads_writes_and_deletes_where_it_is_kept(
    stand: Served, upstreams: Upstreams
) -> None:
    kept = upstreams.memories["second"]
    with client_of(stand) as client:
        made = client.conversations.create(items=[HELLO], metadata={"topic": "x"})  # type: ignore[list-item]
        assert (made.id, made.object, made.metadata) == ("conv_second_1", "conversation", {"topic": "x"})
        assert client.conversations.retrieve(made.id).metadata == {"topic": "x"}
        assert client.conversations.update(made.id, metadata={"topic": "y"}).metadata == {"topic": "y"}
        added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "more"}])
        assert [item.type for item in added.data] == ["message"]
        assert kept.texts(made.id) == ["hello", "more"]
        page = client.conversations.items.list(made.id, limit=1, order="asc")
        assert (len(page.data), page.has_more) == (1, True)
        assert upstreams.servers["second"].last.path == f"/v1/conversations/{made.id}/items?limit=1&order=asc"
        item_id = kept.items[made.id][0]["id"]
        assert client.conversations.items.retrieve(item_id, conversation_id=made.id).type == "message"
        assert client.conversations.items.delete(item_id, conversation_id=made.id).id == made.id
        assert kept.texts(made.id) == ["more"]
        assert client.conversations.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError, match=f"Conversation with id '{made.id}' not found"):
            client.conversations.retrieve(made.id)
    assert rows(stand.ledger) == [], "they ask no model"
    assert upstreams.servers["first"].seen == []


def test_responses_go_on_where_the_conversation_is_kept(stand: Served, upstreams: Upstreams) -> None:
    with client_of(stand) as client:
        made = client.conversations.create()
        for conversation in (made.id, {"id": made.id}):
            raw = client.responses.with_raw_response.create(
                model="turnout/auto",
                input=EASY,
                conversation=conversation,  # type: ignore[arg-type]
            )
            assert (raw.headers["x-turnout-provider"], raw.headers["x-turnout-reason"]) == (
                "second",
                "pinned",
            )
        assert upstreams.memories["second"].texts(made.id) == [EASY, EASY]
        with pytest.raises(openai.BadRequestError, match="cannot go on from what this request builds on"):
            client.responses.create(model="small", input=EASY, conversation=made.id)


def test_who_may_not_know_of_it_and_what_nobody_made_are_404s(stand: Served, upstreams: Upstreams) -> None:
    with client_of(stand) as client:
        made_id = client.conversations.create().id
    with client_of(stand, "two") as other:
        own = other.responses.create(model="turnout/auto", input=HARD, metadata={"id": "resp_of_two"}).id
    assert ask(stand, f"/conversations/{made_id}", key="one-more").status == 200
    num_seen = len(upstreams.servers["second"].seen)
    item: Any = {"items": [HELLO]}
    for path, method, key, body in (
        (made_id, "GET", "two", None),
        (made_id, "POST", "two", {"metadata": {}}),
        (made_id, "DELETE", "two", None),
        (f"{made_id}/items", "GET", "two", None),
        (f"{made_id}/items", "POST", "two", item),
        (f"{made_id}/items/msg_1", "GET", "two", None),
        (f"{made_id}/items/msg_1", "DELETE", "two", None),
        ("conv_nobody", "GET", "one", None),
        ("conv_nobody/items", "POST", "one", item),
        ("resp_second", "GET", "one", None),
    ):
        answer = ask(stand, f"/conversations/{path}", method=method, key=key, body=body)
        assert (answer.status, answer.error["code"]) == (404, "conversation_not_found"), path
        check_advice(answer.error["message"])
    body = {"model": "turnout/auto", "input": EASY, "conversation": made_id}
    for more in ({}, {"previous_response_id": own}):
        foreign = ask(stand, "/responses", method="POST", key="two", body=body | more)
        assert (foreign.status, foreign.error["code"]) == (404, "conversation_not_found")
    assert ask(stand, f"/responses/{made_id}").error["code"] == "response_not_found"
    assert len(upstreams.servers["second"].seen) == num_seen, "nobody upstream is asked"
    for path in (
        f"{made_id}/odd",
        f"{made_id}/items/a/b",
        f"{made_id}/items/..",
        f"{made_id}/items/",
        "../models",
    ):
        assert ask(stand, f"/conversations/{path}").error["code"] == "unknown_url", path
    assert ask(stand, f"/conversations/{made_id}", method="PUT").status == 405
    assert ask(stand, "/conversations").status == 405
    assert ask(stand, f"/conversations/{made_id}", key="nobody").status == 401
    assert ask(stand, "/conversations", method="POST", key="nobody").status == 401


def test_what_nobody_here_made_is_for_the_upstream_to_know(stand: Served) -> None:
    with client_of(stand) as client, pytest.raises(openai.NotFoundError, match="'conv_elsewhere' not found"):
        client.responses.create(model="turnout/auto", input=HARD, conversation="conv_elsewhere")


def test_it_is_made_where_most_of_what_the_client_may_ask_for_is_served(stand: Served) -> None:
    def made_at(key: str, **headers: str) -> str:
        answer = ask(stand, "/conversations", method="POST", key=key, body={}, **headers)
        assert answer.status == 200, answer.body
        return answer.headers["x-turnout-provider"]

    assert made_at("one") == "second", "two of the three candidates"
    assert made_at("narrow") == "first", "all that this key may ask for"
    assert made_at("one", x_turnout_model="small") == "first"
    assert made_at("one", x_turnout_model=EFFORT) == "second"
    for key, model, status, code in (
        ("one", "smal", 404, "model_not_found"),
        ("narrow", "large", 403, "model_not_allowed"),
        ("one", "chatty", 400, "not_supported"),
        ("chatty", "chatty", 400, "not_supported"),
    ):
        answer = ask(stand, "/conversations", method="POST", key=key, body={}, x_turnout_model=model)
        assert (answer.status, answer.error["code"]) == (status, code)
        check_advice(answer.error["message"])


def test_who_fails_or_has_no_such_path_is_passed_over(stand: Served, upstreams: Upstreams) -> None:
    first, second = upstreams.servers["first"], upstreams.servers["second"]
    for say in (lambda _: whole({}, 503), lambda _: not_found("Path"), lambda _: whole({}, 429)):
        second.say = say
        answer = ask(stand, "/conversations", method="POST", body={})
        assert (answer.status, answer.headers["x-turnout-provider"]) == (200, "first")
    first.say = lambda _: not_found("Path")
    second.say = lambda _: not_found("Path")
    answer = ask(stand, "/conversations", method="POST", body={})
    assert (answer.status, answer.error["code"]) == (400, "not_supported")
    assert "second: 404, first: 404" in answer.error["message"]
    second.say = lambda _: whole({"error": {"message": "too many items"}}, 400)
    assert ask(stand, "/conversations", method="POST", body={}).json == {
        "error": {"message": "too many items"}
    }
    second.say = lambda _: whole({"error": {"message": "down"}}, 503)
    assert ask(stand, "/conversations", method="POST", body={}).status == 503
    second.say = lambda _: whole({"object": "conversation"})
    assert ask(stand, "/conversations", method="POST", body={}).status == 200, (
        "without an id nothing is pinned"
    )


def test_a_pool_of_which_none_keeps_any_says_so(upstreams: Upstreams, tmp_path: Path) -> None:
    base_url = upstreams.servers["first"].base_url
    chat = {"main": OpenAISettings(base_url=base_url, apis=["chat", "responses"])}
    changes: dict[str, Any] = {"providers": chat, "default_provider": "main", "candidates": {}}
    changes |= {"models": {"chatty": ModelSettings()}}
    with gateway(upstreams, tmp_path / "ledger.sqlite", **changes) as stand, client_of(stand) as client:
        with pytest.raises(openai.BadRequestError, match="no provider here keeps conversations") as told:
            client.conversations.create(items=[HELLO])  # type: ignore[list-item]
        assert told.value.code == "not_supported"
    assert upstreams.servers["first"].seen == []


@pytest.mark.parametrize("shared", ["file", "redis"])
def test_another_worker_host_or_start_knows_it_too(
    upstreams: Upstreams, tmp_path: Path, shared: str, request: pytest.FixtureRequest
) -> None:
    changes: dict[str, Any] = {}
    if shared == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        changes["shared"] = SharedSettings(redis=server.url, redis_prefix=tmp_path.name)
    here = tmp_path / "here.sqlite"
    # Hosts have a ledger each; processes of one host share theirs.
    there = tmp_path / "there.sqlite" if shared == "redis" else here
    with gateway(upstreams, here, **changes) as one, client_of(one) as client:
        made_id = client.conversations.create().id
        with gateway(upstreams, there, **changes) as other:
            assert ask(other, f"/conversations/{made_id}").json["id"] == made_id
            assert ask(other, f"/conversations/{made_id}", key="two").status == 404
            body = {"model": "turnout/auto", "input": EASY, "conversation": made_id}
            answer = ask(other, "/responses", method="POST", body=body)
            assert answer.headers["x-turnout-provider"] == "second"
    with gateway(upstreams, there, **changes) as later:
        assert ask(later, f"/conversations/{made_id}").status == 200


def test_a_conversation_outlasts_its_responses_in_redis(
    upstreams: Upstreams, tmp_path: Path, redis: RedisServer
) -> None:
    from redis import Redis

    shared = SharedSettings(redis=redis.url, redis_prefix=tmp_path.name)
    with gateway(upstreams, tmp_path / "ledger.sqlite", shared=shared) as stand, client_of(stand) as client:
        made = client.conversations.create()
        client.responses.create(model="turnout/auto", input=EASY, conversation=made.id)
    with Redis.from_url(redis.url) as store:
        left_s = sorted(store.ttl(name) for name in store.keys(f"{tmp_path.name}:pin:*"))
    assert 29 * 86_400 < left_s[0] <= 30 * 86_400
    assert 364 * 86_400 < left_s[1] <= 365 * 86_400


def test_rules_hold_for_what_is_written(upstreams: Upstreams, tmp_path: Path) -> None:
    signals = {"secret": KeywordSettings(words=["secret"]), "two": TenantSettings(tenants=["two"])}
    rules = [
        RuleSettings(name="no secrets", when="secret", block="No secrets here."),
        RuleSettings(
            name="two", when="two", go_on=True, candidates=["small"], request_headers={"openai-project": "p2"}
        ),
        RuleSettings(name="all", redact=["EMAIL_ADDRESS"], response_headers={"x-seen": "yes"}),
    ]
    with gateway(upstreams, tmp_path / "ledger.sqlite", signals=signals, rules=rules) as stand:
        mail = {
            "items": [{"role": "user", "content": "to ann@example.com"}],
            "metadata": {"who": "ann@example.com"},
        }
        made = ask(stand, "/conversations", method="POST", body=mail)
        assert (made.headers["x-turnout-rule"], made.headers["x-seen"]) == ("all", "yes")
        kept, made_id = upstreams.memories["second"], made.json["id"]
        assert kept.texts(made_id) == ["to [EMAIL_ADDRESS_1]"]
        assert kept.kept[made_id]["metadata"] == {"who": "[EMAIL_ADDRESS_1]"}
        assert ask(stand, f"/conversations/{made_id}/items", method="POST", body=mail).status == 200
        assert kept.texts(made_id) == ["to [EMAIL_ADDRESS_1]"] * 2
        said = {"items": [{"role": "user", "content": "a secret"}]}
        for path in ("/conversations", f"/conversations/{made_id}/items"):
            answer = ask(stand, path, method="POST", body=said)
            assert (answer.status, answer.error["code"]) == (403, "blocked_by_rule")
        assert kept.texts(made_id) == ["to [EMAIL_ADDRESS_1]"] * 2
        # The rule leaves this tenant one candidate, and says whose account is meant, whatever the call.
        other = ask(stand, "/conversations", method="POST", key="two", body={})
        assert other.headers["x-turnout-provider"] == "first"
        assert ask(stand, f"/conversations/{other.json['id']}", key="two").status == 200
        assert upstreams.servers["first"].last.headers["openai-project"] == "p2"
        wrong = ask(stand, "/conversations", method="POST", body={"items": [1]})
        assert (wrong.status, wrong.error["param"]) == (400, "items")
        check_advice(wrong.error["message"])


def test_bytes_are_passed_on_as_they_came(stand: Served, upstreams: Upstreams) -> None:
    body = b'{"items": [ {"role":"user", "content":"a\\u00e9", "vendor": 1.50} ], "more": {"x":1e2}}'
    answer = ask(stand, "/conversations", method="POST", body=body)
    sent = upstreams.servers["second"].last
    assert b'[ {"role":"user", "content":"a\\u00e9", "vendor": 1.50} ]' in sent.body
    assert b'"more":{"x":1e2}' in sent.body
    assert answer.body == json.dumps(upstreams.memories["second"].kept[answer.json["id"]]).encode()
    assert ask(stand, "/conversations", method="POST").status == 200, "a body is not asked for"
    for bad in (b"[]", b"{", b'"x"'):
        assert ask(stand, "/conversations", method="POST", body=bad).error["code"] == "invalid_json"


def test_a_stream_that_names_a_conversation_pins_it(stand: Served, upstreams: Upstreams) -> None:
    """A response that begins a conversation by itself, as its stream says, pins what follows."""
    told = {"id": "resp_s", "object": "response", "output": [], "conversation": {"id": "conv_of_stream"}}
    events = b"".join(
        b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps({"type": kind, "response": told}).encode())
        for kind in ("response.created", "response.completed")
    )
    upstreams.servers["first"].say = lambda _: stream(events, size=40)
    body = {"model": "small", "input": EASY, "stream": True}
    assert ask(stand, "/responses", method="POST", body=body).body == events
    upstreams.servers["first"].say = upstreams.memories["first"].say
    kept = ask(stand, "/conversations/conv_of_stream")
    assert (kept.status, kept.json["error"]["message"]) == (
        404,
        "Conversation with id 'conv_of_stream' not found.",
    )
    assert upstreams.servers["first"].last.path == "/v1/conversations/conv_of_stream", "it was asked there"
    assert ask(stand, "/conversations/conv_of_stream", key="two").error["code"] == "conversation_not_found"


@pytest.mark.parametrize("how", ["written", "listed", "read"])
def test_an_item_of_a_conversation_can_be_referred_to_where_it_is_kept(
    stand: Served, upstreams: Upstreams, how: str
) -> None:
    with client_of(stand) as client:
        made = client.conversations.create(items=[] if how == "written" else [HELLO])  # type: ignore[list-item]
        if how == "written":
            client.conversations.items.create(made.id, items=[{"role": "user", "content": "more"}])
        elif how == "listed":
            client.conversations.items.list(made.id)
        item_id = upstreams.memories["second"].items[made.id][-1]["id"]
        if how == "read":
            client.conversations.items.retrieve(item_id, conversation_id=made.id)
    body = {
        "model": "turnout/auto",
        "input": [{"type": "item_reference", "id": item_id}, {"role": "user", "content": EASY}],
    }
    followed = ask(stand, "/responses", method="POST", body=body)
    assert (followed.headers["x-turnout-provider"], followed.headers["x-turnout-reason"]) == (
        "second",
        "pinned",
    )
    refused = ask(stand, "/responses", method="POST", body=body, key="two")
    assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")
