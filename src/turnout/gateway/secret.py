"""This module reads secrets: the settings say where one is, never what it is."""

from __future__ import annotations

import os
from pathlib import Path

from turnout.core.errors import ConfigError, sentence

FORMS = "env:NAME, an environment variable, or file:PATH, a file that holds nothing else"


def read_secret(reference: str, where: str) -> str:
    """Return the secret that a reference names; raises `ConfigError`, which shows no secret.

    `where` is the key of the setting. Only what is no reference at all is worth showing, and even that may be
    a secret that somebody pasted: it is not shown either.
    """
    check_reference(reference, where)
    kind, _, name = reference.partition(":")
    if kind == "env":
        found = os.environ.get(name, "")
        do = f"set the environment variable {name!r}"
    else:
        found, do = _read(name, where), f"write the secret into {name!r}"
    if not found.strip():
        raise ConfigError(sentence(f"the secret of {where!r} is empty", allowed="a secret", do=do))
    return found.strip()


def check_reference(reference: str, where: str) -> None:
    """Raise `ConfigError` for what names no place."""
    kind, _, name = reference.partition(":")
    if kind not in ("env", "file") or not name:
        what = f"the setting {where!r} is no reference to a secret"
        raise ConfigError(sentence(what, allowed=FORMS, do="name its place"))


def is_reference(value: str) -> bool:
    """Whether a value that may also be written out refers to a secret."""
    return value.startswith(("env:", "file:"))


def _read(name: str, where: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise ConfigError(
            sentence(
                f"the secret of {where!r} cannot be read from {name!r}",
                allowed="a file that one may read",
                got=got,
                do="check the path and its owner",
            )
        ) from error


def resolved(reference: str, folder: Path) -> str:
    """Return a reference whose path starts at a folder; anything else as it is."""
    kind, _, name = reference.partition(":")
    return f"file:{folder / name}" if kind == "file" and name else reference
