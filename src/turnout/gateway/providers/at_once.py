"""This module writes a whole answer as the stream that was asked for: some upstreams do not stream.

The client gets every text in one event, in the API that the answer is written in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import msgspec

from turnout.gateway.providers.base import Chunks
from turnout.gateway.stream import DONE
from turnout.gateway.translate.events import write_event

Told = dict[str, Any]


@final
class AtOnce(Chunks):
    """A stream of one block."""

    def __init__(self, block: bytes) -> None:
        self._block = block

    async def read(self) -> bytes:
        """Return the block, then nothing."""
        block, self._block = self._block, b""
        return block

    def close(self) -> None:
        """Do nothing: all of it has arrived."""
        return


def events_of(protocol: str, body: bytes) -> bytes | None:
    """Return a whole answer as events; None where it is none, or the API has no streams."""
    write = _WRITERS.get(protocol)
    if write is None:
        return None
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
        return b"".join(write(told))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _chat(told: Told) -> Iterator[bytes]:
    head = {name: value for name, value in told.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    choices = [_chunked(choice) for choice in told["choices"]]
    if not choices:
        raise KeyError("choices")
    yield write_event({**head, "choices": choices})
    ends = [
        {"index": choice["index"], "delta": {}, "finish_reason": whole.get("finish_reason") or "stop"}
        for choice, whole in zip(choices, told["choices"], strict=True)
    ]
    yield write_event({**head, "choices": ends})
    if told.get("usage") is not None:
        yield write_event({**head, "choices": [], "usage": told["usage"]})
    yield DONE


def _chunked(choice: Told) -> Told:
    message = dict(choice["message"])
    calls = message.get("tool_calls")
    if calls:
        message["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
    more = {"logprobs": choice["logprobs"]} if choice.get("logprobs") is not None else {}
    return {"index": choice.get("index", 0), "delta": message, **more, "finish_reason": None}


def _messages(told: Told) -> Iterator[bytes]:
    begun = {**told, "content": [], "stop_reason": None, "stop_sequence": None}
    yield _named("message_start", message=begun)
    for index, block in enumerate(told["content"]):
        start, deltas = _block(block)
        yield _named("content_block_start", index=index, content_block=start)
        for delta in deltas:
            yield _named("content_block_delta", index=index, delta=delta)
        yield _named("content_block_stop", index=index)
    delta = {name: told.get(name) for name in ("stop_reason", "stop_sequence")}
    yield _named("message_delta", delta=delta, usage=told.get("usage") or {})
    yield _named("message_stop")


def _block(block: Told) -> tuple[Told, list[Told]]:
    """Return how a block begins, and what follows; one of another kind comes whole."""
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    if block["type"] == "thinking":
        thought = {"type": "thinking_delta", "thinking": block["thinking"]}
        signature = {"type": "signature_delta", "signature": block.get("signature", "")}
        return {**block, "thinking": "", "signature": ""}, [thought, signature]
    if block["type"] == "tool_use":
        text = msgspec.json.encode(block["input"]).decode()
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
    return block, []


def _responses(told: Told) -> Iterator[bytes]:
    numbers = iter(range(2**31))

    def event(kind: str, **more: Any) -> bytes:
        return _named(kind, sequence_number=next(numbers), **more)

    begun = {**told, "status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=begun)
    for index, item in enumerate(told["output"]):
        yield event("response.output_item.added", output_index=index, item=_begun(item))
        yield from _parts(event, index, item)
        yield event("response.output_item.done", output_index=index, item=item)
    end = "incomplete" if told.get("status") == "incomplete" else "completed"
    yield event(f"response.{end}", response=told)


def _begun(item: Told) -> Told:
    """Return an item before it has said anything."""
    empty: dict[str, Told] = {"message": {"content": []}, "function_call": {"arguments": ""}}
    return {**item, **empty.get(item.get("type", ""), {})}


def _parts(event: Callable[..., bytes], index: int, item: Told) -> Iterator[bytes]:
    if item.get("type") == "function_call":
        where = {"item_id": item.get("id"), "output_index": index}
        yield event("response.function_call_arguments.delta", **where, delta=item["arguments"])
        yield event("response.function_call_arguments.done", **where, arguments=item["arguments"])
        return
    for at, part in enumerate(item["content"] if item.get("type") == "message" else []):
        where = {"item_id": item.get("id"), "output_index": index, "content_index": at}
        if part.get("type") != "output_text":
            yield event("response.content_part.added", **where, part=part)
            continue
        yield event("response.content_part.added", **where, part={**part, "text": ""})
        yield event("response.output_text.delta", **where, delta=part["text"], logprobs=[])
        yield event("response.output_text.done", **where, text=part["text"], logprobs=[])
        yield event("response.content_part.done", **where, part=part)


def _named(kind: str, **more: Any) -> bytes:
    return write_event({"type": kind, **more}, kind)


_WRITERS: dict[str, Callable[[Told], Iterator[bytes]]] = {
    "chat": _chat,
    "messages": _messages,
    "responses": _responses,
}
