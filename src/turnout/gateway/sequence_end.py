"""This module turns the end of a sequencer's task into an answer or an error, and into what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from turnout.core.errors import sentence
from turnout.gateway.account import Spent
from turnout.gateway.errors import ApiError, Headers, Kind
from turnout.gateway.schema import TraceRow
from turnout.sequential.record import to_lines
from turnout.sequential.trace import Ended, Observed, Thought, Trace

# Money was spent: a client that tries again on its own would spend it again.
_NO_RETRY: Headers = [(b"x-should-retry", b"false")]

_FAILED: dict[str, tuple[int, str, Kind, str]] = {
    "stop": (502, "no_answer", "upstream_error", "ask again, or name a candidate as the model"),
    "nobody": (502, "no_answer", "upstream_error", "ask again when the upstreams are up"),
    "abstain": (422, "abstained", "invalid_request_error", "ask otherwise, or name a candidate as the model"),
    "escalate": (422, "escalated", "invalid_request_error", "hand it to whom it names"),
    "budget": (422, "budget_too_small", "invalid_request_error", "allow more, or ask for less"),
    "steps": (502, "too_many_steps", "server_error", "raise max_steps, or take another policy model"),
    "deadline": (504, "deadline", "timeout_error", "ask again, or raise deadline_s"),
}


_POLICY_DOWN: tuple[int, str, Kind, str] = (
    502,
    "policy_failed",
    "upstream_error",
    "ask again when its upstream is up, or name a candidate as the model",
)
_WHY_CHARS = 200


def answer_of(trace: Trace, ended: Ended, name: str) -> str:
    """Return the answer; raises `ApiError` where there is none that may be given.

    Where a bound ended the task, an answer to a sub-query is no answer to the question.
    """
    is_forced = ended.how != "stop"
    is_part = ended.source is not None and ended.source.text is not None
    if ended.answer is not None and not (is_forced and is_part):
        return ended.answer
    is_down = ended.how == "abstain" and any(
        event.error is not None for event in trace.events if isinstance(event, Thought)
    )
    failed = _failed(trace)
    if is_down:
        status, code, kind, do = _POLICY_DOWN
    elif failed and ended.how == "abstain":
        # Who abstains because the models it asked are down is not at fault, and neither is the client.
        status, code, kind, do = _FAILED["nobody"]
    else:
        status, code, kind, do = _FAILED[ended.how]
    # A reason may be a sentence with parts of its own; only the first of them belongs into this one.
    why = ended.why.partition(";")[0][:_WHY_CHARS] or "for no stated reason"
    if failed and code == "no_answer":
        why = f"no answer from {', '.join(failed)}"
    what = f"the sequencer {name!r} came to no answer ({ended.how}): {why}"
    message = sentence(what, allowed="an answer within its bounds", do=do)
    raise ApiError(status, message, code=code, kind=kind, headers=list(_NO_RETRY))


def finish_of(trace: Trace) -> str:
    """Return the finish reason of the answer: of the call it came from, or of the policy's last words."""
    last = trace.last
    source = last.source if isinstance(last, Ended) else None
    said = [event for event in trace.events if isinstance(event, Observed if source else Thought)]
    if source is not None:
        said = [event for event in said if isinstance(event, Observed) and event.call == source]
    return (said[-1].finish if said else None) or "stop"


def _failed(trace: Trace) -> list[str]:
    """Return the candidates whose calls failed, where no call of the task had an answer; else nothing."""
    if any(observed.error is None for observed in trace.observed):
        return []
    return list(dict.fromkeys(observed.call.candidate for observed in trace.observed))


def spent_by(trace: Trace, name: str, *, is_estimated: bool) -> Spent:
    """Return what the task came to; USD is None where an answer has no known price."""
    charged = list(_charged(trace))
    unpriced = any(item.error is None and math.isnan(item.usd) for item in charged)
    return Spent(
        name=name,
        input_tokens=_total(item.input_tokens for item in charged),
        output_tokens=_total(item.output_tokens for item in charged),
        usd=None if unpriced else trace.usd,
        is_estimated=is_estimated or any(item.output_tokens is None for item in charged),
    )


def trace_row(trace: Trace, decision_id: str, name: str, *, keep_text: bool) -> TraceRow:
    """Return the row that keeps a trace."""
    last = trace.last
    return TraceRow(
        decision_id=decision_id,
        sequencer=name,
        ended=last.how if isinstance(last, Ended) else None,
        calls=trace.num_calls,
        thoughts=sum(isinstance(event, Thought) for event in trace.events),
        unknown_charges=trace.num_unknown_charges,
        usd=trace.usd,
        trace="\n".join(to_lines([trace], keep_text=keep_text)),
    )


def faults_of(trace: Trace) -> Iterator[str]:
    """Yield what went wrong on the way, in order."""
    for item in _charged(trace):
        if item.error is not None:
            who = item.call.candidate if isinstance(item, Observed) else "the policy's model"
            yield f"{who}: {item.error}"


def _charged(trace: Trace) -> Iterator[Observed | Thought]:
    return (event for event in trace.events if isinstance(event, Observed | Thought))


def _total(counts: Iterable[int | None]) -> int | None:
    """Return the sum of what is known; None where nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
