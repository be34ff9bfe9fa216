"""Live calls: real HTTP servers on the loopback, the official client, failures, prices and time."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps, loads
from operator import attrgetter
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion
from openai.types.chat.chat_completion import Choice as ChatChoice
from openai.types.completion_usage import CompletionUsage

from turnout.core import Candidate, PriceCard, Query
from turnout.core.errors import InputError
from turnout.sequential.actions import Call, CallSet, Choice, Stop, Think
from turnout.sequential.contracts import Sequencer
from turnout.sequential.fixed import FixedOrder
from turnout.sequential.live import BlockingEnvironment, LiveEnvironment
from turnout.sequential.live_client import Ask, BlockingChatCompletions, ChatCompletions, Told, told_of
from turnout.sequential.loop import run, run_async
from turnout.sequential.router_r1.router import RouterR1
from turnout.sequential.trace import Bounds, Thought

CARD = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
POOL = tuple(Candidate(model=name, price_card=CARD) for name in ("good", "slow", "broken", "half"))
QUERY = Query(id="q", text="What is 2 + 2?")
USD = (10 * 1.0 + 5 * 2.0) / 1e6


class Handler(BaseHTTPRequestHandler):
    """Speaks the API as each model is told to; the policy asks `good` and hands its answer on."""

    def do_POST(self) -> None:
        asked = loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(asked)  # type: ignore[attr-defined]
        model, text = asked["model"], asked["messages"][-1]["content"]
        if model == "broken":
            self.send_response(500)
            self.end_headers()
            return
        if model == "slow":
            self.server.stop.wait(5)  # type: ignore[attr-defined]
        answer: str | None = {"policy": "<search>good: two and two?", "half": None}.get(
            model, f"said: {text}"
        )
        if model == "policy" and "<information>" in text:
            answer = "<answer>[last]"
        message = {"role": "assistant", "content": answer}
        body = {
            "id": "1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }  # fmt: skip
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(dumps(body).encode())

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def served() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.stop = [], threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.stop.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


class Once(Sequencer):
    """Asks a set of models once, then takes the last that answered."""

    def __init__(self, *, names: tuple[str, ...]) -> None:
        self.names = names

    def next(self, trace, rng) -> Choice:
        if trace.num_calls:
            return Choice(action=Stop())
        return Choice(action=CallSet(calls=tuple(Call(candidate=name) for name in self.names)))


async def ask(server: ThreadingHTTPServer, sequencer: Sequencer, **settings):
    bounds = settings.pop("bounds", Bounds())
    async with openai.AsyncOpenAI(base_url=url(server), api_key="none", max_retries=0) as client:
        environment = LiveEnvironment(client=ChatCompletions(client), candidates=POOL, **settings)
        return await run_async(environment, sequencer, QUERY, bounds=bounds)


def test_a_set_is_asked_side_by_side_and_each_call_is_charged_once(served) -> None:
    done = asyncio.run(ask(served, Once(names=("slow", "broken", "half", "good")), timeout_s=0.4))
    slow, broken, half, good = done.trace.observed
    assert done.answer == good.answer == "said: What is 2 + 2?"
    assert good.usd == pytest.approx(USD)
    assert slow.error == "no answer within 0.4 s"
    assert math.isnan(slow.usd)
    assert broken.error is not None
    assert broken.error.startswith("InternalServerError")
    # It failed and still reported what it used.
    assert half.error == "the reply holds no text"
    assert half.usd == pytest.approx(USD)
    assert done.usd == pytest.approx(2 * USD)
    assert done.trace.num_unknown_charges == 2
    assert max(item.latency_s for item in done.trace.observed) < 1.0


def test_the_policy_thinks_at_its_own_model(served) -> None:
    policy = Candidate(model="policy", price_card=CARD)
    done = asyncio.run(ask(served, RouterR1(), thinker=policy))
    assert done.answer == "said: two and two?"
    assert done.usd == pytest.approx(3 * USD)
    assert served.seen[-1]["stop"] == ["</search>", "</answer>"]


def test_the_deadline_shortens_the_last_call(served) -> None:
    done = asyncio.run(ask(served, Once(names=("slow",)), bounds=Bounds(deadline_s=0.2)))
    assert (done.ended.how, done.answer) == ("deadline", None)
    assert "no answer within 0." in str(done.trace.observed[0].error)


def test_the_blocking_twin_does_the_same(served) -> None:
    with openai.OpenAI(base_url=url(served), api_key="none", max_retries=0) as client:
        environment = BlockingEnvironment(
            client=BlockingChatCompletions(client),
            candidates=POOL,
            thinker=Candidate(model="policy", price_card=CARD),
            timeout_s=0.4,
        )
        done = run(environment, RouterR1(), QUERY)
        assert done.answer == "said: two and two?"
        assert done.usd == pytest.approx(3 * USD)
        both = run(environment, Once(names=("broken", "slow", "good")), QUERY)
    assert both.answer == "said: What is 2 + 2?"
    assert [item.error is None for item in both.trace.observed] == [False, False, True]


@pytest.mark.parametrize(
    "model_of", [attrgetter("name"), lambda candidate: candidate.adapter or candidate.model]
)
def test_the_server_is_asked_for_the_candidate_and_not_for_its_base(served, model_of) -> None:
    law = Candidate(model="good", adapter="law", effort="low", price_card=CARD)
    environment = {"candidates": [law], "timeout_s": 2}
    with openai.OpenAI(base_url=url(served), api_key="none", max_retries=0) as client:
        named = BlockingChatCompletions(client, model_of=model_of)
        run(BlockingEnvironment(client=named, **environment), Once(names=(law.name,)), QUERY)
        assert served.seen[-1]["model"] == model_of(law)
        assert "reasoning_effort" not in served.seen[-1]
        asked = len(served.seen)
        unnamed = BlockingChatCompletions(client)
        done = run(BlockingEnvironment(client=unnamed, **environment), Once(names=(law.name,)), QUERY)
    assert done.answer is None
    assert "pass model_of" in str(done.trace.observed[0].error)
    assert len(served.seen) == asked


class Own:
    """A client that gives up by itself, as one does whose server cannot be reached; `b` answers."""

    async def ask(self, ask: Ask) -> Told:
        if ask.candidate.model == "a":
            raise TimeoutError("the connection timed out")
        return Told(text="from b", input_tokens=1, output_tokens=1)


def test_a_time_out_of_the_client_is_no_deadline() -> None:
    environment = LiveEnvironment(client=Own(), candidates=[Candidate(model="a"), Candidate(model="b")])
    sequencer = FixedOrder(order=("a", "b"))
    done = asyncio.run(run_async(environment, sequencer, QUERY, bounds=Bounds(deadline_s=30.0)))
    assert (done.ended.how, done.answer) == ("stop", "from b")
    assert done.trace.observed[0].error == "TimeoutError: the connection timed out"
    assert done.trace.observed[0].latency_s < 5.0


class EarlyTimers(asyncio.SelectorEventLoop):
    """Timers that count whole milliseconds, as those of some event loops do, fire up to one too early."""

    def call_at(self, when: float, *args: Any, **more: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        return super().call_at(when - 1.5e-3, *args, **more)


class Waiting:
    """A client that never has an answer."""

    async def ask(self, ask: Ask) -> Told:
        await asyncio.sleep(60)
        return Told(text="late")


def test_a_policy_that_the_deadline_cuts_has_not_failed() -> None:
    environment = LiveEnvironment(client=Waiting(), candidates=POOL, thinker=Candidate(model="policy"))
    for _ in range(3):
        asked = run_async(environment, RouterR1(), QUERY, bounds=Bounds(deadline_s=0.05))
        with asyncio.Runner(loop_factory=EarlyTimers) as runner:
            done = runner.run(asked)
        (thought,) = [event for event in done.trace.events if isinstance(event, Thought)]
        assert "no answer within 0.0" in str(thought.error)
        assert (done.ended.how, done.ended.why) == ("deadline", "0.05 s")


class Slow:
    """A client that takes its time, and more of it than it is given."""

    def ask(self, ask: Ask) -> Told:
        time.sleep(0.05)
        return Told(text="4", input_tokens=1, output_tokens=1)


class Ponderer(Sequencer):
    """Thinks for a while before each set of calls, and never stops."""

    def __init__(self, *, think_s: float) -> None:
        self.think_s = think_s

    def next(self, trace, rng) -> Choice:
        time.sleep(self.think_s)
        sample = trace.num_calls
        calls = tuple(Call(candidate=name, sample=sample) for name in ("good", "slow", "half"))
        return Choice(action=CallSet(calls=calls))


@pytest.mark.parametrize("think_s", [0.0, 0.1])
def test_calls_one_after_the_other_and_thinking_count_against_the_deadline(think_s: float) -> None:
    environment = BlockingEnvironment(client=Slow(), candidates=POOL)
    started_s = time.perf_counter()
    done = run(environment, Ponderer(think_s=think_s), QUERY, bounds=Bounds(deadline_s=0.4, steps=100))
    # The last set may begin a hair before the deadline, and its calls are a sleep each.
    assert time.perf_counter() - started_s < 0.4 + 0.3
    assert done.ended.how == "deadline"
    assert done.trace.num_calls <= 9


class Recorder:
    """A client that answers at once and keeps what it was asked."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []

    def ask(self, ask: Ask) -> Told:
        self.asks.append(ask)
        return Told(text="4", input_tokens=None)


