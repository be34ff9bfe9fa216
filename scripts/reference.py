"""This module writes docs/reference/<room>.md from the tables of the rooms and their docstrings.

    python -m scripts.reference           write the pages
    python -m scripts.reference --check   write nothing; fail if a page is not up to date

The source is read, not imported, so that a class whose extra is not installed has its page too.
"""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

from turnout.core.registry import find_registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
ROOMS = ("features", "policies", "dispatch", "datasets", "nn", "routers", "online", "sequential")
NOTE = "<!-- Written by scripts/reference.py from the docstrings: change those, then run `make docs`. -->"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a room's table."""

    room: str
    name: str
    module: str
    class_name: str

    @property
    def source(self) -> Path:
        """The file that holds the class."""
        return ROOT / "src" / Path(*self.module.split(".")).with_suffix(".py")

    @property
    def test(self) -> Path:
        """The file that tests the class: the same place below tests/."""
        inside = self.module.split(".")[1:]
        return ROOT / "tests" / Path(*inside[:-1]) / f"test_{inside[-1]}.py"


def entries(room: str) -> list[Entry]:
    """Return what this project itself puts into a room's table; entry points of others are left out."""
    registry = find_registry(room)
    split = ((name, *registry.path(name).split(":")) for name in registry)
    return [
        Entry(room=room, name=name, module=module, class_name=class_name)
        for name, module, class_name in split
        if module.startswith("turnout.")
    ]


def find_class(entry: Entry) -> ast.ClassDef:
    """Return the class as it stands in its source; raises `LookupError` if it is not there."""
    text = entry.source.read_text(encoding="utf-8") if entry.source.is_file() else ""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == entry.class_name:
            return node
    raise LookupError(f"the table of {entry.room!r} names {entry.class_name!r}, which {entry.source} lacks")


def signature(node: ast.ClassDef) -> str:
    """Return the call that builds the class, one argument a line."""
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None:
        fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
        arguments = [f for f in fields if "ClassVar" not in f]
    else:
        keywords = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        arguments = [ast.unparse(a) for a in init.args.args[1:]]
        arguments += ["*"] if init.args.kwonlyargs else []
        arguments += [ast.unparse(a) + (f" = {ast.unparse(d)}" if d else "") for a, d in keywords]
    inside = "".join(f"    {argument},\n" for argument in arguments)
    return f"{node.name}(\n{inside})" if inside else f"{node.name}()"


def section(entry: Entry) -> str:
    """Return the part of the page that describes one entry."""
    node = find_class(entry)
    summary, _, rest = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n\n")
    parts = [f"## {entry.name}", summary, f"```text\n{entry.module}\n\n{signature(node)}\n```"]
    if rest:
        parts.append(f"```text\n{rest.strip()}\n```")
    return "\n\n".join(parts)


def page(room: str) -> str:
    """Return the whole page of a room."""
    source = (ROOT / "src" / "turnout" / room / "__init__.py").read_text(encoding="utf-8")
    words = inspect.cleandoc(ast.get_docstring(ast.parse(source)) or "")
    found = entries(room)
    body = [section(entry) for entry in found] or ["The table of this room is empty."]
    return "\n\n".join([f"# {room}", NOTE, words, *body]) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check every page; return 1 if a check fails."""
    is_check = "--check" in arguments
    stale = []
    for room in ROOMS:
        path, text = PAGES / f"{room}.md", page(room)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.relative_to(ROOT).as_posix())
        if not is_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print(f"reference: {len(ROOMS)} pages, {len(stale)} {'out of date' if is_check else 'written'}", *stale)
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
