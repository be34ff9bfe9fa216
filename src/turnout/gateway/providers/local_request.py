"""This module reads a chat request for a local model, in the client's own words.

A field that would change the answer and that a local model does not know is refused by name; the same field
with a value that changes nothing, as clients send it by default, is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, final

import msgspec

from turnout.core.errors import ABSENT, sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.expected import mismatch
from turnout.gateway.providers.base import Call, Fault
from turnout.gateway.settings_providers import LocalSettings

CODE = "local_bad_request"
"""Code of the errors of this module."""

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "tools": ([], False),
    "tool_choice": ("auto", "none"),
    "functions": ([], False),
    "function_call": ("auto", "none"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "audio": ([], False),
    "modalities": (["text"], []),
    "response_format": ({"type": "text"},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "enable_thinking": (),
    "reasoning": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "logit_bias": ({},),
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "echo": (False,),
    "truncate_prompt_tokens": (),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
}
"""Fields that a local model does not know, and the values besides null at which they change nothing."""

_Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Heat = Annotated[float, msgspec.Meta(ge=0, le=100)]
_Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Stop = Annotated[str, msgspec.Meta(min_length=1)]

_DO = {
    "max_tokens": "send the most tokens of the answer, or leave the field out",
    "max_completion_tokens": "send the most tokens of the answer, or leave the field out",
    "temperature": "send 0 for the likeliest answer, or leave the field out",
    "seed": "send a whole number, or leave the field out",
    "stop": "send one text or a list of texts, or leave the field out",
    "messages": 'send for example [{"role": "user", "content": "hello"}]',
}


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _Body(msgspec.Struct):
    messages: list[_Message]
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    temperature: _Heat | None = None
    seed: _Seed | None = None
    stop: _Stop | list[_Stop] | None = None
    n: int | None = None


@final
class LocalRequest:
    """What a local model is asked.

    Parameters
    ----------
    call:
        One request for one candidate; raises `Fault` (400) that names the field at fault. What another model
        may know goes to the next candidate; a field with a wrong value does not.
    settings:
        The limits of the provider.
    """

    def __init__(self, call: Call, settings: LocalSettings) -> None:
        _refuse(call)
        body = _decode(call.request.members)
        asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        limits = [settings.max_output_tokens, call.candidate.max_output_tokens, asked]
        self.messages = [_plain(message) for message in body.messages]
        self.max_new_tokens = min(limit for limit in limits if limit is not None)
        self.temperature = settings.temperature if body.temperature is None else body.temperature
        self.seed = body.seed or 0
        self.stop = _stops(body.stop)


def refused(
    what: str, param: str, *, allowed: str, do: str, got: object = ABSENT, is_wrong: bool = False
) -> Fault:
    """Return the fault of a request that no local model can serve; where it `is_wrong`, nobody else can."""
    message = sentence(what, allowed=allowed, got=got, do=do)
    error = ApiError(400, message, code=CODE, param=param)
    return Fault(error, may_fall_back=not is_wrong, is_failure=False)


def _refuse(call: Call) -> None:
    members = call.request.members
    for name in _NEUTRAL.keys() & members.keys():
        if not _is_neutral(name, bytes(members[name])):
            what = f"the local model {call.candidate.model!r} does not know {name!r}"
            allowed = " or ".join(["null", *(repr(value) for value in _NEUTRAL[name])])
            do = "leave the field out, or name another model"
            raise refused(what, name, allowed=allowed, got=_shown(members[name]), do=do)


def _is_neutral(name: str, raw: bytes) -> bool:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    # False is 0 to Python, and not to a client.
    same = (value == one and isinstance(value, bool) == isinstance(one, bool) for one in _NEUTRAL[name])
    return value is None or any(same)


def _decode(members: Mapping[str, Any]) -> _Body:
    known = {name: members[name] for name in _Body.__struct_fields__ if name in members}
    try:
        body = msgspec.json.decode(msgspec.json.encode(known), type=_Body)
    except msgspec.ValidationError as error:
        found = mismatch(error)
        name = found.place.partition("[")[0].partition(".")[0] or "messages"
        got = found.got if name == "messages" else _shown(members[name])
        do = _DO.get(name, "leave the field out")
        place = found.place or name
        what = f"the field {place!r} is wrong"
        raise refused(what, name, allowed=found.allowed, got=got, do=do, is_wrong=True) from error
    if body.n not in (None, 1):
        do = "leave the field out, and ask once for each answer"
        raise refused("the field 'n' is wrong", "n", allowed="1 with a local model", got=body.n, do=do)
    return body


def _plain(message: _Message) -> Mapping[str, object]:
    if not isinstance(message.content, list):
        return {"role": message.role, "content": message.content or ""}
    other = next((part.type for part in message.content if part.text is None), None)
    if other is not None:
        do = "send text alone, or name another model"
        what = "a part of a message is wrong"
        raise refused(what, "messages", allowed="text with a local model", got=other, do=do)
    return {"role": message.role, "content": "\n".join(part.text or "" for part in message.content)}


def _stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _shown(raw: msgspec.Raw) -> str:
    return bytes(raw)[:40].decode("utf-8", "replace")
