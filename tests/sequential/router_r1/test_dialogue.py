"""A task that waits for the policy comes to the same trace as one that asks it."""

from __future__ import annotations

from tests.sequential.router_r1.test_router import QUERY, TABLE, play
from turnout.sequential.replay import ReplayEnvironment
from turnout.sequential.router_r1.dialogue import RoutingDialogue
from turnout.sequential.router_r1.router import RouterR1
from turnout.sequential.trace import Bounds, Observed, Thought

TEXTS = ["<think>a</think><search>small</search>", "hm", "<search>large</search>", "<answer>[last]</answer>"]


def dialogue(**settings: object) -> RoutingDialogue:
    router = RouterR1(sub_queries=False, **settings)  # type: ignore[arg-type]
    return RoutingDialogue(ReplayEnvironment(TABLE, independent=True), router, QUERY)


def test_it_comes_to_the_trace_of_run() -> None:
    task = dialogue()
    replies = [task.reply(text) for text in TEXTS]
    done, script = play(TEXTS)
    assert [reply for reply in replies if reply is not None] == [
        request.messages[-1]["content"] for request in script.asked[1:]
    ]
    assert replies[-1] is None
    assert task.outcome.ended == done.ended
    assert task.outcome.quality == 1.0

    def plain(trace) -> list[object]:
        return [
            e.text if isinstance(e, Thought) else (e.call, e.answer) if isinstance(e, Observed) else e
            for e in trace.events
        ]

    assert plain(task.trace) == plain(done.trace)


def test_a_dialogue_that_is_over_takes_nothing_more() -> None:
    task = dialogue()
    assert task.reply("<answer>4</answer>") is None
    assert task.reply("<search>small</search>") is None
    assert task.outcome.trace.num_calls == 0


def test_a_dialogue_that_is_cut_has_abstained() -> None:
    task = dialogue()
    task.reply("<search>large</search>")
    assert (task.outcome.ended.how, task.outcome.answer) == ("abstain", None)
    assert task.reply("<answer>[last]</answer>") is None


def test_without_hints_a_reply_is_the_information_alone() -> None:
    assert dialogue(hints=False).reply("<search>small</search>") == "<information>5</information>"
    assert "What is" in dialogue().prompt


def test_bounds_hold() -> None:
    router = RouterR1(sub_queries=False)
    environment = ReplayEnvironment(TABLE, independent=True)
    task = RoutingDialogue(environment, router, QUERY, prompt="?", bounds=Bounds(calls=1))
    assert task.prompt == "?"
    task.reply("<search>small</search>")
    assert "This call was not made" in str(task.reply("<search>large</search>"))
