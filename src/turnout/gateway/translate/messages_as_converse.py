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
_ONE = "disable_parallel_tool_use"
_MAKER = "anthropic."
"""Stands in the names of Anthropic's models, whatever region stands before it."""


def is_anthropics(model: str) -> bool:
    """Whether a model on Bedrock is one of Anthropic's."""
    return _MAKER in model


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
    more = {name: value for name, value in body.items() if name not in _DONE and name not in _INFERENCE}
    choice = body.get("tool_choice", {})
    if (tools := body.get("tools")) and not _are_left_out(choice, told["messages"]):
        told["toolConfig"] = _tool_config(tools, choice)
        more |= _one_at_a_time(choice, body["model"])
    if config := _output_config(body.get("output_config", {})):
        told["outputConfig"] = config
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


def _are_left_out(choice: dict[str, Any], turns: list[dict[str, Any]]) -> bool:
    """Whether no tool is offered, which is how Converse says `none`.

    Raises `Fault` where earlier calls stand in the conversation: Converse wants their tools then.
    """
    if choice.get("type") != "none":
        return False
    kinds = {kind for turn in turns for block in turn["content"] for kind in block}
    if kinds & {"toolUse", "toolResult"}:
        raise refuse("tool_choice", LANGUAGE, "none, in a conversation with calls of tools")
    return True


def _tool_config(tools: list[dict[str, Any]], choice: dict[str, Any]) -> dict[str, Any]:
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
    kind = choice.get("type")
    if kind == "tool":
        config["toolChoice"] = {"tool": {"name": choice["name"]}}
    elif kind == "any" or (kind and not choice.get(_ONE)):
        config["toolChoice"] = {kind: {}}
    return config


def _one_at_a_time(choice: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the fields by which a model of Anthropic's calls one tool at a time; no other model has any.

    Bedrock refuses a type here beside `toolConfig.toolChoice`, and Anthropic one without a type.
    """
    if not choice.get(_ONE):
        return {}
    if not is_anthropics(model):
        raise refuse("parallel_tool_calls", LANGUAGE, f"false, for the model {model!r}")
    is_open = choice["type"] == "auto"
    return {"tool_choice": {"type": "auto", _ONE: True} if is_open else {_ONE: True}}


def _output_config(config: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if "effort" in config:
        told["effort"] = config["effort"]
    if "format" in config:
        schema = {"name": "answer", "schema": json.dumps(config["format"]["schema"])}
        told["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    return told