def test_what_a_call_may_cost_bounds_it_from_above() -> None:
    environment = BlockingEnvironment(client=Recorder(), candidates=POOL, max_output_tokens=100)
    asked: list[float] = []

    class Asking(Sequencer):
        def next(self, trace, rng) -> Choice:
            asked.append(environment.most_usd(Call(candidate="good"), trace))
            asked.append(environment.most_usd(Call(candidate="good", text="x" * 2000), trace))
            asked.append(environment.most_usd(Think(messages=()), trace))
            return Choice(action=Stop())

    run(environment, Asking(), QUERY)
    assert asked[0] == pytest.approx((7 + 16 + 200) / 1e6)
    assert asked[1] == pytest.approx((1000 + 16 + 200) / 1e6)
    assert math.isnan(asked[2])


def test_an_unknown_price_is_an_unknown_charge_and_fits_no_budget() -> None:
    client = Recorder()
    environment = BlockingEnvironment(client=client, candidates=[Candidate(model="free?")])
    done = run(environment, Once(names=("free?",)), QUERY)
    assert (done.usd, done.trace.num_unknown_charges) == (0.0, 1)
    done = run(environment, Once(names=("free?",)), QUERY, bounds=Bounds(usd=1.0))
    assert done.ended.how == "budget"
    assert len(client.asks) == 1


