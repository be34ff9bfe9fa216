"""Every error is in one tree, is also a builtin, and says what, where, allowed, got and what to do."""

from __future__ import annotations

import inspect

import pytest

from turnout.core import errors
from turnout.core.errors import TurnoutError, did_you_mean, missing_extra, sentence

TREE = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and value.__module__ == errors.__name__
}


def test_every_error_stands_in_the_tree_and_is_drawn() -> None:
    assert all(issubclass(error, TurnoutError) for error in TREE.values())
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    assert {line.lstrip("|+- ").split()[0] for line in drawing.splitlines()} == set(TREE)


@pytest.mark.parametrize("name", sorted(set(TREE) - {"TurnoutError"}))
def test_an_error_is_also_the_builtin_that_the_drawing_names(name: str) -> None:
    builtins = {ValueError, LookupError, RuntimeError, ImportError}
    drawn = next(
        line for line in (errors.__doc__ or "").splitlines() if line.lstrip("|+- ").startswith(f"{name} ")
    )
    kinds = [kind for kind in builtins if issubclass(TREE[name], kind)]
    assert len(kinds) == 1
    assert "(" not in drawn or f"({kinds[0].__name__})" in drawn


def test_a_sentence_has_its_parts_in_order() -> None:
    text = sentence("Best.caution", allowed="at least 0", got=-1, do="raise it")
    assert text == "Best.caution; allowed: at least 0; got: -1; raise it"
    assert sentence("only this") == "only this"


def test_what_was_got_is_cut_so_that_no_prompt_is_spilled() -> None:
    text = sentence("here", got="secret " * 1000)
    assert len(text) == len("here; got: ") + 120
    assert text.endswith("...")


def test_zero_false_and_none_are_shown() -> None:
    assert sentence("x", got=None) == "x; got: None"
    assert sentence("x", allowed=0, got=False) == "x; allowed: 0; got: False"


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("bets", ["best", "threshold"], "did you mean 'best'?"),
        ("abc1", ["abc2", "abc3"], "did you mean 'abc3' or 'abc2'?"),
        ("zzz", ["best", "ant"], "known: ant, best"),
        ("zzz", [], "known: none"),
        ("zzz", [f"name{i:02d}" for i in range(15)], ", name11 and 3 more"),
    ],
)
def test_near_names_are_suggested_and_few_are_listed(name: str, known: list[str], expected: str) -> None:
    assert did_you_mean(name, known).endswith(expected)


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = missing_extra("torch", feature="the neural router", extra="nn")
    assert isinstance(error, ImportError)
    assert str(error) == (
        "the neural router needs the package 'torch', which is not installed; "
        "install it with: pip install 'turnout[nn]'"
    )
