"""Every name in docs/coverage.md exists, and every cell names something or says that there is none."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib

import pytest

from tests.docs import markdown
from turnout.cli.main import build_parser

ROOT = markdown.ROOT
TEXT = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
CELLS = [
    cell.strip()
    for line in TEXT.splitlines()
    if line.startswith("|") and not set(line) <= set("|- ")
    for cell in line.strip("|").split("|")[1:]
]
NAMES = sorted(set(re.findall(r"`([^`]+)`", TEXT)))
NO_NAMES = {"turnout.", "online", "caution", "latency_s_QM", "RouterR1"}
"""Code that is spoken of beside a name."""


def setting_names() -> set[str]:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    return set(re.findall(r"^### `([^`]+)`$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_NAMES])
def test_a_name_exists(name: str) -> None:
    if name.endswith((".py", ".toml")):
        assert (ROOT / name).is_file()
    elif name.startswith("turnout "):
        assert re.search(rf"^    {name.split()[1]}\s", build_parser().format_help(), flags=re.MULTILINE)
    elif name in setting_names():
        pass
    else:
        module, _, member = name.partition(":")
        if module.startswith("nn.") and importlib.util.find_spec("torch") is None:
            pytest.skip("needs torch")
        found = importlib.import_module(f"turnout.{module}")
        assert not member or hasattr(found, member)


def test_every_cell_names_something_or_says_none() -> None:
    assert len(CELLS) > 50
    headings = {"", "workload", "router", "pool"}
    bare = [cell for cell in CELLS if "`" not in cell and "none" not in cell and cell not in headings]
    assert bare == []


def test_what_is_called_empty_is_empty() -> None:
    """A class that fills the room makes the page wrong, and this test says so."""
    for room in ("online", "dispatch"):
        assert len(list(importlib.import_module(f"turnout.{room}").registry)) == 0


def test_the_example_is_a_file_of_settings() -> None:
    example = tomllib.loads((ROOT / "examples" / "reasoning" / "turnout.toml").read_text(encoding="utf-8"))
    assert [rule["effort"] for rule in example["rules"]] == ["high", "none"]