def test_the_own_budget_of_a_candidate_goes_before_the_default() -> None:
    client = Recorder()
    pool = [Candidate(model="m", max_output_tokens=7), Candidate(model="n")]
    environment = BlockingEnvironment(client=client, candidates=pool, input_tokens=50)
    run(environment, Once(names=(pool[0].name, "n")), QUERY)
    assert [ask.max_output_tokens for ask in client.asks] == [7, 1024]
    # The client holds the conversation, so the environment has no words of its own for it.
    assert [ask.messages for ask in client.asks] == [None, None]


class Telling:
    """A client that tells what it was given, whatever that is."""

    def __init__(self, told: Told) -> None:
        self.told = told

    def ask(self, ask: Ask) -> Told:
        return self.told


@pytest.mark.parametrize("counts", [(-1000, 5), (5, -1000), ("7", 5), (5, math.nan), (True, 5)])
def test_a_usage_that_is_none_is_no_refund_and_loses_no_answer(counts: tuple[Any, Any]) -> None:
    told = Told(text="4", input_tokens=counts[0], output_tokens=counts[1])
    environment = BlockingEnvironment(client=Telling(told), candidates=POOL)
    done = run(environment, Once(names=("good",)), QUERY, bounds=Bounds(usd=1.0))
    assert (done.answer, done.usd, done.trace.num_unknown_charges) == ("4", 0.0, 1)
    assert done.trace.reserved_usd > 0


@pytest.mark.parametrize("choices", [None, [], [{"message": None}]])
def test_a_completion_without_a_message_still_tells_its_usage(choices: list | None) -> None:
    made = choices and [ChatChoice.model_construct(**one) for one in choices]
    told = told_of(
        ChatCompletion.model_construct(
            choices=made, usage=CompletionUsage(prompt_tokens=7, completion_tokens=3, total_tokens=10)
        )
    )
    assert (told.error, told.input_tokens, told.output_tokens) == ("the reply holds no text", 7, 3)


def test_more_cached_tokens_than_there_were_are_no_refund() -> None:
    card = PriceCard(input_usd_per_mtok=10.0, output_usd_per_mtok=1.0, cached_usd_per_mtok=1.0)
    told = Told(text="4", input_tokens=10, output_tokens=0, cached_tokens=1000)
    pool = [Candidate(model="good", price_card=card)]
    done = run(BlockingEnvironment(client=Telling(told), candidates=pool), Once(names=("good",)), QUERY)
    assert done.usd == pytest.approx(10 * 1.0 / 1e6)


def test_a_policy_whose_client_holds_no_text_is_charged_and_ends_the_task() -> None:
    told = Told(text=None, input_tokens=10, output_tokens=5)  # type: ignore[arg-type]
    environment = BlockingEnvironment(client=Telling(told), candidates=POOL, thinker=POOL[0])
    done = run(environment, RouterR1(), QUERY)
    assert (done.ended.how, done.answer) == ("abstain", None)
    assert "the reply holds no text" in done.ended.why
    assert done.usd > 0


def test_half_a_surrogate_pair_of_the_policy_ends_in_no_exception() -> None:
    told = Told(text="<think>x</think><search>good: \ud800</search>", input_tokens=10, output_tokens=5)
    environment = BlockingEnvironment(client=Telling(told), candidates=POOL, thinker=POOL[0])
    done = run(environment, RouterR1(), QUERY, bounds=Bounds(usd=1.0))
    assert done.trace.num_calls > 0
    assert done.trace.observed[0].call.text == "?"


def test_a_query_without_a_text_is_refused_unless_the_client_holds_its_words() -> None:
    wordless = Query(id="q", text=None)
    with pytest.raises(InputError, match="query 'q'; allowed: a text to ask"):
        run(BlockingEnvironment(client=Recorder(), candidates=POOL), Once(names=("good",)), wordless)
    kept = BlockingEnvironment(client=Recorder(), candidates=POOL, input_tokens=9)
    assert run(kept, Once(names=("good",)), wordless).answer == "4"
