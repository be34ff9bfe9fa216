"""This module turns events into JSON objects and back; unknown numbers are null, never NaN."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.sequential.actions import Abstain, Action, Call, CallSet, Choice, Escalate, Stop, Think
from turnout.sequential.trace import Bounds, Chosen, Ended, Event, Observed, Refused, Started, Thought

Text = Callable[[str | None], str | None]
Json = dict[str, Any]

ACTIONS: dict[str, type] = {
    "call": Call,
    "call_set": CallSet,
    "think": Think,
    "stop": Stop,
    "escalate": Escalate,
    "abstain": Abstain,
}
EVENTS: dict[str, type] = {
    "started": Started,
    "chosen": Chosen,
    "refused": Refused,
    "observed": Observed,
    "thought": Thought,
    "ended": Ended,
}
# Whatever was said by a user, a model or the policy's own model.
TEXTS = frozenset({"text", "answer", "content"})


def withheld(text: str) -> str:
    """Return the placeholder of a text: its length and digest, equal for equal texts."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"[{len(text)} characters, sha256 {digest}]"


def event_to_dict(event: Event, *, keep_text: bool) -> Json:
    """Return an event as a JSON object; `event_from_dict` reads it back."""
    return {"event": _name(EVENTS, event), **_plain(event, keep_text=keep_text)}


def event_from_dict(body: Mapping[str, Any]) -> Event:
    """Rebuild an event; raises `InputError` for one of an unknown kind."""
    kind = EVENTS.get(body["event"])
    if kind is None:
        raise InputError(sentence("a record's event", allowed=tuple(EVENTS), got=body["event"]))
    values = {field.name: body[field.name] for field in fields(kind) if field.name in body}
    for name, build in _BUILDERS.items():
        if values.get(name) is not None:
            values[name] = build(values[name])
    for name in ("candidates", "reveals", "admissible"):
        if name in values:
            values[name] = tuple(values[name])
    if kind in (Observed, Thought):
        values = _with_unknown(values)
    event: Event = kind(**values)
    return event


def action_to_dict(action: Action, *, keep_text: bool = True) -> Json:
    """Return an action as a JSON object."""
    return {"action": _name(ACTIONS, action), **_plain(action, keep_text=keep_text)}


def action_from_dict(body: Mapping[str, Any]) -> Action:
    """Rebuild an action; raises `InputError` for one of an unknown kind."""
    values = dict(body)
    kind = ACTIONS.get(values.pop("action", ""))
    if kind is None:
        raise InputError(sentence("a record's action", allowed=tuple(ACTIONS), got=body.get("action")))
    if kind is CallSet:
        values["calls"] = tuple(Call(**call) for call in values["calls"])
    if kind is Think:
        values["messages"] = tuple(dict(message) for message in values["messages"])
        values["stop"] = tuple(values["stop"])
    action: Action = kind(**values)
    return action


def _plain(value: Any, *, keep_text: bool) -> Json:
    return {f.name: _value(f.name, getattr(value, f.name), keep_text=keep_text) for f in fields(value)}


def _value(name: str, value: Any, *, keep_text: bool) -> Any:
    if isinstance(value, str):
        return value if keep_text or name not in TEXTS else withheld(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if name == "action":
        return action_to_dict(value, keep_text=keep_text)
    if isinstance(value, Query | Bounds | Call | Choice):
        return _plain(value, keep_text=keep_text)
    if isinstance(value, Mapping):
        return {str(k): _value(str(k), v, keep_text=keep_text) for k, v in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple | list):
        return [_value("", item, keep_text=keep_text) for item in value]
    return value


def _choice(body: Json) -> Choice:
    values = {name: math.nan if value is None else value for name, value in body["values"].items()}
    return Choice(**{**body, "action": action_from_dict(body["action"]), "values": values})


def _query(body: Json) -> Query:
    return Query(**{**body, "needs": frozenset(body["needs"])})


def _call(body: Json) -> Call:
    return Call(**body)


_BUILDERS: dict[str, Callable[[Json], Any]] = {
    "query": _query,
    "bounds": lambda body: Bounds(**body),
    "choice": _choice,
    "action": action_from_dict,
    "call": _call,
    "source": _call,
}


def _with_unknown(values: Json) -> Json:
    for name in ("usd", "latency_s"):
        if values.get(name) is None:
            values[name] = math.nan
    if values.get("signals"):
        values["signals"] = {k: math.nan if v is None else v for k, v in values["signals"].items()}
    return values


def _name(names: Mapping[str, type], value: object) -> str:
    return next(name for name, kind in names.items() if isinstance(value, kind))
