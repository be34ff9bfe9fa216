"""This module reports the size of every file and function, and fails on the ones that are too large.

A file counts all its lines. A function counts its lines without its own docstring, since a long
explanation is not a long function. `EXCUSED` lists what may be larger, each with its reason; an excuse
that is no longer needed fails too, so the table cannot rot.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "scripts", "benchmarks")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
NUM_SHOWN = 5

# "path" or "path:function" -> why it may be larger than the limit.
EXCUSED: dict[str, str] = {}


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of lines (docstring excluded) of every function in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_documented = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if is_documented else 0
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def measure(root: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return the lines of every file and of every function below `root`, by "path" and "path:function"."""
    files: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for path in sorted(p for folder in FOLDERS for p in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        files[name] = len(text.splitlines())
        for function, num_lines in functions(ast.parse(text)):
            key = f"{name}:{function}"
            lengths[key] = max(num_lines, lengths.get(key, 0))
    return files, lengths


def summary(title: str, sizes: dict[str, int], limit: int) -> list[str]:
    """Return the lines of the report for one kind of thing: the quantiles, then the largest."""
    ordered = sorted(sizes.values())
    p90 = ordered[int(0.9 * (len(ordered) - 1))]
    head = f"{title}: {len(ordered)}, median {statistics.median(ordered):.0f}, p90 {p90}, limit {limit} lines"
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:NUM_SHOWN]
    return [head, *(f"  {sizes[name]:4d}  {name}" for name in largest)]


def complaints(sizes: dict[str, int], limit: int) -> list[str]:
    """Return one sentence for everything over the limit that has no excuse."""
    return [
        f"{name} has {size} lines; allowed: {limit}; split it, or excuse it with a reason in scripts/sizes.py"
        for name, size in sorted(sizes.items())
        if size > limit and name not in EXCUSED
    ]


def stale_excuses(files: dict[str, int], lengths: dict[str, int]) -> list[str]:
    """Return one sentence for every excuse that nothing needs."""
    needed = {name for name, size in files.items() if size > MAX_FILE_LINES}
    needed |= {name for name, size in lengths.items() if size > MAX_FUNCTION_LINES}
    return [
        f"EXCUSED in scripts/sizes.py: {name!r} needs no excuse; remove it"
        for name in EXCUSED.keys() - needed
    ]


def main() -> int:
    """Print the report; return 1 if anything is too large."""
    files, lengths = measure(ROOT)
    print(
        "\n".join(summary("files", files, MAX_FILE_LINES) + summary("functions", lengths, MAX_FUNCTION_LINES))
    )
    failures = complaints(files, MAX_FILE_LINES) + complaints(lengths, MAX_FUNCTION_LINES)
    failures += stale_excuses(files, lengths)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
