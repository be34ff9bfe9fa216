"""Every module can be imported alone, in a fresh interpreter, with the base installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import turnout

ROOT = Path(turnout.__file__).parent
# These stand for an optional package, and say so when it is missing.
OPTIONAL = (
    "turnout.checks.gate",
    "turnout.features.sentence",
    "turnout.features.onnx",
    "turnout.routers.neural",
    "turnout.nn.",
)
IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [m for m in sys.modules if m == "turnout" or m.startswith("turnout.")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}: {type(error).__name__}: {error}")
"""


def modules() -> list[str]:
    """Return the dotted name of every module of the installed package."""
    relative = (path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.py"))
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in relative)
    return [name for name in names if not name.endswith("__main__")]


ROOMS = sorted({name.split(".")[1] for name in modules() if "." in name})


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_of_a_room_imports_alone(room: str) -> None:
    base = [name for name in modules() if f"{name}.".startswith(f"turnout.{room}.")]
    base = [name for name in base if not name.startswith(OPTIONAL)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH, *base], capture_output=True, text=True, check=False
    )
    assert base
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_no_room_is_missing() -> None:
    assert len(ROOMS) == 15
