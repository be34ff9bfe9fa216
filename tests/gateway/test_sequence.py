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

from tests.gateway.client import Answer, ask, call, check_advice, events_of, row
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.scripted import Scripted, script, scripted_server
from tests.gateway.settings import make_config
from turnout.core import Candidate, ConfigError, artifact
from turnout.gateway.app import build_app
from turnout.gateway.config import Config, RoutingSettings, SequencerSettings, load_config
from turnout.gateway.lifecycle import running
from turnout.sequential.record import from_lines
from turnout.sequential.router_r1 import RouterR1

SMALL_USD = (100 * 0.1 + 10 * 0.4) / 1e6
LARGE_USD = (100 * 1.0 + 10 * 4.0) / 1e6
POLICY_USD = (100 * 0.05 + 10 * 0.1) / 1e6

R1 = SequencerSettings(
    kind="router_r1",
    policy_model="policy",
    policy_provider="main",
    policy_input_usd_per_mtok=0.05,
    policy_output_usd_per_mtok=0.1,
)
SEQUENCERS = {
    "r1": R1,
    "plain": msgspec.structs.replace(R1, options={"sub_queries": False, "max_turns": 2}),
    "hasty": msgspec.structs.replace(R1, deadline_s=0.4),
    "poor": msgspec.structs.replace(R1, max_usd=1e-9),
    "order": SequencerSettings(kind="fixed", options={"order": ["small", "large"]}, max_usd=1.0),
}


def config_for(server: Scripted, ledger: Path, **changes: Any) -> Config:
    plain = make_config(server.base_url, ledger, first_byte_s=5.0)
    return msgspec.structs.replace(plain, sequencers=SEQUENCERS, **changes).check()


class Stand:
    """A gateway before a scripted upstream."""

    def __init__(self, base_url: str, server: Scripted, ledger: Path) -> None:
        self.base_url, self.server, self.ledger = base_url, server, ledger

    def ask(self, model: str = "turnout/r1", **fields: Any) -> Answer:
        return ask(self.base_url, {"model": model}, **fields)

    def row(self, answer: Answer) -> dict[str, Any]:
        return row(self.ledger, answer.decision_id)

    def trace(self, decision_id: str) -> dict[str, Any]:
        for _ in range(200):
            with sqlite3.connect(self.ledger) as connection:
                connection.row_factory = sqlite3.Row
                found = connection.execute(
                    "SELECT * FROM traces WHERE decision_id = ?", (decision_id,)
                ).fetchall()
            connection.close()
            if found:
                assert len(found) == 1
                return dict(found[0])
            time.sleep(0.01)
        raise AssertionError(f"no trace of {decision_id}")


@pytest.fixture(scope="module")
def one_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    ledger = tmp_path_factory.mktemp("sequence") / "ledger.sqlite"
    with (
        scripted_server() as server,
        running(config_for(server, ledger), deployment=make_deployment()) as ready,
    ):
        yield Stand(ready.base_url, server, ledger)


@pytest.fixture
def stand(one_stand: Stand) -> Iterator[Stand]:
    server = one_stand.server
    server.seen.clear()
    server.release.clear()
    server.usage = True
    server.say = {
        "policy": script("<search>small: what?", "<search>large: how?", "<answer>both said so"),
        "small": lambda body: "small says",
        "large": lambda body: "large says",
    }
    yield one_stand
    server.release.set()


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
    # Upstreams are never asked for a stream: only the final answer is one.
    assert all("stream" not in body for body in stand.server.seen)


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
    assert (trace["ended"], trace["thoughts"], trace["calls"]) == (None, 1, 0)


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function", "function": {"name": "f"}}]}, {"n": 2}, {"logprobs": True}]
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


def test_a_saved_sequencer_is_loaded_and_a_pool_may_be_part(tmp_path: Path) -> None:
    artifact.save(RouterR1(descriptions=(("small", "a bargain"),)), tmp_path / "r1")
    text = """
        deployment = "d"
        [providers.main]
        kind = "openai"
        base_url = "http://127.0.0.1:9/v1"
        [sequencers.own]
        artifact = "r1"
        policy_model = "large"
        candidates = ["small"]
        [sequencers.made]
        kind = "router_r1"
        policy_model = "large"
        options = { max_turns = 2, descriptions = [["small", "cheap"]] }
    """
    (tmp_path / "turnout.toml").write_text(text)
    config = load_config(tmp_path / "turnout.toml")
    found = build_app(config, deployment=make_deployment()).chat.sequences.sequences
    own, made = found["turnout/own"], found["turnout/made"]
    assert own.sequencer.config()["descriptions"] == (("small", "a bargain"),)
    assert own.pool == made.pool == (SMALL,)
    assert own.thinker == LARGE
    assert made.sequencer.config()["max_turns"] == 2


WRONG = {
    "kind": ({"kind": "router_r2"}, "sequencers.x.kind"),
    "neither": ({}, "either 'kind' or 'artifact'"),
    "both": ({"kind": "fixed", "artifact": "a"}, "either 'kind' or 'artifact'"),
    "option": ({"kind": "router_r1", "options": {"max_turn": 3}}, "did you mean 'max_turns'"),
    "value": ({"kind": "router_r1", "options": {"max_turns": 0}}, "sequencers.x.options"),
    "missing": ({"kind": "fixed"}, "sequencers.x.options"),
    "policy": ({"kind": "router_r1", "policy_model": "smal"}, "did you mean 'small'"),
    "provider": (
        {"kind": "router_r1", "policy_model": "p", "policy_provider": "mian"},
        "did you mean 'main'",
    ),
    "pool": ({"kind": "router_r1", "candidates": ["smaller"]}, "sequencers.x.candidates"),
    "price": (
        {"kind": "router_r1", "policy_model": "p", "policy_provider": "main", "max_usd": 1.0},
        "none of p",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named_at_the_start(name: str) -> None:
    fields, words = WRONG[name]
    plain = make_config("http://127.0.0.1:9/v1", Path("never.sqlite"))
    config = msgspec.structs.replace(plain, sequencers={"x": SequencerSettings(**fields)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        build_app(config, deployment=make_deployment())
    assert words in str(caught.value)
    assert "sequencers.x" in str(caught.value)


def test_names_must_not_collide() -> None:
    plain = make_config("http://127.0.0.1:9/v1", Path("never.sqlite"))
    for changes, words in (
        ({"sequencers": {"auto": R1}}, "a name that nothing else has"),
        ({"routing": RoutingSettings(sequencer="r3"), "sequencers": {"r1": R1}}, "did you mean 'r1'"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_app(msgspec.structs.replace(plain, **changes), deployment=make_deployment())


def test_a_misspelt_key_of_a_file_is_named(tmp_path: Path) -> None:
    start = 'deployment = "d"\n[providers.main]\nkind = "openai"\nbase_url = "http://x/v1"\n[sequencers.r1]\n'
    path = tmp_path / "turnout.toml"
    path.write_text(start + 'kind = "router_r1"\nmax_step = 3\n')
    with pytest.raises(ConfigError, match=r"unknown key 'sequencers.r1.max_step'.*did you mean 'max_steps'"):
        load_config(path)
    path.write_text(start + 'kind = "router_r1"\nmax_steps = 0\n')
    with pytest.raises(ConfigError, match=r"the key 'sequencers.r1.max_steps' is wrong"):
        load_config(path)


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
