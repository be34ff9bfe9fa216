"""This module reads what is accounted of a whole chat answer: its usage and its texts."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.stream import UsageCount, read_usage


class Message(msgspec.Struct):
    """The message of a choice."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One of the answers."""

    message: Message | None = None
    finish_reason: Any = None
    """A word; what is none is no reason to lose the rest."""


class Completion(msgspec.Struct):
    """The part of OpenAI's chat completion that is read here."""

    usage: UsageCount | None = None
    choices: list[Choice] = []


_decoder = msgspec.json.Decoder(Completion)


def read_completion(body: bytes) -> Completion | None:
    """Read a body; None where it is none."""
    for told in (body, mended(body)):
        try:
            return None if told is None else parse_completion(told)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def mended(body: bytes) -> bytes | None:
    """Return a body with a mark for every byte that is no UTF-8; None where all of them are."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace").encode()
    return None


def parse_completion(body: bytes) -> Completion:
    """Read a body; raises what msgspec does, `UnicodeDecodeError` or `RecursionError` where it is none.

    One member of another kind than it should be loses itself, not the others.
    """
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        told = msgspec.json.decode(body, type=dict[str, Any])
    choices = told.get("choices")
    return Completion(
        usage=read_usage(told.get("usage")),
        choices=list(map(_odd_choice, choices)) if isinstance(choices, list) else [],
    )


def _odd_choice(choice: Any) -> Choice:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return Choice()
    content = message.get("content")
    return Choice(
        message=Message(content=content if isinstance(content, str) else None),
        finish_reason=choice.get("finish_reason"),
    )
