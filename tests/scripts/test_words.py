"""The search for leftovers finds each kind and lets the allowed forms pass."""

from __future__ import annotations

import ast

import pytest

from scripts import words

HOME = "/ho" + "me/ada/x"
MARK = "TO" + "DO"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"path = '{HOME}'", "a path of one machine"),
        ("see .." + "/shared/data", "a path of one machine"),
        (f"# {MARK}: later", "a to-do without"),
        (f"# {MARK}() later", "a to-do without"),
        ("x = '\N{MIDDLE DOT}'", "a character outside ASCII (U+00B7)"),
    ],
)
def test_a_leftover_is_found_on_its_line(text: str, reason: str) -> None:
    (complaint,) = words.text_complaints("src/turnout/x.py", f"\n{text}\n")
    assert complaint.startswith("src/turnout/x.py:2: ")
    assert reason in complaint


@pytest.mark.parametrize(
    "text", [f"# {MARK}(#12): drop", "https://example.org" + HOME, "$PREFIX" + HOME, "usr" + HOME]
)
def test_what_is_allowed_passes(text: str) -> None:
    assert list(words.text_complaints("src/turnout/x.py", text)) == []


@pytest.mark.parametrize(
    ("name", "num_found"),
    [("src/turnout/core/x.py", 1), ("src/turnout/cli/x.py", 0), ("scripts/x.py", 0)],
)
def test_only_library_code_may_not_print(name: str, num_found: int) -> None:
    assert len(list(words.print_complaints(name, ast.parse("print('x')")))) == num_found
