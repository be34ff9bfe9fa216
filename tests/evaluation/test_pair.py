from __future__ import annotations

import numpy as np
import pytest

from turnout.evaluation.pair import apgr, cpt, pgr

SHARE = np.array([0.5, 0.25])
QUALITY = np.array([0.8, 0.65])
WEAK, STRONG = 0.6, 0.9


def test_pgr_is_the_share_of_the_gap() -> None:
    assert pgr(np.array([0.6, 0.75, 0.9]), weak=WEAK, strong=STRONG).tolist() == pytest.approx(
        [0.0, 0.5, 1.0]
    )
    assert np.isnan(pgr(np.array([0.6]), weak=0.9, strong=0.9)).all()


def test_apgr_by_hand_is_anchored_at_both_ends() -> None:
    # (0, .6) (.25, .65) (.5, .8) (1, .9): .15625 + .18125 + .425 = .7625, less .6, over .3.
    assert apgr(SHARE, QUALITY, weak=WEAK, strong=STRONG) == pytest.approx((0.7625 - 0.6) / 0.3)


def test_the_published_form_only_sees_the_shares_it_was_given() -> None:
    # The mean between .25 and .5 is .725.
    assert apgr(SHARE, QUALITY, weak=WEAK, strong=STRONG, form="routellm") == pytest.approx(
        (0.725 - 0.6) / 0.3
    )


def test_a_random_router_has_apgr_one_half_whatever_the_grid() -> None:
    for grid in (np.array([0.1]), np.linspace(0, 1, 11), np.array([0.7, 0.2, 0.9])):
        assert apgr(grid, 0.6 + 0.3 * grid, weak=WEAK, strong=STRONG) == pytest.approx(0.5)


def test_cpt_by_hand_interpolates_to_the_first_crossing() -> None:
    # PGR .5 is quality .75, two thirds of the way from (.25, .65) to (.5, .8).
    assert cpt(SHARE, QUALITY, at=0.5, weak=WEAK, strong=STRONG) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert cpt(SHARE, QUALITY, at=0.0, weak=WEAK, strong=STRONG) == 0.0
    assert cpt(SHARE, QUALITY, at=1.0, weak=WEAK, strong=STRONG) == 1.0


def test_cpt_takes_the_first_crossing_where_quality_is_not_monotone() -> None:
    share, quality = np.array([0.2, 0.4, 0.6]), np.array([0.8, 0.62, 0.7])
    assert cpt(share, quality, at=0.5, weak=WEAK, strong=STRONG) == pytest.approx(0.2 * 0.75)


def test_the_published_cpt_is_an_interpolation_in_quality() -> None:
    share, quality = np.array([0.25, 0.5]), np.array([0.65, 0.8])
    assert cpt(share, quality, at=0.5, weak=WEAK, strong=STRONG, form="routellm") == pytest.approx(
        0.25 + 0.25 * 2 / 3
    )
    assert cpt(share, quality, at=0.9, weak=WEAK, strong=STRONG, form="routellm") == 0.5


@pytest.mark.parametrize(
    "measure", [lambda **k: apgr(SHARE, QUALITY, **k), lambda **k: cpt(SHARE, QUALITY, at=0.5, **k)]
)
def test_nothing_is_defined_unless_strong_is_better(measure: object) -> None:
    assert callable(measure)
    assert np.isnan(measure(weak=0.7, strong=0.7))


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(LookupError, match="anchored"):
        apgr(SHARE, QUALITY, weak=WEAK, strong=STRONG, form="anchord")  # type: ignore[arg-type]
