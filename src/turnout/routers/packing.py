"""This module puts the arrays of a part under a prefix, and finds them again: names in a router's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def under(prefix: str, named: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values with the prefix before each name; `below` reads them back."""
    return {f"{prefix}{name}": value for name, value in named.items()}


def below(prefix: str, named: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values whose name starts with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def numbered(parts: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    """Return the values of all parts, each under `0/`, `1/` and so on; `below("0/", ...)` reads one back."""
    return {name: value for i, part in enumerate(parts) for name, value in under(f"{i}/", part).items()}
