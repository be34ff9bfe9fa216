"""This module reads what a chat message or delta says, in every form that servers give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_THOUGHTS = ("thinking", "reasoning")


def said_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return text and thoughts; content may come in parts, with thoughts among them, as Mistral has it."""
    text, thoughts = texts_of(message.get("content"))
    return text, message.get("reasoning_content") or message.get("reasoning") or thoughts


def texts_of(content: Any) -> tuple[str, str]:
    """Return the texts and the thoughts of a content."""
    if not isinstance(content, list):
        return content or "", ""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        thoughts += [texts_of(part[kind])[0] for kind in _THOUGHTS if part.get(kind)]
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "".join(texts), "".join(thoughts)


def calls_of(message: Mapping[str, Any], answer_id: str) -> list[dict[str, Any]]:
    """Return the calls of tools; one of the form before tools (`function_call`) gets an id."""
    calls: list[dict[str, Any]] = message.get("tool_calls") or []
    old = message.get("function_call")
    if calls or not old:
        return calls
    begun = {"id": f"call_{answer_id}"} if old.get("name") else {}
    return [{"index": 0, "type": "function", "function": old, **begun}]
