"""This module decides a boolean condition over signals, reading no more of them than it must."""

from __future__ import annotations

from typing import Any

from turnout.gateway.signals.board import Reader


async def holds(condition: Any, reader: Reader) -> bool:
    """Return whether a checked condition holds; parts are read in their order until one settles it."""
    if condition is True:
        return True
    if isinstance(condition, str):
        return await reader.holds(condition)
    if "not" in condition:
        return not await holds(condition["not"], reader)
    is_any = "any" in condition
    for part in condition["any" if is_any else "all"]:
        if await holds(part, reader) is is_any:
            return is_any
    return not is_any
