"""Lazy names load once and on first use; `dir` and error messages know them all."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

from turnout.core.lazy import lazy_exports

ROOMS = [f"turnout.{room}" for room in ("evaluation", "features", "gateway", "policies", "routers")]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("made_up_room")
    places = {"OrderedDict": "collections", "Row": "types:SimpleNamespace", "Loud": "made_up_nothing"}
    names = {"__all__": ["Row", "OrderedDict", "VERSION"], "VERSION": 3}
    vars(made).update(names)
    made.__getattr__, made.__dir__ = lazy_exports("made_up_room", places)  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "made_up_room", made)
    return made


def test_a_name_loads_on_first_use_and_stays(room: types.ModuleType) -> None:
    assert not {"OrderedDict", "Row"} & set(vars(room))
    assert room.Row is types.SimpleNamespace
    assert vars(room)["Row"] is types.SimpleNamespace
    assert room.OrderedDict.__name__ == "OrderedDict"


def test_dir_lists_all_and_loads_nothing(room: types.ModuleType) -> None:
    assert dir(room) == ["OrderedDict", "Row", "VERSION"]
    assert not {"OrderedDict", "Row"} & set(vars(room))


def test_an_unknown_name_gets_a_suggestion(room: types.ModuleType) -> None:
    with pytest.raises(
        AttributeError, match="module 'made_up_room' has no attribute 'Ruw'; did you mean 'Row'"
    ):
        _ = room.Ruw
    assert not hasattr(room, "__wrapped__")


def test_what_fails_to_load_says_so(room: types.ModuleType) -> None:
    with pytest.raises(ModuleNotFoundError, match="made_up_nothing"):
        _ = room.Loud


@pytest.mark.parametrize("name", ["turnout", *ROOMS])
def test_every_public_name_of_a_room_is_there_and_listed(name: str) -> None:
    room = importlib.import_module(name)
    assert dir(room) == sorted(room.__all__)
    assert [each for each in room.__all__ if not hasattr(room, each)] == []
    with pytest.raises(AttributeError, match=f"module {name!r} has no attribute 'Nonesuch'; "):
        _ = room.Nonesuch


@pytest.mark.parametrize("name", ROOMS)
def test_importing_a_room_loads_none_of_its_files(name: str) -> None:
    code = f"import sys, {name}; print(*sorted(m for m in sys.modules if m.startswith({name + '.'!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert [module for module in loaded if not module.startswith("turnout.core")] == []


def test_no_room_writes_the_function_anew() -> None:
    """The front door alone has one of its own: it stands before every room and imports none."""
    inits = [Path(importlib.import_module(name).__file__ or "") for name in ROOMS]
    assert [path for path in inits if "def __getattr__" in path.read_text(encoding="utf-8")] == []
