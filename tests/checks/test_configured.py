"""The promises of a constructor and of an artifact can be broken, and the checks say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.checks.embedders import ForgetfulEmbedder, GoodEmbedder, UnstableEmbedder
from turnout.checks import check_configured, check_embedder, run
from turnout.checks.configured import CONFIGURED_CHECKS
from turnout.core import artifact
from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured, Embedder
from turnout.core.registry import Registry
from turnout.core.validation import check_choice, check_number


class Good(Configured):
    """Stores three settings and checks them."""

    def __init__(
        self, *, rate: float = 1.0, mode: Literal["a", "b"] = "a", pool: tuple[Candidate, ...] = ()
    ) -> None:
        self.rate = check_number("Good.rate", rate, low=0.0)
        self.mode = check_choice("Good.mode", mode, ("a", "b"))
        self.pool = pool


class Positional(Good):
    def __init__(self, rate: float = 1.0) -> None:
        super().__init__(rate=rate)


class Halving(Good):
    def __init__(self, *, rate: float = 1.0) -> None:
        super().__init__(rate=rate)
        self.rate = self.rate / 2


class Eager(Good):
    def __init__(self, *, rate: float = 1.0) -> None:
        super().__init__(rate=rate)
        self.table = [rate] * 3


class Lax(Good):
    def __init__(self, *, rate: float = 1.0) -> None:
        self.mode, self.pool = "a", ()
        self.rate = rate


class Rude(Good):
    def __init__(self, *, mode: Literal["a", "b"] = "a") -> None:
        self.mode = check_choice("an argument", mode, ("a", "b"))
        self.rate, self.pool = 1.0, ()


class Opaque(Good):
    def __init__(self, *, rate: object = None) -> None:
        self.rate = {1.0} if rate is None else rate  # type: ignore[assignment]


class Mistaken(Good):
    def clone(self) -> Any:
        return type(self)(rate=self.rate + 1)


class Handed(Good):
    """Takes another configured object, and does not look at what it gets."""

    def __init__(self, *, embedder: Embedder | None = None) -> None:
        self.embedder = embedder


BREAKS: dict[str, list[Callable[[], Configured]]] = {
    "constructor_takes_keywords_only": [Positional],
    "constructor_stores_its_arguments": [Halving],
    "constructor_does_no_work": [Eager],
    "refuses_bad_values": [Lax, Rude, Handed],
    "config_is_json": [Opaque],
    "clone_has_the_same_configuration": [Mistaken],
}


def test_a_good_class_passes() -> None:
    report = run(check_configured(Good(pool=(Candidate(model="owl"),))))
    assert report.is_clean
    assert [result.outcome for result in report.results] == ["passed"] * len(CONFIGURED_CHECKS)


@pytest.mark.parametrize(("name", "build"), [(n, build) for n, builds in BREAKS.items() for build in builds])
def test_a_broken_class_is_caught(name: str, build: Callable[[], Configured]) -> None:
    report = run(check for check in check_configured(build()) if check.name == name)
    assert [result.outcome for result in report.results] == ["failed"], str(report)


def test_every_configured_check_is_broken_by_somebody() -> None:
    assert {check.__name__ for check in CONFIGURED_CHECKS} == set(BREAKS)


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install three embedders as a third party would: by entry points of a distribution on the path."""
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    names = {"forgetful": "ForgetfulEmbedder", "unstable": "UnstableEmbedder", "good": "GoodEmbedder"}
    lines = [f"{name} = tests.checks.embedders:{cls}" for name, cls in names.items()]
    (info / "entry_points.txt").write_text("\n".join(["[turnout.features]", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    # The room's own registry froze at its first look-up; a new one sees the new distribution.
    registry = Registry("features", {})
    monkeypatch.setattr(artifact, "find_registry", lambda room: registry)


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize(
    ("cls", "name", "outcome"),
    [
        (GoodEmbedder, "saving_and_loading_changes_nothing", "passed"),
        (ForgetfulEmbedder, "saving_and_loading_changes_nothing", "failed"),
        (GoodEmbedder, "another_process_gives_the_same_vectors", "passed"),
        (UnstableEmbedder, "another_process_gives_the_same_vectors", "failed"),
    ],
)
def test_a_registered_class_is_saved_and_loaded_here_and_elsewhere(cls: Any, name: str, outcome: str) -> None:
    report = run(check for check in check_embedder(cls()) if check.name == name)
    assert [result.outcome for result in report.results] == [outcome], str(report)
