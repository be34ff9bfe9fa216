"""This module changes single values of a settings file and leaves everything else as it was written.

Comments, order and spacing stay. What cannot be changed without a doubt is refused: the new text is parsed,
and must say what the old one said but for the changes.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from turnout.core.errors import ConfigError, sentence

Key = tuple[str, ...]
"""A key with its tables, such as `("rollout", "share")`."""

_TABLE = re.compile(r"\s*\[\s*(?P<name>[A-Za-z0-9_.-]+)\s*\]\s*(?:#.*)?$")
_ANY_TABLE = re.compile(r"\s*\[")
_PAIR = re.compile(
    r"(?P<head>\s*(?P<key>[A-Za-z0-9_-]+)\s*=\s*)"
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s#\"'\[{][^\s#]*)(?P<tail>\s*(?:#.*)?)$"
)


def edited(text: str, changes: Mapping[Key, str | float]) -> str:
    """Return the text with other values of keys that it has; raises `ConfigError` where that is not sure."""
    table: Key = ()
    lines, left = [], dict(changes)
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\r\n")
        if _ANY_TABLE.match(body):
            found = _TABLE.match(body)
            table = ("",) if found is None else tuple(found["name"].split("."))
        pair = _PAIR.match(body)
        key = (*table, pair["key"]) if pair is not None else None
        if pair is not None and key in left:
            value = _written(left.pop(key))
            body_after = pair["head"] + value + pair["tail"]
            line = body_after + line[len(body) :]
        lines.append(line)
    after = "".join(lines)
    if left or not _says(text, after, changes):
        wanted = "; ".join(f"{'.'.join(key)} = {_written(value)}" for key, value in changes.items())
        raise ConfigError(
            sentence(
                "the settings file is not written so that it can be changed by a program",
                allowed="each of the keys on a line of its own, below its table",
                do=f"change it by hand ({wanted}) and reload",
            )
        )
    return after


def replace_file(path: Path, text: str) -> None:
    """Put a text in the place of a file: a reader sees the old one or the new one, and a crash leaves one."""
    real = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(real.stat().st_mode & 0o7777)
        fresh.replace(real)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _written(value: str | float) -> str:
    return msgspec.json.encode(value).decode() if isinstance(value, str) else repr(float(value))


def _says(before: str, after: str, changes: Mapping[Key, str | float]) -> bool:
    try:
        wanted, found = tomllib.loads(before), tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        return False
    for key, value in changes.items():
        place: dict[str, Any] = wanted
        for name in key[:-1]:
            place = place.get(name, {})
        place[key[-1]] = value
    return wanted == found
