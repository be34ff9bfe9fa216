"""This module reads the texts of a request, whichever API it came in, and adds instructions.

Chat Completions and Messages keep turns in `messages`, Responses in `input`; instructions stand in the first
turn, in `system` or in `instructions`. What is not rewritten keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.conversation_calls import map_calls, texts_of_calls
from turnout.gateway.errors import ApiError
from turnout.gateway.wire import Members

USER = "user"
_TURNS = ("messages", "input")
_INSTRUCTIONS = {"messages": "system", "responses": "instructions", "compact": "instructions"}
"""Protocol -> the member that holds its instructions; Chat Completions has them in a turn."""
_WITHOUT_TURNS = "embeddings"
"""Protocol whose texts are no conversation: nobody can be instructed there."""
_SYSTEM_ROLES = ("system", "developer")

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decoder = msgspec.json.Decoder()
_encode = msgspec.json.encode


def decode_value(raw: msgspec.Raw) -> Any:
    """Return a value; raises `ApiError` (400) for one that is nested too deeply to be read."""
    try:
        return _decoder.decode(raw)
    except RecursionError as error:
        what, do = "the request is nested too deeply", "send fewer levels of lists and objects"
        message = sentence(what, allowed="some hundred levels", do=do)
        raise ApiError(400, message, code="invalid_json") from error


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    text: str


def read_turns(members: Members) -> tuple[Turn, ...]:
    """Return the turns in order, instructions first; what has no text is left out."""
    found = [
        Turn(role="system", text=_text_in(decode_value(members[name])))
        for name in dict.fromkeys(_INSTRUCTIONS.values())
        if name in members
    ]
    for turn in [turn for name in _TURNS for turn in items_of(members, name)]:
        value = decode_value(turn)
        if isinstance(value, dict):
            texts = [_text_in(_content_of(value)), *texts_of_calls(value)]
            text = "\n".join(text for text in texts if text)
            found.append(Turn(role=str(value.get("role", "tool")), text=text))
    if isinstance(plain := _plain_input(members), str):
        found.append(Turn(role=USER, text=plain))
    texts = [decode_value(turn) for turn in items_of(members, "input") if bytes(turn).startswith(b'"')]
    found += [Turn(role=USER, text=text) for text in texts]
    return tuple(turn for turn in found if turn.text)


def split_last_text(members: Members) -> tuple[Members, str | None]:
    """Return the members without the text of the last turn, and that text.

    (members, None) where the last turn is not the user's: what a tool answered, say. Images stay.
    """
    if (plain := _plain_input(members)) is not None:
        return {name: raw for name, raw in members.items() if name != "input"}, plain
    name = next((name for name in _TURNS if items_of(members, name)), None)
    turns = [] if name is None else items_of(members, name)
    last = decode_value(turns[-1]) if turns else None
    if name is None or not isinstance(last, dict) or last.get("role") != USER or _has_results(last):
        return members, None
    said: list[str] = []

    def take(text: str) -> str:
        said.append(text)
        return ""

    emptied = _encode(_map_turn(last, take))
    kept = msgspec.Raw(b"[" + b",".join([*(bytes(turn) for turn in turns[:-1]), emptied]) + b"]")
    return {**members, name: kept}, "\n".join(said)


def _has_results(turn: dict[str, Any]) -> bool:
    """Whether a turn brings what tools answered, as the Messages API does."""
    content = turn.get("content")
    return isinstance(content, list) and any(isinstance(part, dict) and "content" in part for part in content)


def with_system(members: Members, text: str, *, place: str, protocol: str) -> Members:
    """Return the members with a text in the instructions: before, after or instead of the client's own."""
    if protocol == _WITHOUT_TURNS:
        return members
    name = _INSTRUCTIONS.get(protocol)
    if name is not None:
        own = _text_in(decode_value(members[name])) if name in members else ""
        joined = _joined(own, text, place)
        return members if joined is None else {**members, name: msgspec.Raw(_encode(joined))}
    turns = items_of(members, "messages")
    first = decode_value(turns[0]) if turns else None
    has_own = isinstance(first, dict) and first.get("role") in _SYSTEM_ROLES
    own = _text_in(_content_of(first)) if has_own and isinstance(first, dict) else ""
    joined = _joined(own, text, place)
    if joined is None:
        return members
    turn = {**first, "content": joined} if has_own and first else {"role": "system", "content": joined}
    kept = [bytes(_encode(turn)), *(bytes(old) for old in turns[1 if has_own else 0 :])]
    return {**members, "messages": msgspec.Raw(b"[" + b",".join(kept) + b"]")}


def _joined(own: str, text: str, place: str) -> str | None:
    """Return both texts as `place` says; None where the client's own stays as it is."""
    if not own or place == "instead":
        return text
    if place == "if_missing":
        return None
    return f"{own}\n\n{text}" if place == "after" else f"{text}\n\n{own}"


def items_of(members: Members, name: str) -> list[msgspec.Raw]:
    """Return the items of a member that is a list, else none."""
    if name in members and bytes(members[name]).lstrip().startswith(b"["):
        return _decode_list(members[name])
    return []


def _plain_input(members: Members) -> str | None:
    """Return the text of a Responses request whose input is a plain string."""
    if "input" in members and bytes(members["input"]).lstrip().startswith(b'"'):
        return str(decode_value(members["input"]))
    return None


def _content_of(turn: dict[str, Any]) -> object:
    """Return what a turn says; a tool's result of the Responses API calls it `output`."""
    return turn.get("content", turn.get("output"))


def _text_in(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        texts = [part.get("text") or _text_in(part.get("content")) for part in parts]
        return "\n".join(text for text in texts if isinstance(text, str) and text)
    return ""


def _map_turn(turn: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(turn, dict):
        return turn
    kept = {name: _map_content(turn[name], change) for name in ("content", "output") if name in turn}
    return map_calls({**turn, **kept}, change)


def _map_content(content: Any, change: Callable[[str], str]) -> Any:
    if isinstance(content, str):
        return change(content)
    if isinstance(content, list):
        return [_map_part(part, change) for part in content]
    return content


def _map_part(part: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(part, dict):
        return part
    kept = {name: _map_content(part[name], change) for name in ("text", "content") if name in part}
    return {**part, **kept}
