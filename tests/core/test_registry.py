"""A name becomes a class lazily and once; what is wrong with a name is said in one sentence."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter, OrderedDict
from json import JSONDecoder
from pathlib import Path

import pytest

from turnout.core.errors import InputError, UnknownNameError
from turnout.core.registry import Registry, find_registry

TABLE = {"ordered": "collections:OrderedDict", "counter": "collections:Counter"}


def test_a_name_gives_its_class() -> None:
    registry = Registry("demo", TABLE)
    assert registry.get("ordered") is OrderedDict
    assert registry.get("ordered") is registry.get("ordered")
    assert registry.path("counter") == "collections:Counter"


def test_a_registry_is_a_sorted_collection_of_names() -> None:
    registry = Registry("demo", TABLE)
    assert list(registry) == ["counter", "ordered"]
    assert len(registry) == 2
    assert "counter" in registry
    assert "list" not in registry


def test_a_class_gives_its_name() -> None:
    registry = Registry("demo", {**TABLE, "decoder": "json:JSONDecoder"})
    assert registry.name_of(Counter) == "counter"
    # A class may live elsewhere than where the table points to; it is found by importing.
    assert registry.name_of(JSONDecoder) == "decoder"
    assert registry.name_of(JSONDecoder) == "decoder"


def test_a_class_without_a_name_is_told_how_to_get_one() -> None:
    with pytest.raises(
        UnknownNameError, match=r"'builtins:int' has no name in the room 'demo'; .*'turnout.demo'"
    ):
        Registry("demo", TABLE).name_of(int)


@pytest.mark.parametrize("look", ["get", "path"])
def test_an_unknown_name_gets_suggestions(look: str) -> None:
    with pytest.raises(UnknownNameError, match=r"no demo entry is called 'orderd'; did you mean 'ordered'\?"):
        getattr(Registry("demo", TABLE), look)("orderd")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    registry = Registry("demo", {"absent": "turnout.no_such_module:Thing"})
    assert list(registry) == ["absent"]
    assert registry.path("absent") == "turnout.no_such_module:Thing"
    with pytest.raises(ModuleNotFoundError):
        registry.get("absent")


def test_a_taken_name_is_refused_and_the_same_entry_twice_is_not() -> None:
    registry = Registry("demo", TABLE)
    registry.add("ordered", "collections:OrderedDict")
    with pytest.raises(
        InputError, match=r"'ordered' is taken by 'collections:OrderedDict'; got: 'my.module:Mine'"
    ):
        registry.add("ordered", "my.module:Mine")


@pytest.mark.parametrize("path", ["collections.OrderedDict", "a:b:c", ""])
def test_a_path_names_a_module_and_a_class(path: str) -> None:
    with pytest.raises(
        InputError, match=r"registry 'demo': 'x'; allowed: \"'module:Class'\"|allowed: 'module:Class'"
    ):
        Registry("demo", {"x": path})


def test_a_table_freezes_at_its_first_look_up() -> None:
    registry = Registry("demo", TABLE)
    registry.add("deque", "collections:deque")
    assert "deque" in registry
    with pytest.raises(InputError, match="registry 'demo' is frozen; add names before the first look-up"):
        registry.add("chain", "collections:ChainMap")


def test_many_threads_see_one_table() -> None:
    registry = Registry("demo", TABLE)
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(registry.get("counter"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [Counter] * 16


STRANGER = """
from abc import ABC, abstractmethod

class Router:
    pass

class NeedsArgument:
    def __init__(self, *, scale):
        pass

class Crashes:
    def __init__(self):
        raise ZeroDivisionError("no")

class Unfinished(ABC):
    @abstractmethod
    def close(self):
        pass

def function():
    pass
