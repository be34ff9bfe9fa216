"""This module lets a language model route: it thinks, asks models of the pool in turns, and answers.

It follows S7, Router-R1 (arXiv 2506.09033): a policy that interleaves thinking with calls, at most
four of them, each observation cut at 600 tokens. Any chat model can be the policy; training makes it better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.sequential.actions import Abstain, Action, Call, Choice, Stop, Think
from turnout.sequential.contracts import Sequencer
from turnout.sequential.router_r1.parse import Answer, Grammar, Route, Violation
from turnout.sequential.router_r1.prompt import system_text
from turnout.sequential.router_r1.tags import PASS_ON, Tags
from turnout.sequential.router_r1.transcript import Rules, Transcript, read_trace
from turnout.sequential.router_r1.watch import AnswerWatch
from turnout.sequential.trace import Refused, Thought, Trace

AtEnd = Literal["abstain", "last"]
"""What a policy that does not come to an answer leads to: no answer, or that of the last model asked."""


@final
class RouterR1(Sequencer):
    """Routes by what a language model writes.

    Parameters
    ----------
    descriptions:
        Pairs of a candidate's name and a line about it, as `describe_pool` makes them.
    max_turns:
        Most calls; a refused call counts.
    max_corrections:
        Times that a text which breaks the protocol is answered with what is wrong; after that the task ends.
    at_end:
        What then becomes of it. `last` may answer a sub-query and not the question.
    sub_queries:
        Whether the policy writes what it asks; without, every model is asked the question itself, which is
        what a table of recorded outcomes can replay.
    free_text:
        Whether text outside the tags, before the action, counts as thinking; the paper forbids it.
    hints:
        Whether each observation is followed by how often, and whom, the policy may still ask.
    max_information_tokens, max_output_tokens:
        Length of an observation as the policy sees it (four characters a token), and of one thought.
    think_tag, route_tag, information_tag, answer_tag:
        Names of the tags.
    """

    thinks: ClassVar[bool] = True

    def __init__(
        self,
        *,
        descriptions: tuple[tuple[str, str], ...] = (),
        max_turns: int = 4,
        max_corrections: int = 1,
        at_end: AtEnd = "abstain",
        sub_queries: bool = True,
        free_text: bool = True,
        hints: bool = True,
        max_information_tokens: int = 600,
        max_output_tokens: int = 512,
        think_tag: str = "think",
        route_tag: str = "search",
        information_tag: str = "information",
        answer_tag: str = "answer",
    ) -> None:
        check_count("RouterR1.max_turns", max_turns)
        check_count("RouterR1.max_corrections", max_corrections, low=0)
        check_count("RouterR1.max_information_tokens", max_information_tokens)
        check_count("RouterR1.max_output_tokens", max_output_tokens)
        if at_end not in ("abstain", "last"):
            raise InputError(sentence("RouterR1.at_end", allowed="'abstain' or 'last'", got=at_end))
        given: Sequence[Any] = descriptions
        if any(isinstance(pair, str) or len(pair) != 2 for pair in given):
            raise InputError(
                sentence("RouterR1.descriptions", allowed="pairs of a name and a line", got=descriptions)
            )
        self.descriptions = tuple((str(name), str(line)) for name, line in descriptions)
        self.max_turns = max_turns
        self.max_corrections = max_corrections
        self.at_end: AtEnd = at_end
        self.sub_queries = sub_queries
        self.free_text = free_text
        self.hints = hints
        self.max_information_tokens = max_information_tokens
        self.max_output_tokens = max_output_tokens
        self.think_tag = think_tag
        self.route_tag = route_tag
        self.information_tag = information_tag
        self.answer_tag = answer_tag
        self._tags = Tags(think=think_tag, route=route_tag, information=information_tag, answer=answer_tag)

    def rules(self, candidates: tuple[str, ...]) -> Rules:
        """Return what a conversation about this pool is read by."""
        grammar = Grammar(
            candidates=candidates,
            tags=self._tags,
            sub_queries=self.sub_queries,
            free_text=self.free_text,
        )
        return Rules(
            grammar=grammar, max_turns=self.max_turns, max_information_tokens=self.max_information_tokens
        )

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the next choice.

        What is random is the policy's text, which is in the trace as a thought. Given the trace there is one
        choice, so its propensity is 1; how probable the text was is not known here.
        """
        last = trace.last
        if isinstance(last, Refused) and isinstance(last.action, Think):
            return self._give_up(trace, f"the policy cannot go on: {last.why}", 0)
        if isinstance(last, Thought) and last.error is not None:
            return self._give_up(trace, f"the policy's model did not answer: {last.error}", 0)
        read = read_trace(trace, self.rules(trace.started.candidates))
        broken = len(read.violations)
        if read.parsed is None or isinstance(read.parsed, Violation):
            if broken > self.max_corrections:
                why = f"the policy broke the protocol {broken} times, last by {read.violations[-1]!r}"
                return self._give_up(trace, why, broken)
            return self._choice(self._think(trace, read), "think", broken)
        if isinstance(read.parsed, Answer):
            return self._choice(_stop(read.parsed), "answer", broken)
        return self._choice(_call(read.parsed, trace), f"route {read.turns + 1}/{self.max_turns}", broken)

    def watch(self, trace: Trace) -> AnswerWatch:
        """Return what finds the answer in a thought while it is written."""
        return AnswerWatch(self.rules(trace.started.candidates).grammar)

    def _think(self, trace: Trace, read: Transcript) -> Think:
        system = system_text(
            trace.started.candidates,
            self.descriptions,
            tags=self._tags,
            max_turns=self.max_turns,
            sub_queries=self.sub_queries,
        )
        newest = read.messages[-1]
        hint = self._hint(trace, read)
        messages = [
            {"role": "system", "content": system},
            *read.messages[:-1],
            {**newest, "content": newest["content"] + hint},
        ]
        return Think(
            messages=tuple(messages), stop=self._tags.stops, max_output_tokens=self.max_output_tokens
        )

    def _hint(self, trace: Trace, read: Transcript) -> str:
        """Return what the policy should know of its limits now."""
        is_everybody = len(trace.admissible) == len(trace.started.candidates)
        if not self.hints or (len(read.messages) == 1 and is_everybody):
            return ""
        left = self.max_turns - read.turns
        if left <= 0 or not trace.admissible:
            return "\nNobody can be asked any more: answer now."
        who = "" if is_everybody else ", ".join(trace.admissible)
        return f"\nYou may ask {left} more times" + (f", only: {who}." if who else ".")

    def _give_up(self, trace: Trace, why: str, broken: int) -> Choice:
        if self.at_end == "last" and any(item.error is None for item in trace.observed):
            return self._choice(Stop(aggregate="last"), why, broken, gave_up=True)
        return self._choice(Abstain(why=why), "give up", broken, gave_up=True)

    def _choice(self, action: Action, reason: str, broken: int, *, gave_up: bool = False) -> Choice:
        values = {"violations": float(broken), **({"gave_up": 1.0} if gave_up else {})}
        return Choice(action=action, propensity=1.0, reason=reason, values=values)


def _stop(answer: Answer) -> Stop:
    return Stop(aggregate="last") if answer.text == PASS_ON else Stop(answer=answer.text)


def _call(route: Route, trace: Trace) -> Call:
    question = " ".join((trace.query.text or "").split())
    # The question itself is asked as such, so that it can be found in a table and keeps its conversation.
    text = None if not route.text or " ".join(route.text.split()) == question else route.text
    return Call(candidate=route.candidate, sample=trace.next_sample(route.candidate), text=text)
