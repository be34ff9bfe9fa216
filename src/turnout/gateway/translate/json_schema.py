"""This module fits a JSON schema into what Anthropic's structured output takes.

Objects are closed, and what a schema says of numbers, lengths and patterns is told to the model in the
description, as Anthropic's own SDK does it. A schema of which that would change the meaning (free keys, a
reference to itself, something that is no plain type) does not fit.
"""

from __future__ import annotations

from typing import Any

_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_OPEN = ("patternProperties", "propertyNames", "unevaluatedProperties")
_UNIONS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_WORDS = ("description", "title")
_SILENT = ("$schema", "$id")


class _Unfit(Exception):
    pass


def fitted(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema as structured output takes it, or None where it does not fit."""
    try:
        return _fitted(schema, _definitions(schema), ())
    except (_Unfit, RecursionError):
        return None


def _definitions(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        f"#/{place}/{name}": inner
        for place in ("$defs", "definitions")
        if isinstance(schema.get(place), dict)
        for name, inner in schema[place].items()
    }


def _fitted(schema: Any, known: dict[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    """Return one schema; `seen` are the references on the way to it."""
    if not isinstance(schema, dict):
        raise _Unfit
    rest = {name: value for name, value in schema.items() if name not in _SILENT}
    told: dict[str, Any] = {}
    for place in ("$defs", "definitions"):
        if isinstance(defined := rest.pop(place, None), dict):
            told[place] = {name: _fitted(inner, known, ()) for name, inner in defined.items()}
    if isinstance(target := rest.get("$ref"), str):
        if target not in known or target in seen:
            raise _Unfit
        _fitted(known[target], known, (*seen, target))
        return {**told, "$ref": target}
    told |= _kind(rest, known, seen)
    for name in _WORDS:
        if rest.get(name) is not None:
            told[name] = rest.pop(name)
    if rest:
        # The model is told what the grammar cannot hold it to.
        wish = "{" + ", ".join(f"{name}: {value}" for name, value in rest.items()) + "}"
        told["description"] = f"{told['description']}\n\n{wish}" if "description" in told else wish
    return told


def _kind(rest: dict[str, Any], known: dict[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    """Take what says which values are meant out of `rest`, and return it as it is told."""
    kind = rest.pop("type", None)
    literals: dict[str, Any] = {name: rest.pop(name) for name in ("enum", "const") if name in rest}
    if literals:
        if any(
            isinstance(value, dict | list) for value in (*literals.get("enum", ()), literals.get("const"))
        ):
            raise _Unfit
        return literals
    for name, theirs in _UNIONS.items():
        if isinstance(variants := rest.pop(name, None), list):
            return {theirs: [_fitted(variant, known, seen) for variant in variants]}
    if isinstance(kind, list):
        inner = {name: rest.pop(name) for name in tuple(rest) if name not in _WORDS}
        each = ({"type": one} if one == "null" else {**inner, "type": one} for one in kind)
        return {"anyOf": [_fitted(one, known, seen) for one in each]}
    if kind not in _TYPES:
        raise _Unfit
    return {"type": kind} | _inside(kind, rest, known, seen)


def _inside(kind: str, rest: dict[str, Any], known: dict[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if kind == "object":
        if rest.pop("additionalProperties", False) is not False or any(name in rest for name in _OPEN):
            raise _Unfit
        inner = rest.pop("properties", {})
        if not inner or not isinstance(inner, dict):
            raise _Unfit  # closed, it would be the empty object
        told["properties"] = {name: _fitted(value, known, seen) for name, value in inner.items()}
        told["additionalProperties"] = False
        if "required" in rest:
            told["required"] = rest.pop("required")
    elif kind == "array":
        if "items" in rest:
            told["items"] = _fitted(rest.pop("items"), known, seen)
        if rest.get("minItems") in (0, 1):
            told["minItems"] = rest.pop("minItems")
    elif kind == "string" and rest.get("format") in _FORMATS:
        told["format"] = rest.pop("format")
    return told
