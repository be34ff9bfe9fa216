"""Every code block that a reader may paste runs: ```python in one namespace a page, ```bash as a script.

A command that stays up, or whose place is another machine, is marked ```console; output is ```text. A block
marked `requires=<package>` runs where that package is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import markdown

PAGES = [markdown.read(path) for path in markdown.pages()]


def is_run(block: markdown.Block) -> bool:
    """Whether this kind of block is one that the tests run."""
    return block.language in ("python", "bash")


def name(page: markdown.Page) -> str:
    """Name a page as a reader would."""
    return page.path.relative_to(markdown.ROOT).as_posix()


def test_the_readme_shows_python_that_runs() -> None:
    blocks = markdown.read(markdown.ROOT / "README.md").blocks
    assert any(block.language == "python" for block in blocks)


@pytest.mark.parametrize("page", [p for p in PAGES if any(map(is_run, p.blocks))], ids=name)
def test_code_blocks_run(page: markdown.Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in filter(is_run, page.blocks):
        if any(not is_installed(option) for option in block.options):
            continue
        if block.language == "python":
            # Empty lines above put the traceback's line numbers where the page has them.
            source = "\n" * (block.line - 1) + block.code
            exec(compile(source, str(page.path), "exec"), namespace)
        else:
            run_bash(block, tmp_path)


def is_installed(option: str) -> bool:
    """Whether the package that an option asks for can be imported; raises for an unknown option."""
    key, _, package = option.partition("=")
    if key != "requires":
        raise ValueError(f"unknown option {option!r}; allowed: requires=<package>")
    done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False)
    return done.returncode == 0


def run_bash(block: markdown.Block, folder: Path) -> None:
    """Run one block with this interpreter's commands first on the path; fail with what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    where = f"{block.path}:{block.line}"
    assert done.returncode == 0, f"{where} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
