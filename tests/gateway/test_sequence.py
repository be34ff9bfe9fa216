"""A sequencer behind the OpenAI API: one answer, every call charged once, whatever the policy does."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.client import call, check_advice, events_of
from tests.gateway.pool import SMALL, make_deployment
from tests.gateway.scripted import script, scripted_server
from tests.gateway.settings import make_config
from tests.gateway.stand import LARGE_USD, POLICY_USD, SMALL_USD, Stand, config_for, standing
from turnout.core import Candidate
from turnout.gateway.config import RoutingSettings, SequencerSettings
from turnout.gateway.lifecycle import running
from turnout.sequential.record import from_lines


@pytest.fixture(scope="module")
def one_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("sequence") / "ledger.sqlite") as one:
        yield one


@pytest.fixture
def stand(one_stand: Stand) -> Iterator[Stand]:
    one_stand.begin()
    yield one_stand
    one_stand.server.release.set()


def test_calls_become_one_answer_one_row_and_one_trace(stand: Stand) -> None:
    answer = stand.ask()
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "both said so"
    assert answer.json["usage"] == {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550}
    assert answer.headers["x-turnout-model"] == answer.json["model"] == "turnout/r1"
    assert (answer.headers["x-turnout-calls"], answer.headers["x-turnout-ended"]) == ("2", "stop")
    usd = 3 * POLICY_USD + SMALL_USD + LARGE_USD
    assert float(answer.headers["x-turnout-usd"]) == pytest.approx(usd)
    kept = stand.row(answer)
    assert kept["usd"] == pytest.approx(usd)
    assert (kept["served"], kept["chosen"], kept["provider"], kept["attempts"]) == (
        "turnout/r1", "turnout/r1", "main", 5,
    )  # fmt: skip
    assert (kept["input_tokens"], kept["output_tokens"], kept["usage_estimated"]) == (500, 50, 0)
    trace = stand.trace(answer.decision_id)
    assert (trace["ended"], trace["calls"], trace["thoughts"], trace["unknown_charges"]) == ("stop", 2, 3, 0)
    assert trace["usd"] == pytest.approx(usd)
    assert "both said so" not in trace["trace"]
    assert "hello" not in trace["trace"]
    (read,) = from_lines(trace["trace"].splitlines())
    assert [item.call.candidate for item in read.observed] == ["small", "large"]
    assert [body["messages"] for body in stand.server.asked("large")] == [
        [{"role": "user", "content": "how?"}]
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_client_reads_it(stand: Stand, stream: bool) -> None:
    stand.server.say["policy"] = script("<search>large: how?", "<answer>[last]")
    stand.server.say["large"] = lambda body: "a long answer " * 20
    with openai.OpenAI(base_url=stand.base_url, api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        if not stream:
            whole = client.chat.completions.create(model="turnout/r1", messages=messages)
            assert whole.choices[0].message.content == "a long answer " * 20
            return
        chunks = list(
            client.chat.completions.create(
                model="turnout/r1", messages=messages, stream=True, stream_options={"include_usage": True}
            )
        )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "a long answer " * 20
    assert len(texts) > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 300
    # Only the policy may come to the final answer: the pool is never asked for a stream.
    assert [body["model"] for body in stand.server.seen if "stream" in body] == ["policy", "policy"]


def test_a_stream_that_did_not_ask_gets_no_usage(stand: Stand) -> None:
    events = events_of(stand.ask(stream=True).body)
    assert events[-1] == "[DONE]"
    assert all("prompt_tokens" not in event for event in events)


def test_a_policy_that_never_stops_is_bounded_and_charged(stand: Stand) -> None:
    stand.server.say["policy"] = script("<search>small: again?")
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (422, "abstained")
    assert "'no_turns'" in answer.error["message"]
    check_advice(answer.error["message"])
    assert answer.headers["x-should-retry"] == "false"
    assert len(stand.server.asked("small")) == 4
    assert stand.row(answer)["usd"] == pytest.approx(4 * SMALL_USD + 6 * POLICY_USD)
    assert stand.trace(answer.decision_id)["ended"] == "abstain"


def test_a_policy_that_writes_nothing_that_parses(stand: Stand) -> None:
    stand.server.say["policy"] = script("I like trains.")
    answer = stand.ask(stream=True)
    assert (answer.status, answer.error["code"]) == (422, "abstained")
    assert stand.row(answer)["usd"] == pytest.approx(2 * POLICY_USD)
    assert stand.server.asked("small") == []


def test_a_call_to_a_model_not_in_the_pool_is_corrected(stand: Stand) -> None:
    stand.server.say["policy"] = script("<search>gpt-9: what?", "<search>small: what?", "<answer>[last]")
    answer = stand.ask()
    assert answer.json["choices"][0]["message"]["content"] == "small says"
    told = stand.server.asked("policy")[1]["messages"][-1]["content"]
    assert "not in the pool" in told
    assert answer.headers["x-turnout-calls"] == "1"


def test_a_model_that_dies_in_round_two(stand: Stand) -> None:
    stand.server.say["large"] = lambda body: 500
    stand.server.say["policy"] = script(
        "<search>small: what?", "<search>large: how?", "<search>large: how?", "<answer>small knew"
    )
    answer = stand.ask()
    assert answer.json["choices"][0]["message"]["content"] == "small knew"
    kept = stand.row(answer)
    assert kept["usd"] == pytest.approx(SMALL_USD + 4 * POLICY_USD)
    assert "large: the upstream 'main' failed" in kept["faults"]
    # Once dead, it is not asked again, and the policy is told why.
    assert len(stand.server.asked("large")) == 1
    assert "failed in this task" in stand.server.asked("policy")[3]["messages"][-1]["content"]


def test_everybody_dead(stand: Stand) -> None:
    stand.server.say.update(small=lambda body: 503, large=lambda body: None)
    stand.server.say["policy"] = script("<search>small: what?", "<search>large: how?")
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (502, "no_answer")
    # The large model answered without a text and reported what it used.
    assert stand.row(answer)["usd"] == pytest.approx(LARGE_USD + 2 * POLICY_USD)


def test_a_model_that_is_down_is_not_the_policys_fault(stand: Stand) -> None:
    """The policy asks a dead model again and again, until its turns and corrections are used up."""
    stand.server.say["large"] = lambda body: 500
    stand.server.say["policy"] = script("<search>large: how?")
    for model in ("turnout/r1", "turnout/plain"):
        answer = stand.ask(model)
        assert (answer.status, answer.error["code"]) == (502, "no_answer"), answer.error
        assert "no answer from large" in answer.error["message"]
        assert "protocol" not in answer.error["message"]
        check_advice(answer.error["message"])
        assert stand.row(answer)["error"] == "no_answer"


def test_an_order_of_dead_models_names_them(stand: Stand) -> None:
    stand.server.say.update(small=lambda body: 503, large=lambda body: 500)
    answer = stand.ask("turnout/order")
    assert (answer.status, answer.error["code"]) == (502, "no_answer")
    assert "no answer from small, large" in answer.error["message"]


def test_a_policy_model_that_is_down(stand: Stand) -> None:
    stand.server.say["policy"] = lambda body: 500
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (502, "policy_failed")
    assert "the policy's model did not answer" in answer.error["message"]
    assert stand.row(answer)["usd"] == 0.0


def test_a_budget_below_the_cheapest_call_asks_nobody(stand: Stand) -> None:
    poor = stand.ask("turnout/poor")
    header = stand.ask(headers={"x-turnout-usd-per-1k": "0.0000001"})
    for answer in (poor, header):
        assert (answer.status, answer.error["code"]) == (422, "budget_too_small")
        check_advice(answer.error["message"])
        assert stand.row(answer)["usd"] == 0.0
    assert stand.server.seen == []


def test_a_budget_is_never_exceeded(stand: Stand) -> None:
    stand.server.say["policy"] = script("<search>small: again?")
    answer = stand.ask(headers={"x-turnout-usd-per-1k": "1.0"})
    assert answer.status == 422
    assert 0 < stand.row(answer)["usd"] <= 1e-3


def test_other_dials_are_refused(stand: Stand) -> None:
    answer = stand.ask(headers={"x-turnout-quality-floor": "0.9"})
    assert (answer.status, answer.error["code"]) == (400, "bad_goal")


def test_the_deadline_ends_it(stand: Stand) -> None:
    stand.server.say["small"] = stand.server.wait
    started_s = time.perf_counter()
    answer = stand.ask("turnout/hasty")
    assert time.perf_counter() - started_s < 2.0
    assert (answer.status, answer.error["code"]) == (504, "deadline")
    kept, trace = stand.row(answer), stand.trace(answer.decision_id)
    assert "no answer within" in kept["faults"]
    assert kept["usd"] == pytest.approx(POLICY_USD)
    assert trace["unknown_charges"] == 1


def test_an_answer_to_a_sub_query_is_no_answer_at_the_deadline(stand: Stand) -> None:
    stand.server.say["large"] = stand.server.wait
    answer = stand.ask("turnout/hasty")
    # The small model has answered its part; the question has no answer.
    assert (answer.status, answer.error["code"]) == (504, "deadline")


def test_a_client_that_leaves_is_charged_for_what_was_done(stand: Stand) -> None:
    stand.server.say["small"] = stand.server.wait
    with openai.OpenAI(base_url=stand.base_url, api_key="none", max_retries=0, timeout=0.5) as client:
        create = client.chat.completions.create
        with pytest.raises(openai.APITimeoutError):
            create(model="turnout/r1", messages=[{"role": "user", "content": "left"}])
    found: list = []
    for _ in range(300):
        with sqlite3.connect(stand.ledger) as connection:
            found = connection.execute("SELECT decision_id, usd FROM requests WHERE status = 499").fetchall()
        connection.close()
        if found:
            break
        time.sleep(0.01)
    ((decision_id, usd),) = found
    assert usd == pytest.approx(POLICY_USD)
    trace = stand.trace(decision_id)
    # What was on its way may cost what it may cost, and nobody will say.
    assert (trace["ended"], trace["thoughts"], trace["calls"]) == (None, 1, 1)
    assert trace["unknown_charges"] == 1
    assert trace["usd"] == pytest.approx(usd)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"stop": ["n"]},
    ],
)
def test_what_several_calls_cannot_keep_is_refused(stand: Stand, fields: dict) -> None:
    answer = stand.ask(**fields)
    assert (answer.status, answer.error["code"]) == (400, "not_supported")
    check_advice(answer.error["message"])
    assert stand.server.seen == []


def test_the_question_itself_is_passed_on_with_its_conversation(stand: Stand) -> None:
    stand.server.say["policy"] = script("<search>large", "<answer>[last]")
    messages = [
        {"role": "user", "content": "I am Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": [{"type": "text", "text": "Who am I?"}]},
    ]
    answer = stand.ask("turnout/plain", messages=messages, temperature=0.25, stream=True)
    assert answer.status == 200
    (passed,) = stand.server.asked("large")
    assert (passed["messages"], passed["temperature"]) == (messages, 0.25)
    assert passed["max_completion_tokens"] == 1024
    policy = stand.server.asked("policy")[0]
    assert policy["messages"][1]["content"] == "user: I am Ada.\nassistant: Hello Ada.\nuser: Who am I?"
    assert "temperature" not in policy
    assert policy["stop"] == ["</search>", "</answer>"]


def test_usage_that_nobody_reports_is_estimated(stand: Stand) -> None:
    stand.server.usage = False
    answer = stand.ask()
    kept = stand.row(answer)
    assert answer.headers["x-turnout-usage-estimated"] == "true"
    assert kept["usage_estimated"] == 1
    assert kept["usd"] > 0


def test_any_registered_sequencer_serves(stand: Stand) -> None:
    stand.server.say["small"] = lambda body: 500
    answer = stand.ask("turnout/order")
    assert answer.json["choices"][0]["message"]["content"] == "large says"
    assert stand.row(answer)["usd"] == pytest.approx(LARGE_USD)
    assert stand.server.asked("policy") == []


def test_the_models_are_listed(stand: Stand) -> None:
    names = [model["id"] for model in call(stand.base_url, "/models").json["data"]]
    assert names[:2] == ["turnout/auto", "turnout/r1"]
    assert call(stand.base_url, "/models/turnout/r1").json["owned_by"] == "turnout"


def test_the_alias_may_be_a_sequencer_and_texts_may_be_kept(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with scripted_server() as server:
        config = config_for(server, ledger, routing=RoutingSettings(sequencer="r1"))
        config = msgspec.structs.replace(
            config, ledger=msgspec.structs.replace(config.ledger, keep_text=True)
        )
        server.say = {"policy": script("<answer>my own words")}
        with running(config, deployment=make_deployment()) as ready:
            stand = Stand(ready.base_url, server, ledger)
            answer = stand.ask("turnout/auto")
            assert answer.json["choices"][0]["message"]["content"] == "my own words"
            assert "my own words" in stand.trace(answer.decision_id)["trace"]


def test_an_unpriced_answer_is_an_unknown_spend(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with scripted_server() as server:
        sequencers = {"f": SequencerSettings(kind="fixed", options={"order": ["bare"]})}
        config = msgspec.structs.replace(make_config(server.base_url, ledger), sequencers=sequencers)
        server.say = {"bare": lambda body: json.dumps({"ok": True})}
        pool = (Candidate(model="bare"), SMALL)
        with running(config, deployment=make_deployment(pool)) as ready:
            stand = Stand(ready.base_url, server, ledger)
            answer = stand.ask("turnout/f")
            assert answer.status == 200
            assert stand.row(answer)["usd"] is None
            assert stand.trace(answer.decision_id)["unknown_charges"] == 1
