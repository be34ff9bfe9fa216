"""This module makes an answer JSON before an API that has no word for it: by instruction, and by a cut.

OpenAI's `response_format` asks for an object of any keys, or for one that fits a schema. Anthropic's
structured output takes closed schemas alone. For the rest the model is told what to write, and what it writes
around the object (a fence of code, a word before or after it) is left out, in whole answers and in streams.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, final

import msgspec

from turnout.gateway.errors import Headers
from turnout.gateway.translate.json_schema import fitted
from turnout.gateway.translate.refusal import plain, refuse
from turnout.gateway.wire import Members

INSTRUCTED: Headers = [(b"x-turnout-json", b"instructed")]
"""What an answer says whose form nobody but the model itself keeps."""

_OBJECT = "Answer with one JSON object and nothing else: no words before or after it, and no code fence."
_SCHEMA = f"{_OBJECT} It must be valid under this JSON schema:\n"
_SIGNS = re.compile(r'["{}\\]')


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How an answer is to look: as a schema of the API's own, or as an instruction says."""

    schema: dict[str, Any] | None = None
    instruction: str | None = None


def form_of(members: Members, language: str) -> Form | None:
    """Return the form that a chat request asks for, None for text; raises `Fault` for one nobody knows."""
    wanted = plain(members.get("response_format"))
    if wanted is None or wanted == {"type": "text"}:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return Form(instruction=_OBJECT)
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    if kind != "json_schema" or not isinstance(described, dict):
        raise refuse("response_format", language, wanted)
    schema = described.get("schema")
    if not isinstance(schema, dict) or not schema:
        return Form(instruction=_OBJECT)
    own = fitted(schema)
    if own is not None:
        return Form(schema=own)
    return Form(instruction=_SCHEMA + msgspec.json.encode(schema).decode())


def is_instructed(members: Members) -> bool:
    """Whether the model alone keeps the form of the answer to a request that could be said."""
    if "response_format" not in members:
        return False
    form = form_of(members, "")
    return form is not None and form.instruction is not None


@final
class ObjectCutter:
    """Passes the first JSON object of a text on, as it arrives, and nothing around it.

    A text without one, such as a refusal, is told whole at its end.
    """

    def __init__(self) -> None:
        self._held: list[str] = []
        self._depth = 0
        self._is_over = False
        self._in_string = False
        self._is_escaped = False

    def feed(self, text: str) -> str:
        """Return what of a piece belongs to the object."""
        if self._is_over or not text:
            return ""
        if self._depth == 0:
            start = text.find("{")
            if start < 0:
                self._held.append(text)
                return ""
            self._held.clear()
            text = text[start:]
        return text[: self._end(text)]

    def end(self) -> str:
        """Return the text that turned out to hold no object."""
        held, self._held = "".join(self._held), []
        return held

    def _end(self, text: str) -> int:
        """Return where the object ends in a piece; its length where it goes on."""
        place = 0
        while place < len(text):
            if self._is_escaped:
                self._is_escaped, place = False, place + 1
                continue
            found = _SIGNS.search(text, place)
            if found is None:
                break
            sign, place = found.group(), found.end()
            if self._in_string:
                self._in_string, self._is_escaped = sign != '"', sign == "\\"
            elif sign == '"':
                self._in_string = True
            elif sign != "\\":
                self._depth += 1 if sign == "{" else -1
                if self._depth == 0:
                    self._is_over = True
                    return place
        return len(text)


def object_in(text: str) -> str:
    """Return the JSON object that a whole answer holds; the answer itself where it holds none."""
    cutter = ObjectCutter()
    return cutter.feed(text) + cutter.end()
