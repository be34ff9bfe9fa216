"""The reader of the docs is right about a page with known contents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import markdown

PAGE = """\
# One `thing`

See [there](other.md#two) and `[not](a-link.md)`.

```python requires=torch
x = 1  # [nor](this)
# not a heading
```

1. A step:
   ```bash
   ls
   ```

## Two
## Two
````text
```
````
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_blocks_keep_language_options_line_and_code(page: Path) -> None:
    python, bash, text = markdown.read(page).blocks
    assert (python.language, python.options, python.line) == ("python", ("requires=torch",), 6)
    assert python.code.splitlines()[0] == "x = 1  # [nor](this)"
    assert (bash.language, bash.code) == ("bash", "ls\n")
    assert text.code == "```\n"


def test_headings_and_anchors_ignore_code(page: Path) -> None:
    assert markdown.headings(page) == ["One thing", "Two", "Two"]
    assert markdown.anchors(page) == {"one-thing", "two", "two-1"}


def test_links_ignore_code(page: Path) -> None:
    assert markdown.links(page) == [(3, "other.md#two")]


def test_names_without_heading_are_found(page: Path, tmp_path: Path) -> None:
    assert markdown.without_heading(page, ["Two", "Three"]) == ["Three"]
    assert markdown.without_heading(tmp_path / "absent.md", ["Two"]) == ["Two"]


def test_an_open_block_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "open.md"
    path.write_text("```python\nx = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="never closed"):
        markdown.read(path)
