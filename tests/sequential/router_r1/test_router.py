"""The sequencer turns what a policy writes into calls and answers, and comes to an end whatever it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core import Candidate, InputError, OutcomeTable, Query, artifact
from turnout.sequential.actions import Call, Think
from turnout.sequential.loop import Outcome, run
from turnout.sequential.replay import ReplayEnvironment
from turnout.sequential.router_r1.observe import CUT
from turnout.sequential.router_r1.reward import episode_of, gave_up, violations
from turnout.sequential.router_r1.router import RouterR1
from turnout.sequential.router_r1.thinking import ThinkingEnvironment
from turnout.sequential.trace import Bounds, Chosen, Refused, Thought, Trace

QUERY = Query(id="q", text="What is  2 + 2?")
TABLE = OutcomeTable(
    queries=[QUERY],
    candidates=[Candidate(model="small"), Candidate(model="large"), Candidate(model="gone")],
    query_index=[0, 0],
    candidate_index=[0, 1],
    quality=[0.0, 1.0],
    cost_usd=[0.001, 0.01],
    extras={"answer": ["5", "4"]},
)


class Script:
    """Writes what it is told to, and remembers what it was asked."""

    def __init__(self, texts: Sequence[str], usd: float = 1e-4) -> None:
        self.texts: Iterator[str] = iter(texts)
        self.asked: list[Think] = []
        self.usd = usd

    def __call__(self, request: Think) -> Thought:
        self.asked.append(request)
        return Thought(text=next(self.texts, ""), usd=self.usd)


def play(texts: Sequence[str], *, bounds: Bounds | None = None, **settings: object) -> tuple[Outcome, Script]:
    script = Script(texts)
    environment = ThinkingEnvironment(ReplayEnvironment(TABLE, independent=True), write=script)
    router = RouterR1(**{"sub_queries": False, **settings})  # type: ignore[arg-type]
    return run(environment, router, QUERY, bounds=bounds or Bounds()), script


def test_it_asks_reads_and_answers() -> None:
    done, script = play(["<think>a</think><search>small", "<search>large", "<answer>[last]"])
    assert (done.ended.how, done.answer, done.quality) == ("stop", "4", 1.0)
    assert done.usd == pytest.approx(0.011 + 3e-4)
    assert [item.call.candidate for item in done.trace.observed] == ["small", "large"]
    contents = [message["content"] for message in script.asked[-1].messages]
    assert [message["role"] for message in script.asked[-1].messages] == [
        "system", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert contents[2] == "<think>a</think><search>small</search>"
    assert contents[3] == "<information>5</information>"
    assert contents[5] == "<information>4</information>\nYou may ask 2 more times."
    assert script.asked[0].stop == ("</search>", "</answer>")


@pytest.mark.parametrize(("limit", "read"), [({}, 2400), ({"max_information_tokens": 50}, 200)])
def test_the_policy_reads_the_first_600_tokens_of_an_answer(limit: dict[str, int], read: int) -> None:
    long = TABLE.with_extras({"answer": ["5" * 9000, "4"]})
    script = Script(["<search>small", "<answer>[last]"])
    environment = ThinkingEnvironment(ReplayEnvironment(long, independent=True), write=script)
    done = run(environment, RouterR1(sub_queries=False, hints=False, **limit), QUERY, bounds=Bounds())  # type: ignore[arg-type]
    assert script.asked[-1].messages[-1]["content"] == f"<information>{'5' * read}{CUT}</information>"
    # The task's answer is the whole one.
    assert done.answer == "5" * 9000


def test_an_answer_of_its_own_words_cannot_be_judged_by_a_table() -> None:
    done, _ = play(["<answer>four</answer>"])
    assert (done.answer, done.trace.num_calls) == ("four", 0)
    assert np.isnan(done.quality)


def test_a_violation_is_explained_once_and_then_ends_the_task() -> None:
    done, script = play(["dunno", "<search>small", "<answer>[last]"])
    assert done.answer == "5"
    assert "there is no action" in script.asked[1].messages[-1]["content"]
    assert violations(done.trace) == 1
    done, _ = play(["dunno", "<search>nobody"])
    assert (done.ended.how, done.answer) == ("abstain", None)
    assert "broke the protocol 2 times, last by 'unknown_model'" in done.ended.why
    assert done.usd == pytest.approx(2e-4)


def test_at_the_end_the_last_answer_may_serve() -> None:
    texts = ["<search>large", "hm", "hm"]
    assert play(texts)[0].ended.how == "abstain"
    assert play(texts, at_end="last")[0].answer == "4"
    assert play(["hm", "hm"], at_end="last")[0].ended.how == "abstain"


def test_turns_are_bounded() -> None:
    done, script = play(["<search>large"] * 9, max_turns=2)
    # The second sample was not recorded: an error, and the model is not asked a third time.
    assert [item.error is None for item in done.trace.observed] == [True, False]
    assert "all 2 calls are used" in script.asked[3].messages[-1]["content"]
    assert "Nobody can be asked any more" in script.asked[2].messages[-1]["content"]
    assert "'no_turns'" in done.ended.why


def test_nothing_can_be_handed_on_before_somebody_answered() -> None:
    done, _ = play(["<search>gone", "<answer>[last]", "<answer>[last]"])
    assert "nothing_to_pass_on" in done.ended.why


def test_a_model_that_fails_is_told_and_not_asked_again() -> None:
    done, script = play(["<search>gone", "<search>gone", "<search>small", "<answer>[last]"])
    assert done.answer == "5"
    assert "gone did not answer" in script.asked[1].messages[-1]["content"]
    assert "only: small, large" in script.asked[1].messages[-1]["content"]
    assert "This call was not made: 'gone' failed" in script.asked[2].messages[-1]["content"]
    assert sum(isinstance(event, Refused) for event in done.trace.events) == 1


def test_a_call_beyond_the_budget_is_refused_and_said() -> None:
    done, script = play(["<search>large", "<search>small", "<answer>[last]"], bounds=Bounds(usd=0.005))
    assert done.answer == "5"
    assert done.usd < 0.005
    assert "This call was not made: the rest of the budget" in script.asked[1].messages[-1]["content"]


def test_a_policy_that_cannot_be_paid_ends_the_task() -> None:
    script = Script(["<search>small"])
    environment = ThinkingEnvironment(
        ReplayEnvironment(TABLE, independent=True), write=script, most_thought_usd=1.0
    )
    done = run(environment, RouterR1(), QUERY, bounds=Bounds(usd=0.005))
    assert (done.ended.how, done.usd, script.asked) == ("abstain", 0.0, [])
    assert "the policy cannot go on" in done.ended.why


def test_a_policy_whose_model_is_down_ends_the_task() -> None:
    def write(request: Think) -> Thought:
        return Thought(text="", error="refused", usd=0.0)

    environment = ThinkingEnvironment(ReplayEnvironment(TABLE, independent=True), write=write)
    done = run(environment, RouterR1(), QUERY)
    assert "the policy's model did not answer: refused" in done.ended.why


@pytest.mark.parametrize("at_end", ["last", "abstain"])
@pytest.mark.parametrize("dies", [True, False])
def test_a_policy_that_dies_or_cannot_be_paid_is_no_valid_episode(at_end: str, dies: bool) -> None:
    written = iter([Thought(text="<search>large", usd=0.001), Thought(text="", usd=0.0, error="boom")])
    inner = ReplayEnvironment(TABLE, independent=True)
    environment = ThinkingEnvironment(inner, write=lambda _: next(written), most_thought_usd=0.002)
    bounds = Bounds() if dies else Bounds(usd=0.0125)
    done = run(environment, RouterR1(sub_queries=False, at_end=at_end), QUERY, bounds=bounds)  # type: ignore[arg-type]
    assert done.ended.how == ("stop" if at_end == "last" else "abstain")
    assert (gave_up(done.trace), violations(done.trace)) == (True, 0)
    assert not episode_of(done, {}, corrected=False, quality=1.0).is_valid
    handed_on, _ = play(["<search>large", "<answer>[last]"])
    assert episode_of(handed_on, {}, corrected=False).is_valid


def test_a_sub_query_that_is_the_query_is_asked_as_such() -> None:
    done, _ = play(["<search>large: What is 2 + 2?", "<answer>[last]"], sub_queries=True)
    assert done.trace.observed[0].call == Call(candidate="large")
    with pytest.raises(InputError, match="a text of its own"):
        play(["<search>large: What is 2 plus 2?"], sub_queries=True)


def test_the_same_trace_gives_the_same_choices() -> None:
    done, _ = play(["hm", "<search>small", "<search>large", "<answer>[last]"])
    router, rng = RouterR1(sub_queries=False), np.random.default_rng(0)
    again = Trace(done.trace.started)
    for event in done.trace.events[1:]:
        if isinstance(event, Chosen):
            again.admissible = event.admissible
            assert router.next(again, rng) == event.choice
            assert event.choice.propensity == 1.0
        again.append(event)


texts = st.sampled_from(
    [
        "<search>small",
        "<search>large",
        "<search>gone",
        "<search>x",
        "<answer>[last]",
        "<answer>1",
        "",
        "<think>",
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(texts, max_size=20), st.integers(1, 4), st.integers(0, 2), st.sampled_from([None, 0.0, 0.002])
)
def test_whatever_the_policy_writes_the_task_ends_within_its_bounds(
    written: list[str], turns: int, corrections: int, usd: float | None
) -> None:
    done, _ = play(written, max_turns=turns, max_corrections=corrections, bounds=Bounds(steps=50, usd=usd))
    assert done.ended.how in ("stop", "abstain", "budget")
    assert done.trace.num_calls <= turns
    assert usd is None or sum(item.usd for item in done.trace.observed if item.error is None) <= usd
    if done.ended.how == "stop" and done.ended.source is not None:
        said = {item.call: item.answer for item in done.trace.observed}
        assert done.answer == said[done.ended.source]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_turns": 0},
        {"max_corrections": -1},
        {"at_end": "guess"},
        {"think_tag": "answer"},
        {"descriptions": ("ab",)},
    ],
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        RouterR1(**wrong)


def test_it_is_saved_and_loaded(tmp_path) -> None:
    router = RouterR1(descriptions=(("small", "cheap"),), max_turns=3, route_tag="ask")
    loaded = artifact.load(artifact.save(router, tmp_path / "r1"))
    assert isinstance(loaded, RouterR1)
    assert loaded.config() == router.config()
