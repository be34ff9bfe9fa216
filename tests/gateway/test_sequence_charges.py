"""What a sequencer owes for answers that were cut, for limits, and for calls that nobody waited for."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.client import call, rows
from tests.gateway.pool import make_deployment
from tests.gateway.scripted import Cut, script, scripted_server
from tests.gateway.settings import make_config
from tests.gateway.stand import POLICY_USD, R1, Stand, standing
from tests.gateway.test_keys import HEADERS_OF, SECRET, ask_as, hashed
from turnout.gateway.config import SequencerSettings
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings


@pytest.fixture(scope="module")
def one_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("sequence") / "ledger.sqlite") as one:
        yield one


@pytest.fixture
def stand(one_stand: Stand) -> Iterator[Stand]:
    one_stand.begin()
    yield one_stand
    one_stand.server.release.set()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("policy", "large"),
    [(("<search>large: how?", "<answer>[last]"), Cut("Half an ans")), ((Cut("<answer>Half an ans"),), "")],
)
def test_an_answer_that_was_cut_says_so(
    stand: Stand, stream: bool, policy: tuple[str, ...], large: str
) -> None:
    turns: Any = script(*policy)
    stand.server.say["policy"] = lambda body: iter([turns(body)]) if stream else turns(body)
    stand.server.say["large"] = lambda body: large
    with openai.OpenAI(base_url=stand.base_url, api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        create = client.chat.completions.create
        if not stream:
            (choice,) = create(model="turnout/r1", messages=messages).choices
            assert (choice.message.content, choice.finish_reason) == ("Half an ans", "length")
            return
        chunks = [chunk.choices[0] for chunk in create(model="turnout/r1", messages=messages, stream=True)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == "Half an ans"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]


def test_a_call_that_was_cut_is_not_made(stand: Stand) -> None:
    stand.server.say["policy"] = script(Cut("<search>large: do not press the red"), "<answer>I did not")
    answer = stand.ask()
    assert answer.json["choices"][0]["message"]["content"] == "I did not"
    assert stand.server.asked("large") == []
    assert "cut by the limit" in stand.server.asked("policy")[1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("fields", "limit"), [({}, 1024), ({"max_tokens": 4000}, 4000), ({"max_completion_tokens": 7}, 7)]
)
def test_the_limit_of_the_client_goes_before_that_of_the_settings(
    stand: Stand, fields: dict, limit: int
) -> None:
    assert stand.ask("turnout/order", **fields).status == 200
    (asked,) = stand.server.asked("small")
    assert asked.get("max_completion_tokens", asked.get("max_tokens")) == limit


@pytest.mark.parametrize("leaves", [False, True])
def test_a_call_that_nobody_answered_counts_with_the_most_it_may_cost(tmp_path: Path, leaves: bool) -> None:
    """Against the key's budget: a client that hangs up, or an upstream that hangs, is no way around it."""
    with scripted_server() as server:
        server.say = {"policy": script("<search>large: how?"), "large": server.wait}
        sequencer = msgspec.structs.replace(R1, call_s=30.0 if leaves else 0.5, max_steps=2)
        config = msgspec.structs.replace(
            make_config(server.base_url, tmp_path / "ledger.sqlite", first_byte_s=20.0),
            sequencers={"r1": sequencer},
            keys={"team": KeySettings(sha256=hashed(), budget_usd=1.0, is_admin=True)},
            auth=AuthSettings(path=str(tmp_path / "keys.sqlite")),
        ).check()
        with running(config, deployment=make_deployment()) as ready:
            with openai.OpenAI(base_url=ready.base_url, api_key=SECRET, max_retries=0, timeout=1.0) as client:
                create = client.chat.completions.create
                with pytest.raises(openai.APITimeoutError if leaves else openai.APIStatusError):
                    create(model="turnout/r1", messages=[{"role": "user", "content": "hello"}])
            spent, held = 0.0, 1.0
            for _ in range(300):
                with sqlite3.connect(tmp_path / "keys.sqlite") as connection:
                    ((spent, held),) = connection.execute("SELECT spent_usd, held_usd FROM spend").fetchall()
                connection.close()
                if held == 0.0:
                    break
                time.sleep(0.01)
            counted = call(ready.base_url.removesuffix("/v1"), "/metrics", headers=HEADERS_OF).body.decode()
    assert spent == pytest.approx(POLICY_USD + 1024 * 4.0 / 1e6, rel=0.05)
    # The row says the same, and so do the metrics.
    (found,) = rows(tmp_path / "ledger.sqlite")
    assert (found["usd"], found["usage_estimated"]) == (pytest.approx(spent), 1)
    (line,) = [line for line in counted.splitlines() if line.startswith("turnout_spend_usd_total{")]
    assert float(line.rpartition(" ")[2]) == pytest.approx(spent)


@pytest.mark.parametrize("kind", ["fixed", "r1"])
def test_a_sequence_without_a_bound_leaves_money_for_others(tmp_path: Path, kind: str) -> None:
    """It holds what its steps may cost at most, and gives the rest back; others are served beside it."""
    with scripted_server() as server:
        server.say = {
            "policy": lambda body: "<answer>so" if "late" in str(body) else "<search>small: what?",
            "small": server.wait,
            "large": lambda body: "large says",
        }
        fixed = SequencerSettings(kind="fixed", options={"order": ["small", "large"]})
        config = msgspec.structs.replace(
            make_config(server.base_url, tmp_path / "ledger.sqlite", first_byte_s=20.0),
            sequencers={"s": fixed if kind == "fixed" else R1},
            keys={"team": KeySettings(sha256=hashed(), budget_usd=10.0)},
            auth=AuthSettings(path=str(tmp_path / "keys.sqlite")),
        ).check()
        with running(config, deployment=make_deployment()) as ready, ThreadPoolExecutor(2) as pool:
            first = [pool.submit(ask_as, ready, model="turnout/s") for _ in range(2)]
            until_s = time.monotonic() + 5
            while len(server.asked("small")) < 2 and time.monotonic() < until_s:
                time.sleep(0.01)
            assert len(server.asked("small")) == 2
            with sqlite3.connect(tmp_path / "keys.sqlite") as connection:
                ((held,),) = connection.execute("SELECT held_usd FROM spend").fetchall()
            connection.close()
            assert 0.0 < held < 5.0
            beside = ask_as(ready, model="large", max_tokens=1)
            server.release.set()
            assert (beside.status, [one.result().status for one in first]) == (200, [200, 200])
