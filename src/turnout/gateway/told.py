"""This module reads what a client tells the router beside the text: the request's task, and tags.

A deployment that was fitted on told tasks, or on tags that hold numbers, is asked with them as it was taught.
They stand in headers, or with the dial in `metadata.turnout`, and go no further than the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError

TASK = b"x-turnout-task"
TAG = b"x-turnout-tag"
HEADERS = (TASK, TAG)
MEMBERS = ("task", "tags")
"""Where they stand in `metadata.turnout`."""


@final
class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What was told."""

    task: str | None = None
    tags: Mapping[str, str] = {}

    def over(self, other: Told) -> Told:
        """Return both together; this one wins where they differ."""
        if not other.task and not other.tags:
            return self
        return Told(task=other.task if self.task is None else self.task, tags={**other.tags, **self.tags})


NOTHING = Told()


def told_by(headers: Sequence[tuple[bytes, bytes]]) -> Told:
    """Return what headers tell; raises `ApiError` (400) that names the one at fault."""
    given = [(name, value) for name, value in headers if name in HEADERS]
    if not given:
        return NOTHING
    task: str | None = None
    tags: dict[str, str] = {}
    for name, raw in given:
        value = raw.decode("utf-8", "replace").strip()
        if name == TASK:
            if not value or task is not None:
                raise _bad_header(name, "one task, once", value, "send for example maths")
            task = value
            continue
        key, mark, text = value.partition("=")
        if not mark or not key.strip() or key.strip() in tags:
            raise _bad_header(name, "NAME=VALUE, each name once", value, "send for example image=0.1 0.7")
        tags[key.strip()] = text
    return Told(task=task, tags=tags)


def told_in(value: Mapping[str, Any], where: str) -> Told:
    """Return what an object tells; raises `ApiError` (400)."""
    task, tags = (value.get(name) for name in MEMBERS)
    if task is not None and (not isinstance(task, str) or not task.strip()):
        raise _bad_member(f"{where}.task", "a text", task)
    tags = {} if tags is None else tags
    if not isinstance(tags, dict) or not all(isinstance(one, str) for one in tags.values()) or "" in tags:
        raise _bad_member(f"{where}.tags", "an object of texts", tags)
    return Told(task=task, tags=tags) if task or tags else NOTHING


def _bad_header(name: bytes, allowed: str, got: str, do: str) -> ApiError:
    header = name.decode()
    message = sentence(f"the header {header!r} is wrong", allowed=allowed, got=got, do=do)
    return ApiError(400, message, code="bad_header", param=header)


def _bad_member(where: str, allowed: str, got: object) -> ApiError:
    do = 'send for example {"task": "maths", "tags": {"image": "0.1 0.7"}}'
    message = sentence(f"the field {where!r} is wrong", allowed=allowed, got=got, do=do)
    return ApiError(400, message, code="bad_metadata", param=where)
