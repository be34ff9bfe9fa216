"""Every constructor parameter is varied, or the caller is told which one cannot be guessed."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest

from turnout.checks import Settings, yield_variants
from turnout.checks.fixtures import LetterCounts
from turnout.core.budget import Goal
from turnout.core.contracts import Configured, Embedder
from turnout.core.errors import InputError
from turnout.core.validation import check_count, check_number

Shape = Literal["round", "square", "flat"]


class Many(Configured):
    def __init__(
        self,
        *,
        embedder: Embedder,
        is_fast: bool = True,
        neighbours: int = 8,
        share: float = 0.75,
        shape: Shape = "round",
        cap: float | None = None,
        sizes: tuple[int, int] = (2, 4),
        goal: Goal | None = None,
    ) -> None:
        self.embedder, self.is_fast, self.shape, self.goal = embedder, is_fast, shape, goal
        self.neighbours = check_count("Many.neighbours", neighbours)
        self.share = check_number("Many.share", share, low=0.0, high=1.0)
        self.cap, self.sizes = cap, sizes


class Named(Configured):
    def __init__(self, *, model: str = "owl") -> None:
        self.model = model


class Declared(Named):
    check_settings: ClassVar[Settings] = {"model": ("owl", "ant", "elk")}


class Unresolvable(Configured):
    def __init__(self, *, thing: Nowhere = None) -> None:  # type: ignore[name-defined] # noqa: F821
        self.thing = thing


def values(cls: type[Configured], parameter: str) -> list[object]:
    return [v.thing.config()[parameter] for v in yield_variants(cls) if v.name.startswith(f"{parameter}=")]


def test_the_default_comes_first_and_differs_from_every_variant() -> None:
    variants = list(yield_variants(Many))
    assert variants[0].name == "default"
    assert len({variant.name for variant in variants}) == len(variants)
    default = variants[0].thing.config()
    for variant in variants[1:]:
        changed = [name for name, value in variant.thing.config().items() if value is not default[name]]
        assert variant.name.partition("=")[0] in changed


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("is_fast", [False]),
        ("neighbours", [16, 4]),
        ("share", [0.375, 0.85]),
        ("shape", ["square", "flat"]),
        ("cap", [2.0, 0.5]),
        ("sizes", [(2, 5), (4, 8)]),
        ("goal", [Goal(quality_floor=0.9)]),
    ],
)
def test_each_kind_of_parameter_is_varied_within_its_range(parameter: str, expected: list[object]) -> None:
    assert values(Many, parameter) == expected


def test_an_embedder_is_replaced_by_a_fitted_one() -> None:
    default, *others = [v.thing.config()["embedder"] for v in yield_variants(Many)]
    assert isinstance(default, LetterCounts)
    assert not default.is_fitted
    assert any(isinstance(other, LetterCounts) and other.is_fitted for other in others)


def test_a_class_may_declare_what_cannot_be_guessed() -> None:
    assert values(Declared, "model") == ["ant", "elk"]


def test_a_caller_may_pass_what_cannot_be_guessed() -> None:
    names = [variant.name for variant in yield_variants(Named, settings={"model": ("owl", "yak")})]
    assert names == ["default", "model='yak'"]


@pytest.mark.parametrize(
    ("cls", "parameter"),
    [(Named, "model"), (Unresolvable, "thing")],
    ids=["a plain string", "an unknown type"],
)
def test_what_cannot_be_guessed_is_said(cls: type[Configured], parameter: str) -> None:
    with pytest.raises(
        InputError, match=rf"{cls.__name__}'s parameter '{parameter}' can be guessed; pass settings"
    ):
        list(yield_variants(cls))


def test_a_required_parameter_without_a_guess_is_said() -> None:
    class Required(Configured):
        def __init__(self, *, model: str) -> None:
            self.model = model

    with pytest.raises(InputError, match="Required's parameter 'model'"):
        list(yield_variants(Required))


def test_settings_of_an_unknown_parameter_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"settings of Named; allowed: parameters \['model'\]; got: \['modle'\]"
    ):
        list(yield_variants(Named, settings={"modle": ("owl",)}))


def test_a_declared_value_that_is_refused_is_an_error() -> None:
    with pytest.raises(InputError, match=r"Many\.share"):
        list(yield_variants(Many, settings={"share": (0.5, 7.0)}))
