"""This module talks to the person at the terminal: progress on stderr, results on stdout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from turnout.core.progress import Progress, silent


def show(text: str = "") -> None:
    """Print a line of the result."""
    print(text, flush=True)


def tell(text: str) -> None:
    """Print a line about the work to stderr, where it does not mix with results."""
    print(text, file=sys.stderr, flush=True)


def show_json(value: object) -> None:
    """Print one JSON document; what is not finite becomes null, because JSON has no word for it."""
    print(json.dumps(finite(value), indent=2, ensure_ascii=False), flush=True)


def finite(value: Any) -> Any:
    """Return `value` with every number that is not finite replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Yield a progress function that draws a bar on stderr, when stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description:<24}"), BarColumn(bar_width=30), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1)

        def update(phrase: str, done: int, total: int) -> None:
            bar.update(task, description=phrase, completed=done, total=total)

        yield update
