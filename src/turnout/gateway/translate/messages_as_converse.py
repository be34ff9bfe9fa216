"""This module writes a request of Anthropic's Messages as one of Bedrock's Converse.

Both keep turns as blocks, so a chat request goes through Messages. What Converse has no field for goes into
`additionalModelRequestFields`, which the model's own API reads.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from turnout.gateway.translate.refusal import refuse

LANGUAGE = "Bedrock's Converse"

_INFERENCE = {
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "stop_sequences": "stopSequences",
}
_DONE = frozenset("model messages system tools tool_choice output_config stream metadata thinking".split())
_CACHE_POINT = {"cachePoint": {"type": "default"}}


def converse_request(body: dict[str, Any]) -> bytes:
    """Return the body; raises `Fault` (400) for what cannot be said."""
    told: dict[str, Any] = {
        "messages": [
            {"role": turn["role"], "content": _blocks(turn["content"])} for turn in body["messages"]
        ],
        "inferenceConfig": {theirs: body[ours] for ours, theirs in _INFERENCE.items() if ours in body},
    }
    if system := body.get("system"):
        told["system"] = [{"text": system}] if isinstance(system, str) else _blocks(system)
    if tools := body.get("tools"):
        told["toolConfig"] = _tool_config(tools, body.get("tool_choice"))
    if config := _output_config(body.get("output_config", {})):
        told["outputConfig"] = config
    more = {name: value for name, value in body.items() if name not in _DONE and name not in _INFERENCE}
    if more:
        told["additionalModelRequestFields"] = more
    return msgspec.json.encode(told)


def _blocks(blocks: list[Any]) -> list[dict[str, Any]]:
    found = []
    for raw in blocks:
        block = msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else raw
        found.append(_block(block))
        if "cache_control" in block:
            found.append(_CACHE_POINT)
    return found


def _block(block: dict[str, Any]) -> dict[str, Any]:
    kind = block["type"]
    if kind == "text":
        return {"text": block["text"]}
    if kind == "tool_use":
        return {"toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}}
    if kind == "tool_result":
        content = block.get("content", "")
        inner = [{"text": content}] if isinstance(content, str) else _blocks(content)
        return {"toolResult": {"toolUseId": block["tool_use_id"], "content": inner}}
    if kind == "thinking":
        text = {"text": block["thinking"], "signature": block.get("signature", "")}
        return {"reasoningContent": {"reasoningText": text}}
    if kind == "redacted_thinking":
        return {"reasoningContent": {"redactedContent": block["data"]}}
    if kind in ("image", "document") and block["source"]["type"] == "base64":
        return _media(kind, block)
    raise refuse("messages[].content[]", LANGUAGE, kind)


def _media(kind: str, block: dict[str, Any]) -> dict[str, Any]:
    source = block["source"]
    told: dict[str, Any] = {
        "format": source["media_type"].rpartition("/")[2],
        "source": {"bytes": source["data"]},
    }
    if kind == "document":
        # A document must have a name, of letters, digits and few signs.
        name = "".join(sign if sign.isalnum() else "-" for sign in block.get("title", "document"))
        told["name"] = name or "document"
    return {kind: told}


def _tool_config(tools: list[dict[str, Any]], choice: dict[str, Any] | None) -> dict[str, Any]:
    listed: list[dict[str, Any]] = []
    for tool in tools:
        spec = {"name": tool["name"], "inputSchema": {"json": tool["input_schema"]}}
        if "description" in tool:
            spec["description"] = tool["description"]
        if "strict" in tool:
            spec["strict"] = tool["strict"]
        listed.append({"toolSpec": spec})
        if "cache_control" in tool:
            listed.append(_CACHE_POINT)
    config: dict[str, Any] = {"tools": listed}
    if choice is None:
        return config
    if choice.get("disable_parallel_tool_use") or choice["type"] == "none":
        raise refuse("parallel_tool_calls or tool_choice", LANGUAGE, choice)
    config["toolChoice"] = (
        {"tool": {"name": choice["name"]}} if choice["type"] == "tool" else {choice["type"]: {}}
    )
    return config


def _output_config(config: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if "effort" in config:
        told["effort"] = config["effort"]
    if "format" in config:
        schema = {"name": "answer", "schema": json.dumps(config["format"]["schema"])}
        told["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    return told
