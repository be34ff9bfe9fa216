"""What is installed is whole: typed, with its examples, its licence, its command and eight dependencies."""

from __future__ import annotations

import hashlib
import os
import re
from importlib.metadata import distribution, requires, version
from pathlib import Path

import pytest

import turnout

PACKAGE = Path(turnout.__file__).parent
SOURCE = Path(__file__).resolve().parents[2] / "src" / "turnout"


def contents(root: Path) -> dict[str, str]:
    """Return the fingerprint of every file below a folder that belongs to the package."""
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_package_under_test_is_the_one_that_was_installed() -> None:
    expected = os.environ.get("TURNOUT_INSTALLED")
    assert PACKAGE.is_relative_to(expected or SOURCE.parent)


def test_no_file_is_lost_on_the_way_into_the_wheel() -> None:
    assert contents(PACKAGE) == contents(SOURCE)
    assert {"py.typed", "datasets/examples/reason18/queries.parquet"} <= contents(PACKAGE).keys()


def test_the_base_has_eight_direct_dependencies() -> None:
    base = [line for line in requires("turnout") or [] if "extra ==" not in line]
    names = {re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0] for line in base}
    assert len(base) == 8
    assert names == {
        "httptools",
        "matplotlib",
        "msgspec",
        "numpy",
        "pyarrow",
        "rich",
        "safetensors",
        "uvicorn",
    }


def test_no_requirement_pins_torch() -> None:
    torch = [line for line in requires("turnout") or [] if line.startswith("torch")]
    assert torch
    assert not any("==" in line.partition(";")[0] for line in torch)


def test_version_licence_and_command_are_declared() -> None:
    found = distribution("turnout")
    assert version("turnout") == turnout.__version__
    assert found.metadata["License-Expression"] == "Apache-2.0"
    (command,) = found.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("turnout", "turnout.cli.main:main")


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_the_legal_files_travel_along(name: str) -> None:
    paths = [path for path in distribution("turnout").files or [] if path.name == name]
    assert any("licenses" in path.parts for path in paths)
