"""This module reads routes that a user wrote in plain language: name, description and who serves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.core.errors import InputError, did_you_mean, sentence

if TYPE_CHECKING:
    from turnout.routers import PreferenceRoutesRouter

_ARROW = "->"
_FORM = "NAME: DESCRIPTION -> CANDIDATE"


def read_routes(path: Path, names: Sequence[str]) -> PreferenceRoutesRouter:
    """Return the router of a file with one route a line; empty lines and those that begin with # are none.

    Raises `InputError` for a line of another form, a candidate that is none of `names`, or no route at all.
    """
    from turnout.routers import PreferenceRoutesRouter

    lines = path.read_text(encoding="utf-8").splitlines()
    routes = tuple(
        _route(line.strip(), f"{path}, line {number}", names)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if not routes:
        raise InputError(sentence(f"{path} holds no route", allowed=f"lines such as {_FORM}", do="write one"))
    return PreferenceRoutesRouter(routes=routes)


def _route(line: str, where: str, names: Sequence[str]) -> tuple[str, str, str]:
    told, arrow, candidate = (part.strip() for part in line.rpartition(_ARROW))
    name, colon, description = (part.strip() for part in told.partition(":"))
    if not (arrow and colon and name and description and candidate):
        raise InputError(sentence(f"{where}: a route", allowed=_FORM, got=line, do="write it like this"))
    if candidate not in names:
        raise InputError(
            sentence(
                f"{where}: the candidate is not in the table",
                got=candidate,
                do=did_you_mean(candidate, names),
            )
        )
    return name, description, candidate
