"""This module is the table of paths: (method, path) -> handler, and what is said of the others.

Whoever adds an endpoint adds a line where the table is made (`turnout.gateway.app`) and writes a handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import final

from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.errors import unknown_path, wrong_method

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
"""Serves one request; an `ApiError` that it raises before its first byte becomes the answer."""

REST = "path_rest"
"""Where a handler of a path with members finds the path from the first of them on, in its scope."""


@final
class Routes:
    """The handlers of a gateway.

    A path is exact, or has members in braces. A single one at its end stands for the rest, slashes included;
    otherwise each stands for one part. GET answers HEAD too.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._below: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Add a handler; raises `ValueError` where there is one already."""
        table = self._below if "{" in path else self._exact
        methods = table.setdefault(path, {})
        if method in methods:
            raise ValueError(f"{method} {path} has a handler already")
        methods[method] = handler

    def find(self, scope: Scope) -> Handler:
        """Return the handler of a request; raises `ApiError` (404, 405)."""
        path: str = scope["path"]
        method: str = scope["method"]
        methods = self._exact.get(path)
        if methods is None:
            methods = self._find_below(path, scope)
        found = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        if found is None:
            raise wrong_method(path, method, ", ".join(sorted(methods)))
        return found

    def _find_below(self, path: str, scope: Scope) -> dict[str, Handler]:
        # The longest path wins, so that a nearer table hides a farther one.
        for template in sorted(self._below, key=len, reverse=True):
            rest = _rest_of(path, template)
            if rest is not None:
                scope[REST] = rest
                return self._below[template]
        raise unknown_path(path, self.listed())

    def operations(self) -> Iterator[tuple[str, str, Handler]]:
        """Yield method, path and handler of every entry."""
        for path, methods in [*self._exact.items(), *self._below.items()]:
            for method, handler in methods.items():
                yield method, path, handler

    def listed(self) -> list[str]:
        """Return every method and path, in the order in which they were added."""
        return [f"{method} {path}" for method, path, _ in self.operations()]


def _rest_of(path: str, template: str) -> str | None:
    """Return what a path has from the first member of the template on; None where it does not fit."""
    prefix, _, members = template.partition("{")
    rest = path.removeprefix(prefix)
    if not path.startswith(prefix) or not rest:
        return None
    if "/" not in members:
        return rest
    parts, wanted = rest.split("/"), ("{" + members).split("/")
    fits = len(parts) == len(wanted) and all(
        part == want or (part and want.startswith("{")) for part, want in zip(parts, wanted, strict=True)
    )
    return rest if fits else None
