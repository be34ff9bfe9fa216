"""A model that does what a request asks, whichever API asks: it fills schemas, calls tools, tells media.

Standard tests of other projects expect a real model behind an address. This one reads a request as such a
model would, obeys it by rule, and so makes these tests exact and free of charge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TEXT = "It is a plain answer, said to you in a caf\u00e9 \U0001f600."
THOUGHT = "Let me see what is asked."


@dataclass(frozen=True)
class Wish:
    """What a request asks, in no API's words."""

    text: str = ""
    """What the user said last."""
    tools: Mapping[str, Any] = field(default_factory=dict)
    """Schema of the arguments by name."""
    choice: str = "auto"
    """`auto`, `any`, `none`, or the name of the tool that must be called."""
    schema: Any = None
    """The form that the answer must have; True where any JSON will do."""
    has_results: bool = False
    """Whether the last message is what a tool returned."""
    stop: Sequence[str] = ()
    thinks: bool = False
    media: Sequence[str] = ()
    """Kinds of media that came along, such as `image/png`."""


@dataclass(frozen=True)
class Deed:
    """What the model says, does and thought."""

    text: str = ""
    calls: Sequence[tuple[str, Any]] = ()
    thought: str = ""
    stopped_by: str | None = None


def obey(wish: Wish) -> Deed:
    """Do what is asked."""
    thought = THOUGHT if wish.thinks else ""
    if name := _tool(wish):
        arguments = fill(wish.tools[name], "value", wish.text, wish.tools[name])
        return Deed(calls=[(name, arguments)], thought=thought)
    if wish.schema is not None:
        asked = re.findall(r"'(\w+)'", wish.text)
        loose = {"type": "object", "properties": {name: {"type": "string"} for name in asked}}
        schema = loose if wish.schema is True else wish.schema
        return Deed(text=json.dumps(fill(schema, "value", "", schema), ensure_ascii=False), thought=thought)
    text = " ".join([TEXT, *(f"You sent {kind}." for kind in wish.media)])
    for stop in wish.stop:
        if stop in text:
            return Deed(text=text.partition(stop)[0], thought=thought, stopped_by=stop)
    return Deed(text=text, thought=thought)


def _tool(wish: Wish) -> str | None:
    """Return the tool that is called: the one that must be, else one that the user speaks of."""
    if wish.choice in wish.tools:
        return wish.choice
    if not wish.tools or wish.choice == "none":
        return None
    spoken = wish.text.lower()
    meant = [name for name in wish.tools if _is_meant(name, spoken)]
    if wish.choice == "any":
        return (meant or list(wish.tools))[0]
    return None if wish.has_results or not meant else meant[0]


def _is_meant(name: str, spoken: str) -> bool:
    return any(len(word) > 3 and word in spoken for word in name.lower().split("_"))


def fill(schema: Any, name: str, text: str, root: Any) -> Any:
    """Return a value that a schema allows, with what the user's text names in it where that fits."""
    if not isinstance(schema, dict):
        return f"some {name}"
    if "$ref" in schema:
        return fill(_lookup(schema["$ref"], root), name, text, root)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            some = [part for part in schema[union] if part.get("type") != "null"]
            return fill(some[0], name, text, root) if some else None
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {key: fill(part, key, text, root) for key, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [fill(schema.get("items"), name, text, root) for _ in range(schema.get("minItems", 1))]
    return _plain(kind, name, text)


def _plain(kind: str, name: str, text: str) -> Any:
    numbers = re.findall(r"-?\d+", text) or ["3"]
    if kind == "integer":
        return int(numbers[0])
    if kind == "number":
        return float(numbers[0])
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    quoted = re.findall(r"'([^']+)'", text)
    return quoted[0] if quoted else f"some {name}"


def _lookup(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found
