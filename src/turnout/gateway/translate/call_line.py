"""This module puts pieces of calls of tools, which chat may send in any order, one call after another.

The first call is told as it comes. A later one waits while the first could still go on: until its arguments
are a whole JSON object, or its place among the calls is given to another. Nearly always nobody waits.
"""

from __future__ import annotations

from typing import Any, final

import msgspec

from turnout.gateway.translate.events import BadEventError

_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


@final
class ToolCall:
    """One call, as far as it has come."""

    __slots__ = ("call_id", "is_begun", "is_replaced", "name", "num_told", "text", "word")

    def __init__(self, call_id: str, name: str, word: str) -> None:
        self.call_id = call_id
        self.name = name
        self.word = word
        """Member of the text: `arguments`, or `input` of a tool that takes any text."""
        self.text = ""
        self.num_told = 0
        self.is_begun = False
        self.is_replaced = False
        """Whether another call has its place, so that no more can come."""

    def is_whole(self) -> bool:
        """Whether nothing that matters can follow."""
        if self.is_replaced:
            return True
        if self.word != "arguments" or not self.text.rstrip().endswith("}"):
            return False
        try:
            _object_decoder.decode(self.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True


Told = tuple[ToolCall, str]
"""A call and what is told of it; an empty text begins it."""


@final
class CallLine:
    """The calls of one answer."""

    def __init__(self) -> None:
        self._line: list[ToolCall] = []
        """Whom something is to be told of: the first as it comes, the others later."""
        self._by_index: dict[Any, ToolCall] = {}

    def feed(self, piece: dict[str, Any]) -> list[Told]:
        """Take a piece, and return what can be told now; raises `BadEventError` for one of no call."""
        index, given = piece.get("index") or 0, piece.get("id")
        tool = piece.get("function") or piece.get("custom") or {}
        call = self._by_index.get(index)
        # Some servers give every call the index 0; a new id is a new call whatever its index says.
        if call is None or (given and given != call.call_id):
            if not given or not tool.get("name"):
                raise BadEventError(f"a piece of the tool call {index} that is not open")
            if call is not None:
                call.is_replaced = True
            call = ToolCall(given, tool["name"], "input" if piece.get("custom") else "arguments")
            self._by_index[index] = call
            self._line.append(call)
        more = tool.get(call.word) or ""
        if not isinstance(more, str):
            more = msgspec.json.encode(more).decode()  # some servers write the object itself
        if more.strip() and call not in self._line:
            raise BadEventError(f"a piece of the tool call {index} that is over")
        call.text += more
        return self._tell(is_last=False)

    def end(self) -> list[Told]:
        """Return the rest: no piece is to come."""
        return self._tell(is_last=True)

    def _tell(self, *, is_last: bool) -> list[Told]:
        told: list[Told] = []
        while self._line:
            call = self._line[0]
            if not call.is_begun:
                call.is_begun = True
                told.append((call, ""))
            if more := call.text[call.num_told :]:
                call.num_told = len(call.text)
                told.append((call, more))
            if not is_last and (len(self._line) == 1 or not call.is_whole()):
                break
            del self._line[0]
        return told
