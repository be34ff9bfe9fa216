"""Quality per watt by worked numbers, and a meter on real files that count and start again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.cases import choose
from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.errors import InputError, TableError
from turnout.evaluation.energy import efficiency_by_candidate, efficiency_of, energy_QM
from turnout.evaluation.meter import EnergyMeter


def table(energy_j: list[object] | None = None) -> OutcomeTable:
    """Return two queries by a small and a large model; the large one's second answer has no meter reading."""
    return OutcomeTable(
        queries=[Query(id="a", text="a"), Query(id="b", text="b")],
        candidates=[Candidate(model="small"), Candidate(model="large")],
        query_index=[0, 0, 1, 1],
        candidate_index=[0, 1, 0, 1],
        quality=[1.0, 1.0, 0.0, 1.0],
        latency_s=[1.0, 4.0, 3.0, 4.0],
        extras={"energy_j": [10.0, 400.0, 50.0, None] if energy_j is None else energy_j},
    )


def test_quality_per_watt_of_worked_numbers() -> None:
    found = efficiency_by_candidate(table())
    small, large = found["small"], found["large"]
    # 60 joules in 4 seconds are 15 watts; the mean of 10 and 16.7 watts would be another number.
    assert (small.num, small.quality, small.energy_j, small.watts) == (2, 0.5, 30.0, 15.0)
    assert small.per_watt == pytest.approx(0.5 / 15.0)
    assert small.per_joule == pytest.approx(0.5 / 30.0)
    assert (large.num, large.watts, large.per_watt) == (1, 100.0, 0.01)


def test_decisions_are_judged_by_the_calls_that_they_make() -> None:
    both = efficiency_of(choose(table(), [1, 0]), table())
    assert (both.num, both.quality, both.energy_j) == (2, 0.5, 225.0)
    assert both.watts == pytest.approx(450.0 / 7.0)
    nobody = efficiency_of(choose(table(), [-1, 1]), table())
    assert nobody.num == 0
    assert np.isnan(nobody.per_watt)
    with pytest.raises(InputError, match="2 decisions"):
        efficiency_of(choose(table(), [0]), table())


def test_energy_is_a_mean_over_samples_and_unknown_stays_unknown() -> None:
    twice = OutcomeTable(
        queries=[Query(id="a", text="a")],
        candidates=[Candidate(model="small"), Candidate(model="large")],
        query_index=[0, 0, 0],
        candidate_index=[0, 0, 1],
        sample=[0, 1, 0],
        quality=[1.0, 0.0, 1.0],
        extras={"energy_j": [1.0, 3.0, None]},
    )
    np.testing.assert_array_equal(energy_QM(twice), [[2.0, np.nan]])


@pytest.mark.parametrize("wrong", [-1.0, "12", True, float("inf")])
def test_what_is_no_energy_is_refused(wrong: object) -> None:
    with pytest.raises(TableError, match="energy_j of row 2"):
        energy_QM(table([1.0, 1.0, wrong, 1.0]))
    bare = OutcomeTable(
        queries=[Query(id="a", text="a")], candidates=[Candidate(model="m")],
        query_index=[0], candidate_index=[0], quality=[1.0],
    )  # fmt: skip
    with pytest.raises(TableError, match="records no energy"):
        energy_QM(bare)


def counters(root: Path, *values: int) -> None:
    """Write counters of two packages and of a part of the first one."""
    for name, value in zip(("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"), values, strict=True):
        (root / name).mkdir(exist_ok=True)
        (root / name / "energy_uj").write_text(f"{value}\n", encoding="ascii")
        (root / name / "max_energy_range_uj").write_text("1000000\n", encoding="ascii")


def test_the_meter_adds_packages_and_follows_a_counter_around(tmp_path: Path) -> None:
    counters(tmp_path, 100_000, 900_000, 7)
    with EnergyMeter(tmp_path) as meter:
        # The second counter went past its end; the part of the first package counts with it.
        counters(tmp_path, 350_000, 50_000, 99)
    assert meter.energy_j == pytest.approx(0.25 + 0.15)


def test_a_machine_without_counters_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no energy counter"):
        EnergyMeter(tmp_path)
    counters(tmp_path, 1, 1, 1)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("broken", encoding="ascii")
    with pytest.raises(InputError, match="cannot be read"), EnergyMeter(tmp_path):
        pass
