"""An argument that is not allowed is refused by one sentence."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from turnout.core.contracts import Embedder
from turnout.core.errors import InputError, ShapeError, UnknownNameError
from turnout.core.validation import (
    check_choice,
    check_count,
    check_kind,
    check_name,
    check_number,
    check_shape,
    check_text,
)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_a_number_inside_the_interval_becomes_a_float(value: Any) -> None:
    number = check_number("X.share", value, low=0.0, high=1.0)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize(
    "value", [-0.1, 1.1, math.nan, math.inf, True, "0.5", None, [0.5], np.zeros(1), 10**400]
)
def test_a_number_outside_the_interval_is_refused(value: Any) -> None:
    expected = re.escape("X.share; allowed: a number in [0, 1]; got: ")
    with pytest.raises(InputError, match=expected):
        check_number("X.share", value, low=0.0, high=1.0)


def test_open_ends_are_outside_and_are_shown_as_such() -> None:
    with pytest.raises(InputError, match=r"a number in \(0, 1\); got: 0"):
        check_number("X", 0, low=0.0, high=1.0, allow_low=False, allow_high=False)
    with pytest.raises(InputError, match=r"a number in \[0, 1\); got: 1"):
        check_number("X", 1.0, low=0.0, high=1.0, allow_high=False)
    assert check_number("X", math.inf) == math.inf


@pytest.mark.parametrize("value", [3, np.int32(3)])
def test_a_count_becomes_an_int(value: Any) -> None:
    assert type(check_count("X.k", value, low=3, high=3)) is int


@pytest.mark.parametrize("value", [0, 6, True, 2.0, "3", None])
def test_a_count_outside_its_bounds_is_refused(value: Any) -> None:
    expected = re.escape("X.k; allowed: a whole number of at least 1 and at most 5; got: ") + re.escape(
        repr(value)
    )
    with pytest.raises(InputError, match=expected):
        check_count("X.k", value, high=5)


def test_a_count_without_a_top_has_none_in_its_sentence() -> None:
    with pytest.raises(InputError, match=r"at least 1; got: 0$"):
        check_count("X.k", 0)


def test_a_choice_is_one_of_its_options() -> None:
    assert check_choice("X.mode", "soft", ("soft", "hard")) == "soft"
    with pytest.raises(UnknownNameError, match=r"X.mode; got: 'sotf'; did you mean 'soft'\?"):
        check_choice("X.mode", "sotf", ("soft", "hard"))
    with pytest.raises(UnknownNameError, match=r"X.mode; got: 7"):
        check_choice("X.mode", 7, ("soft", "hard"))  # type: ignore[arg-type]


def test_a_shape_is_shown_as_letters_and_numbers() -> None:
    check_shape("X", np.zeros((2, 3)), "QM", (2, 3))
    with pytest.raises(ShapeError, match=re.escape("X.quality_QM; allowed: (Q, M) = (2, 3); got: (3, 2)")):
        check_shape("X.quality_QM", np.zeros((3, 2)), "QM", (2, 3))


@pytest.mark.parametrize("value", ["", "  ", None, 3])
def test_a_name_is_not_blank(value: Any) -> None:
    check_name("X.model", "owl")
    with pytest.raises(InputError, match=r"X.model; allowed: "):
        check_name("X.model", value)


@pytest.mark.parametrize("value", [None, 3, b"bytes"])
def test_a_text_is_a_string(value: Any) -> None:
    check_text("X.text", "")
    with pytest.raises(InputError, match=r"X.text; allowed: a string"):
        check_text("X.text", value)


def test_an_object_is_of_the_kind_that_was_asked_for() -> None:
    check_kind("X.count", 3, int)
    with pytest.raises(InputError, match=r"X.embedder; allowed: an object of the kind Embedder; got: 'knn'"):
        check_kind("X.embedder", "knn", Embedder)
