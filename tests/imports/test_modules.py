"""Every module can be imported alone, in a fresh interpreter, with the base installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import turnout

ROOT = Path(turnout.__file__).parent
# These stand for an optional package, and say so when it is missing.
OPTIONAL = ("turnout.features.sentence", "turnout.features.onnx", "turnout.routers.neural", "turnout.nn.")
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


def test_every_module_imports_alone() -> None:
    base = [name for name in modules() if not name.startswith(OPTIONAL)]
    assert len(base) > 20
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH, *base], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
