"""This module fails on leftovers that no linter knows.

- a path of somebody's machine, in any file under version control;
- a to-do that names no event which ends it: write `TODO(#12)` or `TODO(python 3.12)`;
- a file of source code with a character outside ASCII;
- library code that prints (the `cli` may).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT_SUFFIXES = frozenset(".py .md .toml .txt .cfg .ini .json .yaml .yml .html .css .sh .csv".split()) | {""}
# Recorded samples of other projects keep whatever stands in them.
RECORDED = ("tests/datasets/fixtures/", "src/turnout/datasets/examples/")

MACHINE_PATH = re.compile(r"(?<![\w.:/}$-])/(?:work|root|home|Users|mnt|opt)/\w|\.\./shared\b")
UNANCHORED = re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K])\b(?!\([^)\s][^)]*\))")


def tracked(root: Path) -> list[Path]:
    """Return the files under version control, and the new ones that are not ignored."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted(path for name in set(names) - {""} if (path := root / name).is_file())


def text_complaints(name: str, text: str) -> Iterator[str]:
    """Yield the leftovers that any text file may hold."""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := MACHINE_PATH.search(line):
            yield f"{name}:{number}: a path of one machine ({found.group()!r})"
        if UNANCHORED.search(line):
            yield f"{name}:{number}: a to-do without the event that ends it"
        if name.endswith(".py") and not line.isascii():
            odd = next(c for c in line if not c.isascii())
            yield f"{name}:{number}: a character outside ASCII (U+{ord(odd):04X}); write an escape or a word"


def print_complaints(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield every call of `print` in library code."""
    if not name.startswith("src/turnout/") or name.startswith(("src/turnout/cli/", "src/turnout/__main__")):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{name}:{node.lineno}: library code prints; return a value or use logging"


def complaints(path: Path, root: Path) -> list[str]:
    """Return every complaint about one file."""
    name = path.relative_to(root).as_posix()
    if path.suffix not in TEXT_SUFFIXES or name == "LICENSE" or name.startswith(RECORDED):
        return []
    text = path.read_text(encoding="utf-8")
    found = list(text_complaints(name, text))
    if path.suffix == ".py":
        found += print_complaints(name, ast.parse(text))
    return found


def main() -> int:
    """Print every complaint; return 1 if there is one."""
    files = tracked(ROOT)
    failures = [complaint for path in files for complaint in complaints(path, ROOT)]
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    print(f"words: {len(files)} files, {len(failures)} leftovers")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
