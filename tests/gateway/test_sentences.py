"""Every error that the gateway builds says what is allowed and what to do; the source itself is read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import turnout.gateway

ROOM = Path(turnout.gateway.__file__).parent
BUILDERS = ("sentence", "_bad")
NOTICES = ("was not closed by its last gateway",)
"""Sentences that tell and do not refuse."""


def built() -> Iterator[tuple[str, set[str | None]]]:
    """Yield each call of a builder as it is written, and the names of its arguments."""
    for path in sorted(ROOM.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILDERS:
                yield ast.unparse(node), {keyword.arg for keyword in node.keywords}


def test_every_error_says_what_is_allowed_and_what_to_do() -> None:
    calls = list(built())
    assert len(calls) > 40
    short = [text for text, names in calls if not {"allowed", "do"} <= names]
    assert [text for text in short if not any(notice in text for notice in NOTICES)] == []
