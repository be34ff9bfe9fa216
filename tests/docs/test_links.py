"""Every link between the pages leads somewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs import markdown


@pytest.mark.parametrize("path", markdown.pages(), ids=lambda p: p.relative_to(markdown.ROOT).as_posix())
def test_links_resolve(path: Path) -> None:
    broken = [
        f"{path.name}:{line}: {target}" for line, target in markdown.links(path) if not leads(path, target)
    ]
    assert not broken, "links that lead nowhere:\n" + "\n".join(broken)


def leads(page: Path, target: str) -> bool:
    """Whether a target is outside this repository, or a file of it with the heading that it names."""
    parts = urlsplit(target)
    if parts.scheme:
        return parts.scheme in ("https", "http", "mailto")
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not file.exists() or not file.is_relative_to(markdown.ROOT):
        return False
    return not parts.fragment or parts.fragment in markdown.anchors(file)


def test_every_page_can_be_reached_from_the_readme() -> None:
    start = markdown.ROOT / "README.md"
    seen, waiting = {start}, [start]
    while waiting:
        page = waiting.pop()
        for _, target in markdown.links(page):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file() and path not in seen:
                seen.add(path)
                waiting.append(path)
    assert set(markdown.ROOT.glob("docs/*.md")) <= seen
