"""OpenAI's client speaks Responses through a gateway before two providers, each with a memory of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.chat_told import completion
from tests.gateway.client import Answer, call, check_advice, row
from tests.gateway.conftest import Served
from tests.gateway.pool import LARGE, SMALL, THINKING, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import hashed
from tests.gateway.told import Asked, Say, Told, stream, told_server, whole
from turnout.gateway.config import Config
from turnout.gateway.lifecycle import Ready, running
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_providers import OpenAISettings

EFFORT = "large[effort=high,max_output_tokens=500]"
USAGE = {
    "input_tokens": 150,
    "input_tokens_details": {"cached_tokens": 100},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 159,
}
HARD, EASY = "prove it", "an easy one"


def response(name: str, **more: Any) -> dict[str, Any]:
    """Return a whole response, with reasoning that only its maker can read."""
    text = {"type": "output_text", "text": "It is 391.", "annotations": []}
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": f"{name}-0613",
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": f"sealed by {name}"},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]},
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        **more,
    }


def events(name: str) -> bytes:
    """Return the stream of the same response."""
    begun = response(name, status="in_progress", output=[], usage=None)
    delta = {"item_id": "msg_1", "output_index": 1, "content_index": 0, "logprobs": []}
    told: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    told += [
        {"type": "response.output_text.delta", "delta": part, **delta} for part in ("It ", "is ", "391.")
    ]
    told.append({"type": "response.completed", "response": response(name)})
    lines = [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': at})}\n\n"
        for at, event in enumerate(told)
    ]
    return "".join(lines).encode()


def answer_for(name: str, asked: Asked) -> Say:
    return stream(events(name)) if asked.json.get("stream") else whole(response(name))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Told]]:
    with told_server() as first, told_server() as second:
        yield {"first": first, "second": second}


@pytest.fixture(scope="module")
def stand(servers: dict[str, Told], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose `small` is at `first` and whose `large` is at `second`."""
    ledger = tmp_path_factory.mktemp("responses") / "ledger.sqlite"
    with running(config_of(servers, ledger), deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
        yield Served(ready.base_url, ledger)


def config_of(servers: dict[str, Told], ledger: Path) -> Config:
    return msgspec.structs.replace(
        make_config("http://x", ledger),
        providers={name: OpenAISettings(base_url=server.base_url) for name, server in servers.items()}
        | {"chat": OpenAISettings(base_url=servers["first"].base_url, apis=["chat"])},
        default_provider="first",
        candidates={name: CandidateSettings(provider="second") for name in ("large", EFFORT)},
        models={"chat only": ModelSettings(provider="chat")},
    ).check()


@pytest.fixture
def served(stand: Served, servers: dict[str, Told]) -> Served:
    for name, server in servers.items():
        server.seen.clear()
        server.say = lambda asked, name=name: answer_for(name, asked)  # type: ignore[misc]
    return stand


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def post(served: Served, **fields: Any) -> Answer:
    body = {"model": "turnout/auto", "input": EASY, **fields}
    return call(served.base_url, "/responses", method="POST", body=json.dumps(body, indent=1).encode())


def test_the_client_gets_its_answer_and_bytes_stay_as_they_are(
    client: openai.OpenAI, served: Served, servers: dict[str, Told]
) -> None:
    got = client.responses.create(model="turnout/auto", input=EASY)
    assert (got.id, got.output_text, got.model) == ("resp_first", "It is 391.", "first-0613")
    answer = post(served, vendor={"x": [1.50, None]})
    assert answer.body == json.dumps(response("first")).encode()
    sent = servers["first"].last
    assert (sent.path, sent.json["model"]) == ("/v1/responses", "small")
    assert b'"vendor":{\n  "x": [\n   1.5,\n   null\n  ]\n }' in sent.body
    found = row(served.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)
    assert found["usage_estimated"] == 0


def test_a_stream_is_passed_on_byte_for_byte(client: openai.OpenAI, served: Served) -> None:
    answer = post(served, stream=True)
    assert answer.body == events("first")
    found = row(served.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)
    with client.responses.create(model="turnout/auto", input=EASY, stream=True) as told:
        numbers = [event.sequence_number for event in told]
    assert numbers == [0, 1, 2, 3, 4]


def test_a_candidate_sets_its_effort_and_its_budget(served: Served, servers: dict[str, Told]) -> None:
    post(served, model=EFFORT, reasoning={"summary": "auto"}, max_output_tokens=9000)
    sent = servers["second"].last.json
    assert (sent["reasoning"], sent["max_output_tokens"]) == ({"summary": "auto", "effort": "high"}, 500)
    post(served, model=EFFORT, max_output_tokens=20)
    assert servers["second"].last.json["max_output_tokens"] == 20


def test_what_the_router_reads(served: Served, servers: dict[str, Told]) -> None:
    part = [{"type": "input_text", "text": EASY}]
    items: list[Any] = [{"role": "user", "content": HARD}, {"role": "user", "content": part}]
    items.append({"type": "function_call_output", "call_id": "c", "output": "391"})
    assert post(served, input=items).headers["x-turnout-model"] == "small"
    image = [
        {
            "role": "user",
            "content": [*part, {"type": "input_image", "image_url": "data:image/png;base64,aGk="}],
        }
    ]
    assert post(served, input=image).headers["x-turnout-model"] != "small", "it has no eyes"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_conversation_stays_with_the_provider_that_keeps_it(
    served: Served, servers: dict[str, Told], is_stream: bool
) -> None:
    post(served, input=EASY, stream=is_stream)
    post(served, input=HARD, stream=is_stream)
    assert post(served, input=HARD).headers["x-turnout-provider"] == "second"
    follow = post(served, input=HARD, previous_response_id="resp_first")
    assert follow.headers["x-turnout-provider"] == "first"
    assert (follow.headers["x-turnout-reason"], follow.headers["x-turnout-model"]) == ("pinned", "small")
    assert row(served.ledger, follow.decision_id)["chosen"] == "small"
    assert (
        post(served, input=EASY, previous_response_id="resp_second").headers["x-turnout-provider"] == "second"
    )


def test_an_explanation_counts_what_is_gone_on_from(served: Served) -> None:
    def explain(**fields: Any) -> dict[str, Any]:
        body = json.dumps({"model": "turnout/auto", "input": HARD, **fields}).encode()
        return call(served.base_url, "/route", method="POST", body=body).json

    post(served, input=EASY)
    alone, follow = explain(), explain(previous_response_id="resp_first")
    assert (follow["chosen"], follow["reason"]) == ("small", "pinned")
    # 150 that the first answer was made from, and its 9.
    assert follow["request"]["input_tokens"] == alone["request"]["input_tokens"] + 159


def test_another_gateway_on_the_same_ledger_knows_it_too(served: Served, servers: dict[str, Told]) -> None:
    post(served, input=EASY)
    config = config_of(servers, served.ledger)
    with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
        other = Served(ready.base_url, served.ledger)
        assert post(other, input=HARD).headers["x-turnout-provider"] == "second"
        follow = post(other, input=HARD, previous_response_id="resp_first")
    assert (follow.headers["x-turnout-provider"], follow.headers["x-turnout-reason"]) == ("first", "pinned")


def test_another_tenant_cannot_go_on_from_it(servers: dict[str, Told], tmp_path: Path) -> None:
    for name, server in servers.items():
        server.say = lambda asked, name=name: answer_for(name, asked)  # type: ignore[misc]
    keys = {name: KeySettings(sha256=hashed(f"tk-{name}")) for name in ("ann", "bob")}
    auth = AuthSettings(path=str(tmp_path / "keys.sqlite"))
    config = msgspec.structs.replace(config_of(servers, tmp_path / "l.sqlite"), keys=keys, auth=auth)
    with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:

        def follow(name: str, **fields: Any) -> Answer:
            body = json.dumps({"model": "turnout/auto", "input": EASY, **fields}).encode()
            headers = {"authorization": f"Bearer tk-{name}"}
            return call(ready.base_url, "/responses", method="POST", body=body, headers=headers)

        assert follow("ann").status == 200
        assert follow("ann", previous_response_id="resp_first").status == 200
        refused = follow("bob", previous_response_id="resp_first")
    assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")
    check_advice(refused.error["message"])


def test_an_item_that_is_referred_to_stays_with_who_keeps_it_and_with_its_tenant(
    servers: dict[str, Told], tmp_path: Path
) -> None:
    message = {"type": "message", "id": "msg_77", "role": "assistant", "content": []}

    def say(name: str, asked: Asked) -> Say:
        return whole(response(name, output=[message] if name == "first" else []))

    for name, server in servers.items():
        server.say = lambda asked, name=name: say(name, asked)  # type: ignore[misc]
    keys = {name: KeySettings(sha256=hashed(f"tk-{name}")) for name in ("ann", "bob")}
    auth = AuthSettings(path=str(tmp_path / "keys.sqlite"))
    config = msgspec.structs.replace(config_of(servers, tmp_path / "l.sqlite"), keys=keys, auth=auth)
    with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:

        def asked_by(name: str, given: Any, **fields: Any) -> Answer:
            body = json.dumps({"model": "turnout/auto", "input": given, **fields}).encode()
            headers = {"authorization": f"Bearer tk-{name}"}
            return call(ready.base_url, "/responses", method="POST", body=body, headers=headers)

        assert asked_by("ann", EASY).headers["x-turnout-provider"] == "first"
        for reference in ({"type": "item_reference", "id": "msg_77"}, {"id": "msg_77"}):
            items = [reference, {"role": "user", "content": HARD}]
            follow = asked_by("ann", items)
            assert (follow.headers["x-turnout-provider"], follow.headers["x-turnout-reason"]) == (
                "first",
                "pinned",
            )
            for fields in ({}, {"model": "small"}):
                refused = asked_by("bob", items, **fields)
                assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")
        sent_along = [message, {"role": "user", "content": HARD}]
        assert asked_by("bob", sent_along).status == 200, "what is sent in full is the client's own"


def test_encrypted_reasoning_goes_back_to_who_encrypted_it(served: Served) -> None:
    post(served, input=EASY)
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed by first"}
    items = [{"role": "user", "content": HARD}, sealed, {"role": "user", "content": HARD}]
    assert post(served, input=items).headers["x-turnout-provider"] == "first"
    sealed["encrypted_content"] = "sealed by nobody here"
    assert post(served, input=items).headers["x-turnout-provider"] == "second"


def test_a_conversation_by_its_id_is_kept_too(served: Served, servers: dict[str, Told]) -> None:
    kept = response("first", conversation={"id": "conv_1"})
    servers["first"].say = lambda _: whole(kept)
    post(served, input=EASY)
    for conversation in ("conv_1", {"id": "conv_1"}):
        assert post(served, input=HARD, conversation=conversation).headers["x-turnout-provider"] == "first"


def test_a_pinned_request_does_not_fall_back_to_who_knows_nothing_of_it(
    served: Served, servers: dict[str, Told]
) -> None:
    post(served, input=EASY)
    servers["second"].seen.clear()
    servers["first"].say = lambda _: whole({}, 500)
    assert post(served, input=EASY, previous_response_id="resp_first").status == 502
    assert servers["second"].seen == []
    assert post(served, input=EASY).headers["x-turnout-provider"] == "second"


def test_naming_a_candidate_elsewhere_is_refused(served: Served) -> None:
    post(served, input=EASY)
    answer = post(served, model="large", previous_response_id="resp_first")
    assert (answer.status, answer.error["code"]) == (400, "made_elsewhere")


def test_who_speaks_chat_only_is_asked_in_chat(served: Served, servers: dict[str, Told]) -> None:
    servers["first"].say = lambda _: whole(completion({"role": "assistant", "content": "391"}, "stop"))
    answer = post(served, model="chat only")
    assert answer.json["output"][0]["content"][0]["text"] == "391"
    assert servers["first"].last.path == "/v1/chat/completions"


def test_a_cut_stream_ends_in_an_error(
    client: openai.OpenAI, served: Served, servers: dict[str, Told]
) -> None:
    cut = b"".join(part + b"\n\n" for part in events("first").split(b"\n\n")[:3])
    servers["first"].say = lambda _: stream(cut)
    answer = post(served, stream=True)
    last = answer.body.split(b"\n\n")[-2]
    assert last.startswith(b"event: error\n")
    assert row(served.ledger, answer.decision_id)["error"] == "upstream_cut"
    told = client.responses.create(model="turnout/auto", input=EASY, stream=True)
    with pytest.raises(openai.APIError), told:
        list(told)


def test_a_request_without_a_model_is_the_routers(served: Served) -> None:
    answer = call(served.base_url, "/responses", method="POST", body=json.dumps({"input": EASY}).encode())
    assert answer.status == 200
    assert row(served.ledger, answer.decision_id)["requested_model"] == "turnout/auto"


@pytest.mark.parametrize("body", [b"{", b'{"model": "small", "input": 5}', b'{"model": 5}', b"[]"])
def test_a_wrong_body_is_a_400(served: Served, body: bytes) -> None:
    answer = call(served.base_url, "/responses", method="POST", body=body)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("follows", [{"previous_response_id": "resp_long"}, {"conversation": "conv_long"}])
def test_what_a_request_goes_on_from_is_reserved_too(
    servers: dict[str, Told], tmp_path: Path, is_stream: bool, follows: dict[str, str]
) -> None:
    usage = USAGE | {"input_tokens": 200_000, "output_tokens": 100_000, "total_tokens": 300_000}
    kept = response("long", usage=usage, conversation={"id": "conv_long"})
    begun = kept | {"status": "in_progress", "output": [], "usage": None}
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.completed", "response": kept},
    ]
    streamed = b"".join(
        b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in told
    )
    servers["first"].say = lambda _: stream(streamed) if is_stream else whole(kept)
    # The first answer costs 0.06 USD, and to read it again 0.03.
    keys = {"ann": KeySettings(sha256=hashed("tk-ann"), budget_usd=0.08)}
    auth = AuthSettings(path=str(tmp_path / "keys.sqlite"), reserve_output_tokens=10)
    config = msgspec.structs.replace(config_of(servers, tmp_path / "l.sqlite"), keys=keys, auth=auth)

    def asked(ready: Ready, **fields: Any) -> Answer:
        body = {"model": "small", "input": EASY, "stream": is_stream, "max_output_tokens": 10, **fields}
        headers = {"authorization": "Bearer tk-ann"}
        return call(
            ready.base_url, "/responses", method="POST", body=json.dumps(body).encode(), headers=headers
        )

    with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
        assert asked(ready).status == 200
        refused = asked(ready, **follows)
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
        assert asked(ready, **follows).status == 429, "the file beside the ledger knows"
        servers["first"].say = lambda _: whole(response("first", usage=None, output=[]))
        assert asked(ready, stream=False).status == 200, "what goes on from nothing is as cheap as ever"
