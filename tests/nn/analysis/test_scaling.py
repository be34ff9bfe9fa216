from __future__ import annotations

import math

import numpy as np
import pytest

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.scaling import ScalingLaw, fit_scaling, scaling_table

LAW = ScalingLaw(a=-0.08, b=-0.11, c=0.01, d=1.1, e_start=1.9, e_max=300.0)
SIZES = np.array([1.5e7, 5.5e7, 1.3e8, 3.7e8, 1.3e9])
EXPERTS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
GRID_N, GRID_E = (axis.ravel() for axis in np.meshgrid(SIZES, EXPERTS))


def test_the_saturated_count_begins_at_the_start_and_ends_at_the_top() -> None:
    assert float(LAW.saturated(1)) == pytest.approx(LAW.e_start)
    assert float(LAW.saturated(1e12)) == pytest.approx(LAW.e_max, rel=1e-6)
    unbounded = ScalingLaw(a=-0.1, b=-0.1, c=0.0, d=1.0, e_start=1.0, e_max=1e30)
    assert unbounded.saturated(EXPERTS) == pytest.approx(EXPERTS)


def test_the_effective_count_has_the_loss_of_the_routed_model() -> None:
    effective = LAW.effective_params(GRID_N, GRID_E)
    assert LAW.loss(effective, 1) == pytest.approx(LAW.loss(GRID_N, GRID_E))
    assert LAW.effective_params(SIZES, 1) == pytest.approx(SIZES)
    assert (effective >= GRID_N * (1 - 1e-9)).all()


def test_experts_help_less_the_larger_the_model_and_not_at_the_cutoff() -> None:
    gains = LAW.loss(SIZES, 1) / LAW.loss(SIZES, 64)
    assert (np.diff(gains) < 0).all()
    at = LAW.cutoff()
    assert at == pytest.approx(10**11)
    assert float(LAW.loss(at, 64)) == pytest.approx(float(LAW.loss(at, 1)))
    assert ScalingLaw(a=-0.1, b=-0.1, c=0.0, d=1.0, e_start=1.0, e_max=9.0).cutoff() == math.inf


def test_a_planted_law_is_found() -> None:
    law = fit_scaling(GRID_N, GRID_E, LAW.loss(GRID_N, GRID_E))
    assert law.rmse < 1e-6
    for name in ("a", "b", "c", "d", "e_start", "e_max"):
        assert getattr(law, name) == pytest.approx(getattr(LAW, name), rel=0.02), name


def test_with_noise_the_effective_count_is_near() -> None:
    noise = np.exp(np.random.default_rng(0).normal(0.0, 0.003, len(GRID_N)))
    law = fit_scaling(GRID_N, GRID_E, LAW.loss(GRID_N, GRID_E) * noise)
    assert law.effective_params(3.7e8, 64) == pytest.approx(LAW.effective_params(3.7e8, 64), rel=0.15)
    assert law.slope(64) == pytest.approx(LAW.slope(64), rel=0.1)


def test_a_law_without_saturation_fits_worse() -> None:
    loss = LAW.loss(GRID_N, GRID_E)
    log_n, log_e = np.log10(GRID_N), np.log10(GRID_E)
    design = np.column_stack([log_n, log_e, log_n * log_e, np.ones_like(log_n)])
    rest = np.log10(loss) - design @ np.linalg.lstsq(design, np.log10(loss), rcond=None)[0]
    assert fit_scaling(GRID_N, GRID_E, loss).rmse < 0.01 * np.sqrt(np.square(rest).mean())


def test_the_unit_of_the_loss_moves_the_constant_alone() -> None:
    one = fit_scaling(GRID_N, GRID_E, LAW.loss(GRID_N, GRID_E))
    bits = fit_scaling(GRID_N, GRID_E, LAW.loss(GRID_N, GRID_E) / math.log(2))
    assert bits.a == pytest.approx(one.a, rel=1e-3)
    assert bits.d - one.d == pytest.approx(-math.log10(math.log(2)), rel=1e-2)


def test_a_table_states_size_loss_and_factor() -> None:
    table = scaling_table(LAW, [1e8, 1e9], [1, 64])
    assert table.column("experts") == [1, 64, 1, 64]
    assert table.column("factor")[0] == pytest.approx(1.0)
    assert "1e+11" in table.note


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="7 runs"):
        fit_scaling(SIZES, np.full(5, 8), np.ones(5))
    with pytest.raises(ShapeError, match="as many of each"):
        fit_scaling(SIZES, EXPERTS, np.ones(5))
    with pytest.raises(InputError, match="losses above 0"):
        fit_scaling(GRID_N, GRID_E, -LAW.loss(GRID_N, GRID_E))


FEW_N, FEW_E = (axis.ravel() for axis in np.meshgrid(SIZES[:4], EXPERTS[:7]))


def noise(seed: int, size: float) -> np.ndarray:
    return 1 + size * np.random.default_rng(seed).standard_normal(len(FEW_N))


@pytest.mark.parametrize("seed", range(3))
def test_losses_in_which_experts_do_nothing_are_refused(seed: int) -> None:
    for size in (0.0, 0.005):
        with pytest.raises(InputError, match="what experts explain of the losses"):
            fit_scaling(FEW_N, FEW_E, 10 * FEW_N**-0.05 * noise(seed, size))


def test_errors_cover_the_truth_and_say_what_runs_leave_open() -> None:
    true = math.log10(float(LAW.effective_params(1e8, 16)))
    inside, laws = [], []
    for seed in range(6):
        law = fit_scaling(FEW_N, FEW_E, LAW.loss(FEW_N, FEW_E) * noise(seed, 0.002))
        laws.append(law)
        off = abs(math.log10(float(law.effective_params(1e8, 16))) - true)
        inside.append(off < 3 * law.effective_error(1e8, 16))
        assert list(law.errors) == ["a", "b", "c", "d", "log10_e_start", "log10_e_max"]
        assert abs(law.a - LAW.a) < 4 * law.errors["a"]
    assert sum(inside) >= 5
    # Within the sizes that were run much is known, a hundred times beyond them little.
    assert laws[0].effective_error(1e8, 16) < 0.3 * laws[0].effective_error(1e11, 512)
    noisy = fit_scaling(FEW_N, FEW_E, LAW.loss(FEW_N, FEW_E) * noise(0, 0.01))
    assert noisy.errors["a"] > 2 * laws[0].errors["a"]
    low, factor, high = (
        scaling_table(noisy, [1e8], [16]).column(f"factor{end}")[0] for end in ("_low", "", "_high")
    )
    assert float(low) < float(factor) < float(high)
    assert math.isnan(float(scaling_table(LAW, [1e8], [16]).column("factor_low")[0]))
