"""Every class that a registry knows keeps every promise of its contract, under every setting."""

from __future__ import annotations

import inspect

import pytest

from tests.contracts.excuses import CONSTRUCTOR_ONLY, EXCUSES, NOT_VARIED, SETTINGS, excuse
from tests.contracts.matrix import classes, matrix
from turnout.checks import Check, CheckSkipped, yield_variants
from turnout.core.errors import MissingExtraError

CELLS = list(matrix())


def cell(test_id: str, check: Check) -> object:
    """Mark an excused cell: it must fail, and its reason is shown."""
    reason = excuse(test_id)
    marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
    return pytest.param(check, id=test_id, marks=marks)


@pytest.mark.parametrize("check", [cell(*pair) for pair in CELLS])
def test_a_class_keeps_its_promise(check: Check) -> None:
    try:
        check()
    except (CheckSkipped, MissingExtraError) as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("key", [key for key, _ in classes()])
def test_every_parameter_is_varied(key: str) -> None:
    if key in NOT_VARIED:
        pytest.skip(NOT_VARIED[key])
    cls = dict(classes())[key]
    names = [variant.name for variant in yield_variants(cls, settings=SETTINGS.get(key))]
    assert names[0] == "default"
    assert {name.partition("=")[0] for name in names[1:]} == set(inspect.signature(cls).parameters)


def test_every_excuse_names_a_check_that_is_run() -> None:
    ids = [test_id for test_id, _ in CELLS]
    short = {":".join((*test_id.split(":")[:2], test_id.rpartition(":")[2])) for test_id in ids}
    assert set(EXCUSES) - set(ids) - short == set()
    assert {*NOT_VARIED, *CONSTRUCTOR_ONLY, *SETTINGS} <= {key for key, _ in classes()}
    reasons = (*EXCUSES.values(), *NOT_VARIED.values(), *CONSTRUCTOR_ONLY.values())
    assert all(len(reason) > 20 for reason in reasons)
