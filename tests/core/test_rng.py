"""A seed and a purpose give one stream of numbers, the same in every process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from turnout.core.rng import make_rng


def test_the_same_seed_and_purpose_give_the_same_numbers() -> None:
    assert make_rng(7, "split").random() == make_rng(7, "split").random()


def test_another_seed_or_purpose_gives_other_numbers() -> None:
    streams = [
        make_rng(7),
        make_rng(8),
        make_rng(7, "split"),
        make_rng(7, "split", "a"),
        make_rng(7, "a", "split"),
    ]
    assert len({stream.random() for stream in streams}) == len(streams)


def test_streams_of_two_purposes_are_not_correlated() -> None:
    first, second = make_rng(1, "a").random(10_000), make_rng(1, "b").random(10_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_another_process_draws_the_same_numbers() -> None:
    draw = "repr(float(make_rng(7, 'x').random()))"
    code = f"import sys; from turnout.core.rng import make_rng; sys.stdout.write({draw})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(other.stdout) == make_rng(7, "x").random()
