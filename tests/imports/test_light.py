"""`import turnout` stays light, and no module needs an extra to be imported unless it says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALLOWED = {"numpy", "turnout"}
# What numpy itself, the interpreter's start-up or an editable installation may bring along.
STARTUP = {"_virtualenv", "sitecustomize", "usercustomize"}
LISTING = """
import sys
before = set(sys.modules)
{statement}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(name for name in new if name not in sys.stdlib_module_names))
"""


def third_party(statement: str) -> set[str]:
    """Return the top-level modules outside the standard library that a fresh interpreter loads."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LISTING.format(statement=statement)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()) - STARTUP


@pytest.mark.parametrize(
    "statement", ["import turnout", "import turnout.core", "from turnout import Candidate"]
)
def test_the_front_door_loads_numpy_and_nothing_else(statement: str) -> None:
    assert third_party(statement) <= ALLOWED


@pytest.mark.parametrize(
    "room", ["features", "policies", "dispatch", "nn", "routers", "online", "sequential"]
)
def test_a_table_can_be_read_without_loading_what_it_names(room: str) -> None:
    statement = f"from turnout.core.registry import find_registry; list(find_registry({room!r}))"
    assert third_party(statement) <= ALLOWED


def test_the_listing_sees_a_third_party_module() -> None:
    assert "rich" in third_party("import rich")
