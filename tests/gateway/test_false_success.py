"""An upstream that says 200 and has failed: in a whole body, in a stream, or by another form than asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from tests.gateway.anthropic_upstream import TEXT, THOUGHT, TOOL_USE
from tests.gateway.chat_told import SAID, USAGE, chunk, completion
from tests.gateway.client import Answer, ask, call, row
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_rules import config_with
from tests.gateway.told import Asked, Say, Told, sse, stream, told_server, whole
from turnout.core import Candidate, PriceCard
from turnout.gateway.config import BreakerSettings
from turnout.gateway.lifecycle import running
from turnout.gateway.providers import response
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings

ERROR = {"message": "Provider returned error", "code": 502}
SGLANG = {"object": "error", "message": "engine is dead", "type": "InternalServerError", "code": 500}
GOOD = completion({"role": "assistant", "content": "fine"}, "stop")
GOOD_EVENTS = sse(chunk({"role": "assistant", "content": "fine"}), chunk({}, "stop"))
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "error": None,
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "fine", "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [THOUGHT, TEXT, TOOL_USE],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 100, "output_tokens": 10},
}
TOLD = {
    **MESSAGE,
    "content": [{"type": "text", "text": "fine"}],
    "usage": {"input_tokens": 3, "output_tokens": 9},
}
MESSAGES: Any = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Stand:
    """A gateway before an upstream whose models say what a test tells them to."""

    base_url: str
    ledger: Path
    told: Told
    says: dict[str, Say]

    def begin(self) -> None:
        self.says.clear()
        self.told.seen.clear()
        self.told.say = lambda asked: self.says[asked.json["model"]]

    def post(self, path: str, **body: Any) -> Answer:
        sent = json.dumps({"model": "turnout/auto", **body}).encode()
        return call(
            self.base_url, path, method="POST", body=sent, headers={"content-type": "application/json"}
        )

    def row(self, answer: Answer) -> dict[str, Any]:
        return row(self.ledger, answer.decision_id)


@pytest.fixture(scope="module")
def one_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    ledger = tmp_path_factory.mktemp("false") / "l.sqlite"
    dear = PriceCard(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
    ant = Candidate(model="ant", price_card=dear)
    with told_server() as told:
        plain = make_config(told.base_url, ledger)
        config = msgspec.structs.replace(
            plain,
            default_provider="main",
            providers={**plain.providers, "anth": AnthropicSettings(base_url=told.base_url)},
            candidates={"ant": CandidateSettings(provider="anth")},
        )
        with running(config, deployment=make_deployment((SMALL, LARGE, ant))) as ready:
            yield Stand(ready.base_url, ledger, told, {})


@pytest.fixture
def stand(one_stand: Stand) -> Stand:
    one_stand.begin()
    return one_stand


@pytest.mark.parametrize(
    "body",
    [
        {"error": ERROR},
        SGLANG,
        {"error": "engine is dead"},
        {**GOOD, "choices": [], "error": ERROR},
        {**GOOD, "choices": []},
        completion({"role": "assistant", "content": ""}, "error"),
        {"detail": "no"},
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_body_that_is_an_error_falls_back(stand: Stand, body: dict[str, Any], is_stream: bool) -> None:
    stand.says |= {"large": whole(body), "small": stream(GOOD_EVENTS) if is_stream else whole(GOOD)}
    answer = ask(stand.base_url, stream=is_stream)
    assert (answer.status, answer.headers["x-turnout-model"]) == (200, "small")
    assert b"fine" in answer.body
    assert stand.row(answer)["faults"] == "large: upstream_error"


def test_a_named_model_that_says_so_is_a_502(stand: Stand) -> None:
    stand.says["large"] = whole({"error": ERROR})
    answer = ask(stand.base_url, model="large")
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert stand.row(answer)["error"] == "upstream_error"


@pytest.mark.parametrize(("code", "status"), [(400, 400), (429, 429), (503, 502), (True, 502), ("x", 502)])
def test_its_code_is_the_status_that_it_would_have_had(stand: Stand, code: Any, status: int) -> None:
    stand.says["large"] = whole({"error": {"message": "no", "type": "t", "param": None, "code": code}})
    assert ask(stand.base_url, model="large").status == status


def test_a_failed_response_falls_back(stand: Stand) -> None:
    failed = {**RESPONSE, "status": "failed", "output": [], "error": {"code": "server_error", "message": "x"}}
    stand.says |= {"large": whole(failed), "small": whole(RESPONSE)}
    answer = stand.post("/responses", input="hi")
    assert (answer.status, answer.headers["x-turnout-model"]) == (200, "small")


@pytest.mark.parametrize(
    "events",
    [
        sse(SGLANG),
        sse(),
        sse(chunk({"role": "assistant", "content": ""})),
        sse({**chunk({}, "error"), "error": ERROR}),
        b"data: {broken\n\n",
    ],
)
def test_a_stream_that_says_only_that_falls_back(stand: Stand, events: bytes) -> None:
    stand.says |= {"large": stream(events), "small": stream(GOOD_EVENTS)}
    answer = ask(stand.base_url, stream=True)
    assert (answer.headers["x-turnout-model"], answer.body) == ("small", GOOD_EVENTS)


def test_a_translated_stream_that_begins_with_garbage_falls_back(stand: Stand) -> None:
    stand.says |= {
        "large": Say([b"{}"], status=500),
        "ant": stream(b"data: {broken\n\n"),
        "small": stream(GOOD_EVENTS),
    }
    answer = ask(stand.base_url, stream=True)
    assert answer.headers["x-turnout-model"] == "small"


@pytest.mark.parametrize(
    "last",
    [
        sse({"error": ERROR}),
        sse({"error": ERROR}, done=False),
        sse(SGLANG),
        sse({**chunk({}, "error"), "error": ERROR}),
        sse(chunk({}, "error")),
    ],
)
def test_an_error_in_a_stream_is_a_failure_for_row_and_breaker(tmp_path: Path, last: bytes) -> None:
    with told_server() as told:
        told.say = lambda _: stream(sse(chunk({"content": "abc"}), done=False) + last)
        plain = make_config(told.base_url, tmp_path / "l.sqlite")
        config = msgspec.structs.replace(plain, breakers=BreakerSettings(failures=2))
        with running(config, deployment=make_deployment((SMALL,))) as ready:
            answers = [ask(ready.base_url, model="small", stream=True) for _ in range(3)]
            told_of = call(ready.base_url.removesuffix("/v1"), "/metrics").body
    assert [answer.status for answer in answers] == [200, 200, 503]
    found = row(tmp_path / "l.sqlite", answers[0].decision_id)
    assert (found["status"], found["error"]) == (200, "upstream_error_event")
    assert found["faults"] == "main: upstream_error_event"
    assert b'turnout_errors_total{error="upstream_error_event"} 2' in told_of


def test_a_whole_answer_to_a_stream_is_streamed_by_the_official_clients(stand: Stand) -> None:
    stand.says |= {
        "large": whole(completion(SAID, "tool_calls")),
        "small": whole(RESPONSE),
        "ant": whole(MESSAGE),
    }
    with openai.OpenAI(base_url=stand.base_url, api_key="x", max_retries=0) as client:
        with client.chat.completions.stream(
            model="large", messages=[{"role": "user", "content": "hi"}]
        ) as chat:
            message = chat.get_final_completion().choices[0].message
        assert message.content == SAID["content"]
        assert [one.id for one in message.tool_calls or ()] == ["call_1", "call_2"]
        with client.responses.stream(model="small", input="hi") as events:
            said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            assert (said, events.get_final_response().output_text) == ("fine", "fine")
    url = stand.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as claude:
        for model in ("ant", "large"):
            with claude.messages.stream(model=model, **MESSAGES) as told:
                assert [block.type for block in told.get_final_message().content][-1] == "tool_use"


@pytest.mark.parametrize("path", ["/chat/completions", "/messages"])
def test_a_whole_answer_to_a_stream_is_charged_by_what_it_reports(stand: Stand, path: str) -> None:
    stand.says["large"] = whole(completion(SAID, "tool_calls"))
    answer = stand.post(path, model="large", stream=True, **MESSAGES)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = stand.row(answer)
    assert (found["input_tokens"], found["output_tokens"]) == (150, USAGE["completion_tokens"])
    assert (found["usage_estimated"], found["error"]) == (0, None)


LONG = {"message": "This model's maximum context length is 8192 tokens", "code": "context_length_exceeded"}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, LONG),
        (413, {"message": "Request too large"}),
        (400, {"message": "Unsupported parameter: 'temperature'", "code": "unsupported_parameter"}),
        (400, {"message": "flagged", "code": "content_filter"}),
        (451, {"message": "not here"}),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_what_a_model_refuses_for_a_limit_of_its_own_the_next_one_is_asked(
    stand: Stand, status: int, error: dict[str, Any], is_stream: bool
) -> None:
    refusal = whole({"error": {"type": "invalid_request_error", "param": None, **error}}, status)
    stand.says |= {"large": refusal, "ant": whole(MESSAGE), "small": Say([b"{}"], status=500)}
    answer = ask(stand.base_url, stream=is_stream)
    assert (answer.status, answer.headers["x-turnout-model"]) == (200, "ant")
    found = stand.row(answer)
    assert found["faults"].startswith("large: upstream_limit")
    # Who is known to hold no more is not asked for what is too long.
    is_length = status == 413 or ("code" in error and error["code"] == LONG["code"])
    assert ("small" in [seen.json["model"] for seen in stand.told.seen]) is not is_length
    # Who named the model is told what it said.
    alone = ask(stand.base_url, model="large")
    assert (alone.status, alone.body) == (status, refusal.blocks[0])


def test_where_nobody_takes_it_the_first_ones_words_are_told(stand: Stand) -> None:
    refusal = whole({"error": {**LONG, "type": "t", "param": None}}, 400)
    stand.says |= dict.fromkeys(("large", "ant", "small"), refusal)
    answer = ask(stand.base_url)
    assert (answer.status, answer.body) == (400, refusal.blocks[0])
    assert answer.headers["x-turnout-model"] == "large"


def test_any_other_refusal_is_told_at_once(stand: Stand) -> None:
    stand.says["large"] = whole({"error": {"message": "messages must alternate", "type": "t"}}, 400)
    assert ask(stand.base_url).status == 400
    assert len(stand.told.seen) == 1


@pytest.mark.parametrize(
    "events",
    [
        sse(chunk({"content": "abc"}), {"error": ERROR}),
        sse(chunk({"content": "abc"}), chunk({}, "content_filter")),
        sse(chunk({"role": "assistant", "content": ""}), chunk({}, "stop")),
    ],
)
def test_an_answer_that_failed_or_was_withheld_is_not_given_again(tmp_path: Path, events: bytes) -> None:
    with told_server() as told:
        told.say = lambda _: stream(events if len(told.seen) == 1 else GOOD_EVENTS)
        config = config_with(tmp_path, '[[rules]]\nname = "again"\n[rules.cache]\n', told.base_url)
        with running(config, deployment=make_deployment((SMALL,))) as ready:
            answers = [ask(ready.base_url, model="small", stream=True) for _ in range(3)]
    assert [answer.headers["x-turnout-cache"].partition(";")[0] for answer in answers] == [
        "miss",
        "miss",
        "hit",
    ]
    assert answers[2].body == answers[1].body == GOOD_EVENTS


def test_an_upstream_that_refuses_to_tell_its_usage_is_asked_without(stand: Stand) -> None:
    refusal = {"error": {"message": "Unrecognized field: stream_options", "type": "t", "param": None}}

    def say(asked: Asked) -> Say:
        return whole(refusal, 400) if "stream_options" in asked.json else stream(GOOD_EVENTS)

    stand.told.say = say
    answer = ask(stand.base_url, model="large", stream=True)
    assert (answer.status, answer.body) == (200, GOOD_EVENTS)
    # The client's own words are answered as they are.
    own = ask(stand.base_url, model="large", stream=True, stream_options={"include_usage": True})
    assert own.status == 400


@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/messages"])
def test_a_byte_that_is_no_text_loses_no_usage(stand: Stand, path: str) -> None:
    said = {"/chat/completions": GOOD, "/responses": RESPONSE}.get(path, TOLD)
    model = "ant" if said is TOLD else "large"
    body = json.dumps(said).encode().replace(b"fine", b"f\xffne")
    stand.says[model] = Say([body])
    answer = stand.post(path, model=model, input="hi", **MESSAGES)
    assert (answer.status, answer.body) == (200, body)
    found = stand.row(answer)
    assert (found["output_tokens"], found["usage_estimated"]) == (9, 0)


def test_thoughts_that_only_the_total_counts_are_charged(stand: Stand) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}
    stand.says["large"] = whole({**GOOD, "usage": usage})
    assert stand.row(ask(stand.base_url, model="large"))["output_tokens"] == 105
    stand.says["large"] = stream(
        sse(chunk({"content": "a"}), chunk({}, "stop"), {"choices": [], "usage": usage})
    )
    assert stand.row(ask(stand.base_url, model="large", stream=True))["output_tokens"] == 105


def test_a_body_without_an_end_is_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "MOST_WHOLE_BYTES", 3_000_000)
    stand.says |= {"large": Say([b" " * 1_000_000] * 8), "small": whole(GOOD)}
    answer = ask(stand.base_url)
    assert (answer.status, answer.headers["x-turnout-model"]) == (200, "small")
    assert stand.row(answer)["faults"] == "large: upstream_cut"


def test_what_a_client_says_of_betas_is_passed_on_to_responses(stand: Stand) -> None:
    stand.says["large"] = whole(RESPONSE)
    with openai.OpenAI(base_url=stand.base_url, api_key="x", max_retries=0) as client:
        client.responses.create(model="large", input="hi", extra_headers={"openai-beta": "responses=v1"})
    assert stand.told.last.headers["openai-beta"] == "responses=v1"


@pytest.mark.parametrize("name", ["prompt_tokens_details", "completion_tokens_details"])
@pytest.mark.parametrize(("audio", "is_estimated"), [(0, 0), (5, 1), ([], 0)])
def test_what_is_charged_as_text_and_is_none_is_no_exact_charge(
    stand: Stand, name: str, audio: Any, is_estimated: int
) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, name: {"audio_tokens": audio}}
    stand.says["large"] = whole({**GOOD, "usage": usage})
    found = stand.row(ask(stand.base_url, model="large"))
    assert (found["input_tokens"], found["usage_estimated"]) == (10, is_estimated)
