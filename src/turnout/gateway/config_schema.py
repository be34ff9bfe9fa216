"""This module writes the JSON schema of the settings, for editors and for whoever checks a file elsewhere."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec

from turnout.gateway.config import Config
from turnout.gateway.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema of the whole file, with every setting's sentence as its description."""
    schema = msgspec.json.schema(Config)
    for kind in _kinds(Settings):
        section = schema["$defs"].get(kind.__name__)
        if section is None:
            continue
        for above in kind.__mro__:
            if issubclass(above, Settings):
                for name, text in _sentences(above).items():
                    section["properties"][name].setdefault("description", text)
    return {"$schema": DIALECT, "title": "Settings of the turnout gateway", **schema}


def _kinds(kind: type[Settings]) -> Iterator[type[Settings]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


def _sentences(kind: type[Settings]) -> dict[str, str]:
    """Return the string below each field, which msgspec does not see."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise RuntimeError("the source of a class is a class")
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found
