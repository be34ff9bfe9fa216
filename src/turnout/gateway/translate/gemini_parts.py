"""This module writes the turns of a chat as contents of Gemini's."""

from __future__ import annotations

from typing import Any

from turnout.gateway.translate.chat_messages import ChatMessage, ChatPart, ToolCall, read_data_url
from turnout.gateway.translate.messages_blocks import tool_input
from turnout.gateway.translate.refusal import NOTHING, refuse

Part = dict[str, Any]


def system_parts(said: list[ChatMessage]) -> list[Part]:
    """Return the system prompt, wherever its messages stood."""
    own = [message for message in said if message.role in ("system", "developer")]
    return [{"text": part.text} for message in own for part in message.parts if part.text]


def contents(said: list[ChatMessage], language: str) -> list[dict[str, Any]]:
    """Return the messages but the system's; neighbours of one role become one content.

    A result of a tool is told by the name of its function, which the call before it has. Raises `Fault` for
    a request that says nothing but instructions.
    """
    names = {
        call.id: call.function.name for message in said for call in message.tool_calls or [] if call.function
    }
    found: list[dict[str, Any]] = []
    for message in said:
        if message.role in ("system", "developer"):
            continue
        role, parts = _parts(message, names, language)
        if not parts:
            continue
        if found and found[-1]["role"] == role:
            found[-1]["parts"].extend(parts)
        else:
            found.append({"role": role, "parts": parts})
    if not found:
        raise refuse("messages", language, NOTHING)
    return found


def _parts(message: ChatMessage, names: dict[str, str], language: str) -> tuple[str, list[Part]]:
    told = [_part(part, language) for part in message.parts if part.text != ""]
    if message.role == "user":
        return "user", told
    if message.role == "tool":
        return "user", [_result(message, names)]
    if message.role == "assistant":
        return "model", told + [_call(call, language) for call in message.tool_calls or []]
    raise refuse("messages[].role", language, message.role)


def _call(call: ToolCall, language: str) -> Part:
    if call.function is None:
        raise refuse("messages[].tool_calls[].type", language, call.type)
    given = tool_input(call.function.arguments)
    told: Part = {"functionCall": {"id": call.id, "name": call.function.name, "args": given}}
    # Gemini goes on from its own thoughts only where their signature comes back with the call.
    if call.signature is not None:
        told["thoughtSignature"] = call.signature
    return told


def _result(message: ChatMessage, names: dict[str, str]) -> Part:
    call_id = message.tool_call_id or ""
    text = "".join(part.text or "" for part in message.parts)
    response = {"id": call_id, "name": names.get(call_id, call_id), "response": {"output": text}}
    return {"functionResponse": response}


def _part(part: ChatPart, language: str) -> Part:
    if part.text is not None or part.type == "refusal":
        return {"text": part.text or part.refusal or ""}
    if part.image_url is not None:
        return _media(part.image_url.url, "image/*")
    if part.input_audio is not None:
        kind = f"audio/{part.input_audio.format}"
        return {"inlineData": {"mimeType": kind, "data": part.input_audio.data}}
    if part.file is not None and part.file.file_data is not None:
        return _media(part.file.file_data, "application/pdf")
    raise refuse("messages[].content[].type", language, part.type)


def _media(url: str, kind: str) -> Part:
    found = read_data_url(url)
    if found is None:
        return {"fileData": {"mimeType": kind, "fileUri": url}}
    return {"inlineData": {"mimeType": found[0], "data": found[1]}}