"""


def install(folder: Path, *lines: str) -> Path:
    """Put a distribution with entry points on disk, as an installer would."""
    info = folder / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[turnout.demo]", *lines]) + "\n")
    (folder / "stranger.py").write_text(STRANGER)
    return folder


def test_a_third_party_adds_a_name_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install(tmp_path, "foreign = stranger:Router"))
    registry = Registry("demo", TABLE)
    assert list(registry) == ["counter", "foreign", "ordered"]
    assert registry.get("foreign").__module__ == "stranger"
    assert registry.name_of(registry.get("foreign")) == "foreign"
    assert "foreign" not in Registry("other", {})


def test_a_third_party_that_takes_a_name_stops_only_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path, "ordered = stranger:Router", "auto = stranger:Router"))
    registry = Registry("demo", TABLE, reserved=("auto",))
    assert registry.get("counter") is Counter
    assert registry.name_of(OrderedDict) == "ordered"
    for ask in (registry.get, registry.path, registry.make, registry.require_one_meaning):
        with pytest.raises(
            InputError,
            match=r"the entry point 'ordered' of the package 'stranger' \('stranger:Router'\) has a name "
            r"that is taken by 'collections:OrderedDict' of turnout; give it another name in 'stranger', or",
        ):
            ask("ordered")
    with pytest.raises(
        InputError, match=r"'auto' of the package 'stranger' .* a meaning of its own; give it"
    ):
        registry.require_one_meaning("auto")
    assert "auto" not in registry
    # What an artifact holds was written when the name had one meaning.
    assert registry.get("ordered", is_stored=True) is OrderedDict


def test_two_third_parties_of_one_name_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "a", "mine = stranger:Router"))
    other = install(tmp_path / "b", "mine = collections:Counter") / "stranger-1.0.dist-info"
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    other.rename(tmp_path / "b" / "guest-1.0.dist-info")
    monkeypatch.syspath_prepend(tmp_path / "b")
    with pytest.raises(InputError, match=r"of the package 'stranger' .* taken by .* of the package 'guest'"):
        Registry("demo", TABLE).get("mine")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("stranger.nothere:X", r"cannot be loaded; got: ModuleNotFoundError\(.*nothere"),
        ("stranger:Nope", r"cannot be loaded; got: AttributeError\(.*Nope"),
        ("stranger", r" \('stranger'\); allowed: 'module:Class'"),
        (
            "stranger:Router",
            r"; allowed: a class that inherits collections.OrderedDict; got: <class 'stranger",
        ),
        ("stranger:function", r"; allowed: a class that inherits collections.OrderedDict; got: <function"),
    ],
)
def test_an_entry_point_that_is_not_what_it_says_is_named_with_its_package(
    path: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    monkeypatch.syspath_prepend(install(tmp_path, f"odd = {path}"))
    registry = Registry("demo", TABLE, kind=OrderedDict)
    assert registry.get("counter") is Counter
    assert registry.name_of(OrderedDict) == "ordered"
    with pytest.raises(InputError, match=rf"the entry point 'odd' of the package 'stranger'.*{why}"):
        registry.get("odd")
    with pytest.raises(InputError, match="repair it in 'stranger', or uninstall that package"):
        registry.get("odd")
    with pytest.raises(UnknownNameError, match="'builtins:int' has no name"):
        registry.name_of(int)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("NeedsArgument", r"its constructor wants scale; allowed: a default for every parameter"),
        ("Crashes", r"its constructor failed; got: ZeroDivisionError\('no'\)"),
        ("Unfinished", r"does not implement close"),
    ],
)
def test_a_class_that_cannot_be_made_by_name_says_why(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    monkeypatch.syspath_prepend(install(tmp_path, f"odd = stranger:{name}", "good = stranger:Router"))
    registry = Registry("demo", TABLE)
    assert type(registry.make("good")).__name__ == "Router"
    with pytest.raises(InputError, match=rf"the entry point 'odd' of the package 'stranger'.*{why}"):
        registry.make("odd")


def test_a_room_is_found_by_its_name() -> None:
    assert find_registry("policies").room == "policies"
    with pytest.raises(UnknownNameError, match=r"no room is called 'router'; did you mean 'routers'"):
        find_registry("router")


def test_finding_core_imports_no_room() -> None:
    code = (
        "import sys, turnout.core\n"
        "loaded = {name.split('.')[1] for name in sys.modules if name.startswith('turnout.')}\n"
        "sys.exit(', '.join(loaded - {'core'}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
