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
"""Where a handler of a path that ends in `{id}` finds the rest of the path in its scope."""


@final
class Routes:
    """The handlers of a gateway.

    A path is exact, or ends in `/{id}`, which stands for the rest, slashes included. GET answers HEAD too.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._below: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Add a handler; raises `ValueError` where there is one already."""
        table, key = (self._exact, path)
        if path.endswith("/{id}"):
            table, key = self._below, path.removesuffix("{id}")
        methods = table.setdefault(key, {})
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
        for prefix in sorted(self._below, key=len, reverse=True):
            if path.startswith(prefix) and len(path) > len(prefix):
                scope[REST] = path.removeprefix(prefix)
                return self._below[prefix]
        raise unknown_path(path, self.listed())

    def operations(self) -> Iterator[tuple[str, str, Handler]]:
        """Yield method, path and handler of every entry."""
        for path, methods in [*self._exact.items(), *((p + "{id}", m) for p, m in self._below.items())]:
            for method, handler in methods.items():
                yield method, path, handler

    def listed(self) -> list[str]:
        """Return every method and path, in the order in which they were added."""
        exact = [f"{method} {path}" for path, methods in self._exact.items() for method in methods]
        below = [f"{method} {path}{{id}}" for path, methods in self._below.items() for method in methods]
        return [*exact, *below]
