"""This module defines every error that turnout raises on purpose, in one tree.

TurnoutError
+-- InputError (ValueError)            an argument or a file has a value that is not allowed
|   +-- TableError                     an outcome table breaks its own rules
|   +-- ShapeError                     two arrays do not fit; printed as letters and numbers
|   +-- ConfigError                    a configuration file is wrong
+-- UnknownNameError (LookupError)     a name is not in a registry, a table or a pool
+-- NotFittedError (RuntimeError)      an answer was asked before anything was learned
+-- LeakageError (ValueError)          the same text stands on both sides of a split
+-- ArtifactError (ValueError)         a saved artifact is damaged or not one
|   +-- ArtifactVersionError           it was written by another format version
+-- MissingExtraError (ImportError)    an optional package is not installed
+-- ProviderError (RuntimeError)       an upstream did not answer as it should

Every message is one sentence built by `sentence`: what is wrong and where, what is allowed, what was
got, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TurnoutError(Exception):
    """The root of the tree: catch it to catch everything turnout raises on purpose."""


class InputError(TurnoutError, ValueError):
    """An argument or a file has a value that is not allowed."""


class TableError(InputError):
    """An outcome table breaks its own rules (columns, ranges, duplicates)."""


class ShapeError(InputError):
    """Two arrays do not fit; the message prints the axes as letters and numbers."""


class ConfigError(InputError):
    """A configuration file has an unknown key, a wrong type or a contradiction."""


class UnknownNameError(TurnoutError, LookupError):
    """A name is not in a registry, a table or a pool."""


class NotFittedError(TurnoutError, RuntimeError):
    """`estimate`, `embed` or `save` was called before `fit`."""


class LeakageError(TurnoutError, ValueError):
    """The same or nearly the same text stands on both sides of a split."""


class ArtifactError(TurnoutError, ValueError):
    """A saved artifact is damaged, incomplete, or not an artifact."""


class ArtifactVersionError(ArtifactError):
    """An artifact was written by a format version that this one does not read."""


class MissingExtraError(TurnoutError, ImportError):
    """An optional package is needed and is not installed."""


class ProviderError(TurnoutError, RuntimeError):
    """An upstream is down, slow, or answered something that is not an answer."""


ABSENT: object = object()
"""Stands for "nothing was got", since None is a value that one may have got."""


def sentence(what: str, *, allowed: object = None, got: object = ABSENT, do: str | None = None) -> str:
    """Build the one sentence every error carries.

    `what` names the thing and where it stands; `allowed` is what would have been right; `got` is shown
    with `repr` (cut at 120 characters so that no prompt is spilled into a log); `do` is the next step.
    """
    parts = [what]
    if allowed is not None:
        parts.append(f"allowed: {allowed}")
    if got is not ABSENT:
        shown = repr(got)
        parts.append(f"got: {shown if len(shown) <= 120 else shown[:117] + '...'}")
    if do is not None:
        parts.append(do)
    return "; ".join(parts)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the clause that lists close names, or all of them when there are few."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    if len(names) <= 12:
        return f"known: {', '.join(names) or 'none'}"
    return f"known: {', '.join(names[:12])} and {len(names) - 12} more"


def missing_extra(package: str, *, feature: str, extra: str) -> MissingExtraError:
    """Build the error for an optional dependency that is not installed."""
    return MissingExtraError(
        sentence(
            f"{feature} needs the package {package!r}, which is not installed",
            do=f"install it with: pip install 'turnout[{extra}]'",
        )
    )
