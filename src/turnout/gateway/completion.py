"""This module reads what is accounted of a whole chat answer: its usage and its texts."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.stream import UsageCount


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
    try:
        return parse_completion(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def parse_completion(body: bytes) -> Completion:
    """Read a body; raises what msgspec does, `UnicodeDecodeError` or `RecursionError` where it is none."""
    return _decoder.decode(body)
