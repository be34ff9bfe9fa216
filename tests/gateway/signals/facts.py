"""Facts of a request that a test writes down."""

from __future__ import annotations

import json
from typing import Any

from turnout.gateway.signals.base import Facts
from turnout.gateway.wire import parse_chat


def facts_of(
    *texts: str, headers: dict[str, str] | None = None, tenant: str | None = None, **fields: Any
) -> Facts:
    """Return facts of a conversation: user and assistant in turns, the user last."""
    roles = ["user", "assistant"] if len(texts) % 2 else ["assistant", "user"]
    turns = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    body = {"model": "turnout/auto", "messages": turns, **fields}
    sent = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Facts(request=parse_chat(json.dumps(body).encode()), headers=sent, tenant=tenant)
