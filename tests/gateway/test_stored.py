"""What an upstream keeps of Responses is asked for there, by who may, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import openai
import pytest

from tests.gateway.chat_told import completion
from tests.gateway.client import Answer, call
from tests.gateway.conftest import Served
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import hashed
from tests.gateway.told import Asked, Say, Told, sse, stream, told_server, whole
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_providers import AzureSettings, OpenAISettings

EASY, HARD = "an easy one", "prove it"


def kept(made_id: str, **more: object) -> dict:
    return {"id": made_id, "object": "response", "created_at": 1, "model": "m", "output": [], **more}


def say(name: str, asked: Asked) -> Say:
    """Do what OpenAI's API does, as far as these tests go."""
    path, _, query = asked.path.partition("?")
    if path.endswith("/chat/completions"):
        return whole(completion({"content": "x"}, "stop"))
    if asked.method == "POST" and path.endswith("/responses"):
        return whole(kept(f"resp_{name}", background=True, status="queued"))
    if path.endswith("/cancel"):
        return whole(kept(f"resp_{name}", status="cancelled"))
    if path.endswith("/input_items"):
        return whole({"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None})
    if asked.method == "DELETE":
        return whole({"id": f"resp_{name}", "object": "response", "deleted": True})
    if "stream=true" in query:
        return stream(sse({"type": "response.completed", "sequence_number": 1}, done=False), size=20)
    if name == "second":
        error = {"message": "gone", "type": "invalid_request_error", "param": None, "code": None}
        return whole({"error": error}, 404)
    return whole(kept(f"resp_{name}", status="completed"))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Told]]:
    with told_server() as first, told_server() as second:
        first.say, second.say = lambda asked: say("first", asked), lambda asked: say("second", asked)
        yield {"first": first, "second": second}


@pytest.fixture(scope="module")
def stand(servers: dict[str, Told], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("stored") / "ledger.sqlite"
    first, second = servers["first"].base_url, servers["second"].base_url
    config = msgspec.structs.replace(
        make_config("http://x", Path(ledger)),
        providers={
            "first": OpenAISettings(base_url=first),
            "second": AzureSettings(base_url=second.removesuffix("/v1")),
            "chat": OpenAISettings(base_url=first, apis=["chat"]),
        },
        default_provider="first",
        candidates={"large": CandidateSettings(provider="second")},
        models={"chatty": ModelSettings(provider="chat")},
        auth=AuthSettings(path=str(ledger.with_name("keys.sqlite"))),
        keys={
            name: KeySettings(sha256=hashed(f"sk-{name}"), tenant=name.partition("-")[0])
            for name in ("one", "one-more", "two")
        },
    )
    with running(config.check(), deployment=make_deployment((SMALL, LARGE))) as ready:
        yield Served(ready.base_url, ledger)


def client_of(stand: Served, key: str = "one") -> openai.OpenAI:
    return openai.OpenAI(base_url=stand.base_url, api_key=f"sk-{key}", max_retries=0, timeout=20)


def ask(stand: Served, path: str, *, method: str = "GET", key: str = "one") -> Answer:
    return call(
        stand.base_url,
        "/responses/" + path,
        method=method,
        headers={"authorization": f"Bearer sk-{key}"},
    )


def test_the_client_gets_cancels_and_deletes_where_it_was_made(
    stand: Served, servers: dict[str, Told]
) -> None:
    first = servers["first"]
    with client_of(stand) as client:
        made = client.responses.create(model="turnout/auto", input=EASY, background=True)
        assert made.id == "resp_first"
        assert client.responses.retrieve("resp_first").status == "completed"
        assert (first.last.method, first.last.path, first.last.body) == (
            "GET",
            "/v1/responses/resp_first",
            b"",
        )
        assert client.responses.cancel("resp_first").status == "cancelled"
        assert (first.last.method, first.last.path) == ("POST", "/v1/responses/resp_first/cancel")
        assert list(client.responses.input_items.list("resp_first", limit=5)) == []
        assert first.last.path == "/v1/responses/resp_first/input_items?limit=5"
        events = list(client.responses.retrieve("resp_first", stream=True, starting_after=0))
        assert [event.type for event in events] == ["response.completed"]
        client.responses.delete("resp_first")
        assert (first.last.method, first.last.path) == ("DELETE", "/v1/responses/resp_first")
        client.responses.create(model="turnout/auto", input=HARD)
        with pytest.raises(openai.NotFoundError, match="gone"):
            client.responses.retrieve("resp_second")
        asked = servers["second"].last
        assert asked.path.startswith("/openai/responses/resp_second?api-version=")


def test_who_may_not_know_of_it_and_what_nobody_made_are_404s(
    stand: Served, servers: dict[str, Told]
) -> None:
    with client_of(stand) as client:
        client.responses.create(model="turnout/auto", input=EASY)
        translated = client.responses.create(model="chatty", input=EASY).id
    assert ask(stand, "resp_first", key="one-more").status == 200
    seen = len(servers["first"].seen)
    for answer in (
        ask(stand, "resp_first", key="two"),
        ask(stand, "resp_first", key="two", method="DELETE"),
        ask(stand, "resp_first/cancel", key="two", method="POST"),
        ask(stand, "resp_nobody"),
        ask(stand, translated),
    ):
        assert (answer.status, answer.error["code"]) == (404, "response_not_found")
    for path, method in (("resp_first/odd", "GET"), ("resp_first", "POST"), ("resp_first/cancel", "DELETE")):
        assert ask(stand, path, method=method).error["code"] == "unknown_url"
    assert ask(stand, "resp_first", method="PUT").status == 405
    assert ask(stand, "resp_first", key="nobody").status == 401
    assert len(servers["first"].seen) == seen


def test_an_upstream_that_fails_is_told_as_such(stand: Served, servers: dict[str, Told]) -> None:
    with client_of(stand) as client:
        client.responses.create(model="turnout/auto", input=EASY)
    first = servers["first"]
    before = first.say
    try:
        first.say = lambda _: whole({"error": {"message": "down"}}, 500)
        answer = ask(stand, "resp_first")
        assert (answer.status, json.loads(answer.body)["error"]["message"]) == (500, "down")
        first.say = lambda _: Say([b"data: {}\n\n", b"data"], kind="text/event-stream", is_cut=True)
        body = ask(stand, "resp_first?stream=true").body
        assert body.startswith(b"data: {}\n\n")
        assert b"event: error\n" in body
        first.say = lambda _: Say([b"{", b"}"], is_cut=True)
        assert ask(stand, "resp_first").error["code"] == "upstream_cut"
    finally:
        first.say = before


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/x"), ("POST", "/x"), ("DELETE", "/x"), ("GET", "/x/messages")]
)
def test_stored_chat_completions_are_refused_in_a_sentence(gateway: Served, method: str, path: str) -> None:
    body = b"{}" if method == "POST" else None
    answer = call(gateway.base_url, f"/chat/completions{path}", method=method, body=body)
    assert (answer.status, answer.error["code"]) == (404, "completions_not_kept")
    assert "or use Responses" in answer.error["message"]
