"""A router of another package that does not keep the contract is named with its package, in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.routers.tables import real_table
from turnout import routers
from turnout.cli.main import main
from turnout.core.artifact import load, save
from turnout.core.budget import Goal
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.core.registry import Registry
from turnout.policies import Best, Deployment
from turnout.training import train
from turnout.training.bench import contestants
from turnout.training.bench.cell import run_cell
from turnout.training.bench.prepared import prepare

ODD = """
import numpy as np
from turnout.core.budget import Goal
from turnout.core.contracts import Router
from turnout.core.estimate import make_estimate

class Base(Router):
    pool = None
    @property
    def is_fitted(self): return self.pool is not None
    def fit(self, table):
        self.pool = table.candidates
        return self
    def estimate(self, queries):
        return make_estimate(self.pool, np.full((len(queries), len(self.pool)), 0.5))

class Array(Base):
    def estimate(self, queries): return np.zeros((len(queries), 3))

class Nothing(Base):
    def estimate(self, queries): return None

class Short(Base):
    def estimate(self, queries): return super().estimate(queries[:1])

class NoSelf(Base):
    def fit(self, table): self.pool = table.candidates

class Crashes(Base):
    def fit(self, table): raise ZeroDivisionError("kaboom")

class NotRouter: pass
"""

NAMES = {
    "array": "oddparts:Array",
    "nothing": "oddparts:Nothing",
    "short": "oddparts:Short",
    "no_self": "oddparts:NoSelf",
    "crashes": "oddparts:Crashes",
    "not_router": "oddparts:NotRouter",
    "knn": "oddparts:Base",
    "auto": "oddparts:Base",
}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package of routers, as an installer would, and read the entry points anew."""
    info = tmp_path / "oddparts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oddparts\nVersion: 1.0\n")
    lines = [f"{name} = {path}" for name, path in NAMES.items()]
    (info / "entry_points.txt").write_text("\n".join(["[turnout.routers]", *lines]) + "\n")
    (tmp_path / "oddparts.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "oddparts", raising=False)
    old = routers.registry
    fresh = Registry("routers", routers.TABLE, kind=old.kind, reserved=old.reserved)
    monkeypatch.setattr(routers, "registry", fresh)
    monkeypatch.setattr(contestants, "registry", fresh)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("array", r"estimate of .* returned no estimate; allowed: .*Estimate; got: 'ndarray'; build it"),
        ("nothing", r"estimate of .* returned no estimate; .* got: 'NoneType'"),
        ("short", r"estimate of .* another number of rows than queries; allowed: \d+; got: 1"),
        ("no_self", r"fit of .* returned no router; .* got: None; end it with `return self`"),
        ("not_router", r"allowed: a class that inherits turnout.core.contracts.Router; got: <class"),
    ],
)
@pytest.mark.usefixtures("odd")
def test_a_router_that_breaks_the_contract_is_named_with_its_package(name: str, why: str) -> None:
    for wanted in (name, [name, "best_single"]):
        with pytest.raises(InputError, match=why) as caught:
            train(real_table(), router=wanted)
        assert f"the entry point {name!r} of the package 'oddparts' ({NAMES[name]!r})" in str(caught.value)


@pytest.mark.usefixtures("odd")
def test_an_exception_of_its_own_says_which_package_raised_it() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        train(real_table(), router="crashes")
    assert caught.value.__notes__ == [
        "raised by fit of the entry point 'crashes' of the package 'oddparts' ('oddparts:Crashes')"
    ]


@pytest.mark.usefixtures("odd")
def test_a_deployment_made_in_python_says_the_same() -> None:
    table = real_table()
    router = routers.registry.make("array").fit(table)
    fallback = routers.BestSingleRouter().fit(table)
    made = Deployment(router=router, fallback=fallback, policy=Best(), goal=Goal())
    with pytest.raises(InputError, match=r"of the package 'oddparts'.* returned no estimate"):
        made.decide(table.queries[:2])


@pytest.mark.usefixtures("odd")
def test_a_taken_name_stops_only_who_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = train(real_table(), router=routers.KNNRouter())
    save(before, tmp_path / "old")
    assert load(tmp_path / "old").fingerprint == before.fingerprint  # type: ignore[attr-defined]
    assert main(["fit", "open9", "--router", "ridge", "--out", str(tmp_path / "new")]) == 0
    for name in ("knn", "auto"):
        assert main(["fit", "open9", "--router", name, "--out", str(tmp_path / "no")]) == 1
        said = capsys.readouterr().err
        assert f"turnout fit: the entry point {name!r} of the package 'oddparts' ('oddparts:Base')" in said
        assert "give it another name in 'oddparts', or uninstall that package" in said
        assert "Traceback" not in said


@pytest.mark.usefixtures("odd")
def test_a_row_of_the_comparison_says_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = prepare("small", real_table(), tmp_path, seed=0)
    for name in ("array", "not_router", "knn"):
        cell = run_cell(place, name, seed=0)
        assert f"the entry point {name!r} of the package 'oddparts'" in cell["error"]
    assert not caplog.records  # no traceback on top of the row
    assert run_cell(place, "crashes", seed=0)["error"].startswith(
        "ZeroDivisionError: kaboom; raised by fit of"
    )


def test_the_contract_of_a_room_is_what_its_entry_points_must_keep() -> None:
    assert routers.registry.kind is Router
    assert routers.registry.reserved == {"auto"}
