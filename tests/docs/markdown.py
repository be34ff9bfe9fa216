"""This module reads the little of Markdown that the tests of the docs need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?)(?: +#+)?$")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)(?: +\"[^\"]*\")?\)")
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block."""

    path: Path
    line: int
    """Number of the first line of the code, from 1."""
    language: str
    options: tuple[str, ...]
    """What follows the language: `requires=torch` skips the block where torch is not installed."""
    code: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """One Markdown file, split into its fenced blocks and the prose around them."""

    path: Path
    blocks: tuple[Block, ...]
    prose: tuple[tuple[int, str], ...]
    """(line number, text) of every line outside a fenced block."""


def pages() -> list[Path]:
    """Return every page that a reader is shown: those at the root, and all of docs/."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def read(path: Path) -> Page:
    """Split a file; raises `ValueError` for a block that is not closed."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    opening: re.Match[str] | None = None
    start = 0
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opening is None and fence is None:
            prose.append((number, line))
        elif opening is None:
            opening, start, lines = fence, number + 1, []
        elif fence and fence["fence"].startswith(opening["fence"]) and not fence["info"].strip():
            blocks.append(_block(path, start, opening, lines))
            opening = None
        else:
            lines.append(line.removeprefix(opening["indent"]))
    if opening is not None:
        raise ValueError(f"{path}:{start - 1}: the block is never closed")
    return Page(path=path, blocks=tuple(blocks), prose=tuple(prose))


def _block(path: Path, start: int, opening: re.Match[str], lines: list[str]) -> Block:
    language, *options = opening["info"].split() or [""]
    code = "\n".join(lines) + "\n"
    return Block(path=path, line=start, language=language, options=tuple(options), code=code)


def headings(path: Path) -> list[str]:
    """Return the text of every heading, without backticks."""
    found = (_HEADING.match(line) for _, line in read(path).prose)
    return [match["text"].replace("`", "") for match in found if match]


def anchors(path: Path) -> set[str]:
    """Return the fragments that a link to this page may name, as the usual hosts build them."""
    seen: dict[str, int] = {}
    found = set()
    for heading in headings(path):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


def links(path: Path) -> list[tuple[int, str]]:
    """Return (line number, target) of every link outside code."""
    prose = ((number, _CODE_SPAN.sub("", line)) for number, line in read(path).prose)
    return [(number, match["target"]) for number, line in prose for match in _LINK.finditer(line)]


def without_heading(path: Path, names: Iterable[str]) -> list[str]:
    """Return the names that no heading of the page consists of; all of them where the page is missing.

    Use it for whatever must have its own heading: errors, settings, algorithms.
    """
    known = set(headings(path)) if path.exists() else set()
    return [name for name in names if name not in known]
