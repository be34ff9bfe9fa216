"""This module reads a trace as a conversation: what the policy wrote, what came back, what was wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from turnout.core.errors import sentence
from turnout.sequential.actions import Call
from turnout.sequential.router_r1.observe import TextTokenizer, information
from turnout.sequential.router_r1.parse import Answer, Grammar, Parsed, Route, Violation, closed, parse
from turnout.sequential.router_r1.tags import PASS_ON
from turnout.sequential.trace import Observed, Refused, Thought, Trace

Message = dict[str, str]
"""A chat message: `role` and `content`."""

_UNRECORDED = "The model answered; its text was not recorded."


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What a conversation is read by."""

    grammar: Grammar
    max_turns: int
    max_information_tokens: int
    tokenizer: TextTokenizer | None = None


@dataclass(kw_only=True, slots=True)
class Transcript:
    """A trace, read."""

    messages: list[Message] = field(default_factory=list)
    """Everything after the system message."""
    turns: int = 0
    """Calls that came back or were refused."""
    answered: int = 0
    """Calls that came back with an answer."""
    violations: list[str] = field(default_factory=list)
    """Names of the violations, in order."""
    parsed: Parsed | None = None
    """What the newest thought asks for, if the newest event is a thought."""


def read_trace(trace: Trace, rules: Rules) -> Transcript:
    """Return the conversation so far; the same trace gives the same conversation."""
    found = Transcript(messages=[{"role": "user", "content": trace.query.text or ""}])
    for event in trace.events:
        if isinstance(event, Thought):
            _take_thought(found, event, rules)
        elif isinstance(event, Observed):
            found.turns += 1
            found.answered += event.error is None
            _reply(found, _seen(event, rules))
        elif isinstance(event, Refused) and isinstance(event.action, Call):
            found.turns += 1
            _reply(found, _block(f"This call was not made: {event.why}", rules))
    return found


def _take_thought(found: Transcript, thought: Thought, rules: Rules) -> None:
    tags = rules.grammar.tags
    # Servers refuse an assistant message without content.
    written = closed(thought.text, tags) if thought.text.strip() else "(nothing)"
    found.messages.append({"role": "assistant", "content": written[: rules.grammar.max_chars]})
    found.parsed = _checked(
        parse(thought.text, rules.grammar, is_cut=thought.finish is not None), found, rules
    )
    if isinstance(found.parsed, Violation):
        found.violations.append(found.parsed.name)
        content = _block(f"This does not follow the rules: {found.parsed.why}", rules)
        found.messages.append({"role": "user", "content": content})


def _checked(parsed: Parsed, found: Transcript, rules: Rules) -> Parsed:
    """Return what was parsed, or the violation that only the course of the task shows."""
    if isinstance(parsed, Route) and found.turns >= rules.max_turns:
        what = f"all {rules.max_turns} calls are used"
        return Violation(name="no_turns", why=sentence(what, do="answer now with what you know"))
    if isinstance(parsed, Answer) and parsed.text == PASS_ON and not found.answered:
        what = f"{PASS_ON} hands on an answer, and no model has answered"
        return Violation(name="nothing_to_pass_on", why=sentence(what, do="ask a model, or answer yourself"))
    return parsed


def _reply(found: Transcript, content: str) -> None:
    found.parsed = None
    if found.messages[-1]["role"] == "user":
        found.messages[-1]["content"] += "\n" + content
    else:
        found.messages.append({"role": "user", "content": content})


def _seen(observed: Observed, rules: Rules) -> str:
    if observed.error is not None:
        return _block(f"{observed.call.candidate} did not answer: {observed.error}. Ask another.", rules)
    return _block(_UNRECORDED if observed.answer is None else observed.answer, rules)


def _block(text: str, rules: Rules) -> str:
    return information(
        text,
        tags=rules.grammar.tags,
        max_tokens=rules.max_information_tokens,
        tokenizer=rules.tokenizer,
    )
