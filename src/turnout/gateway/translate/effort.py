"""This module writes an effort into a request of Anthropic's Messages, in one of three ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_BUDGET_SHARE = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.9, "max": 0.95}
_MIN_BUDGET = 1024


def write_effort(effort: str, how: str, body: dict[str, Any]) -> None:
    """Set what an effort means in a body that has its `max_tokens`; `none` switches thinking off."""
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
        return
    _WRITERS[how](effort, body)


def _as_effort(effort: str, body: dict[str, Any]) -> None:
    config = body.setdefault("output_config", {})
    config["effort"] = "low" if effort == "minimal" else effort


def _as_adaptive(effort: str, body: dict[str, Any]) -> None:
    _as_effort(effort, body)
    body["thinking"] = {"type": "adaptive"}


def _as_budget(effort: str, body: dict[str, Any]) -> None:
    """Write a share of the token limit, which must hold the answer too."""
    tokens = max(_MIN_BUDGET, int(body["max_tokens"] * _BUDGET_SHARE.get(effort, 0.5)))
    if tokens < body["max_tokens"]:
        body["thinking"] = {"type": "enabled", "budget_tokens": tokens}


_WRITERS: Mapping[str, Callable[[str, dict[str, Any]], None]] = {
    "adaptive": _as_adaptive,
    "effort": _as_effort,
    "budget": _as_budget,
}
