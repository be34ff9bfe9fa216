"""The size report counts as it says, and an excuse that nothing needs is an error."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import sizes

CODE = '''
def documented():
    """One line.

    And more.
    """
    return 1


class Holder:
    async def bare(self):
        x = 1
        return x
'''


def test_a_function_is_counted_without_its_docstring() -> None:
    assert dict(sizes.functions(ast.parse(CODE))) == {"documented": 2, "bare": 3}


def test_what_is_too_large_is_named(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    body = "\n".join(f"    x = {n}" for n in range(sizes.MAX_FUNCTION_LINES))
    (tmp_path / "src" / "long.py").write_text(f"def long() -> None:\n{body}\n", encoding="utf-8")
    files, lengths = sizes.measure(tmp_path)
    assert sizes.complaints(files, sizes.MAX_FILE_LINES) == []
    (complaint,) = sizes.complaints(lengths, sizes.MAX_FUNCTION_LINES)
    assert complaint.startswith("src/long.py:long has 61 lines; allowed: 60")


def test_an_excuse_must_be_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "EXCUSED", {"a.py": "a table", "b.py": "a table"})
    assert sizes.complaints({"a.py": 999}, sizes.MAX_FILE_LINES) == []
    (complaint,) = sizes.stale_excuses({"a.py": 999, "b.py": 3}, {})
    assert "'b.py'" in complaint
