from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scripts.results_systems import gates
from tests.nn.bench.test_cells import TINY
from turnout.nn.bench.picture import draw, figure_of
from turnout.nn.bench.summary import spread, summarise, to_text


def cell(gate: str, seed: int, loss: float | None, **more: Any) -> dict[str, Any]:
    return {
        "gate": gate, "seed": seed, "loss": loss, "sees": "token", "parameters": 10,
        "tokens_per_s": 50.0, "tokens_per_cpu_s": 100.0, "feed_flops_per_token": 8.0, **more,
    }  # fmt: skip


CELLS = [
    cell("dense", 0, 2.0),
    cell("dense", 1, 3.0),
    cell("dense", 2, 4.0),
    cell("top_k", 0, 1.9, tokens_per_cpu_s=50.0, best_fixed_loss=2.4, max_vio=0.5),
    cell("top_k", 1, 2.8, tokens_per_cpu_s=50.0, best_fixed_loss=3.4, max_vio=0.7),
    cell("top_k", 2, 3.9, tokens_per_cpu_s=50.0, best_fixed_loss=4.4, max_vio=0.6),
    cell("soft", 0, 0.1, sees="sequence"),
    cell("soft", 1, 0.1, sees="sequence"),
    cell("soft", 2, None, sees="sequence"),
]


def test_an_interval_is_that_of_student() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert found is not None
    assert found.value == 2.0
    assert found.high == pytest.approx(2.0 + 4.303 / 3**0.5)
    assert found.low == pytest.approx(2.0 - 4.303 / 3**0.5)
    assert spread([]) is None


def test_differences_are_taken_seed_by_seed() -> None:
    rows = {row.gate: row for row in summarise(CELLS)}
    gain = rows["top_k"].against_dense
    assert gain is not None
    assert gain.value == pytest.approx(-0.4 / 3)
    # The seeds differ by 1 and their differences by a tenth: an unpaired interval would be ten times as wide.
    assert gain.high is not None
    assert gain.high < 0.02
    assert rows["top_k"].speed is not None
    assert rows["top_k"].speed.value == pytest.approx(0.5)
    assert rows["dense"].against_dense is None
    fixed = rows["top_k, best fixed choice"].against_dense
    assert fixed is not None
    assert fixed.value == pytest.approx(0.4)


def test_who_sees_later_bytes_comes_last_and_is_marked() -> None:
    rows = summarise(CELLS)
    assert [row.gate for row in rows] == ["top_k", "dense", "top_k, best fixed choice", "soft"]
    text = to_text(TINY, "some text", rows)
    below = text.split("not to be compared")[1]
    assert "soft" in below
    assert "top_k" not in below
    assert "other work" not in text


def test_who_did_other_work_is_ranked_apart_whatever_its_loss() -> None:
    cheap = [cell("relu", seed, 0.5, feed_flops_per_token=8.0 * 0.744) for seed in range(3)]
    dear = [cell("vq", seed, 0.4, feed_flops_per_token=8.0 * 1.06) for seed in range(3)]
    near = [cell("speech", seed, 0.6, feed_flops_per_token=8.0 * 1.04) for seed in range(3)]
    rows = summarise([*CELLS, *cheap, *dear, *near])
    fair = ["speech", "top_k", "dense", "top_k, best fixed choice"]
    assert [row.gate for row in rows] == [*fair, "vq", "relu", "soft"]
    assert [row.group for row in rows] == ["equal work"] * 4 + ["other work"] * 2 + ["sees later bytes"]
    above, below = to_text(TINY, "some text", rows).split("other work: more than 5% from")
    assert all(name in above for name in fair)
    line = next(line for line in below.splitlines() if line.startswith("relu"))
    # The share stands before the loss.
    assert line.split()[1:3] == ["0.74", "0.500"]
    assert draw(rows, "a title") != draw(summarise(CELLS), "a title")


def test_results_follow_whatever_order_was_recorded() -> None:
    def row(gate: str, flops: float | None, sees: str = "token") -> dict[str, Any]:
        number = {"value": 0.5, "low": None, "high": None}
        names = ("loss", "against_dense", "max_vio", "dead_share", "change_rate", "speed")
        share = None if flops is None else {**number, "value": flops}
        return {"gate": gate, "sees": sees, "flops": share, **dict.fromkeys(names, number)}

    recorded = [row("relu", 0.744), row("top_k", 1.021), row("soft", 1.0, "sequence"), row("fixed", None)]
    size = {"layers": 2, "width": 64, "experts": 8, "positions": 128}
    setting = {"size": size, "steps": 800, "batch": 8, "seeds": 3}
    cells = [{"tokens_per_cpu_s": 8 * 800 * 128 / 90}] * 4
    result = {"rows": recorded, "setting": setting, "corpus": "text", "cells": cells}
    lines = list(gates({"result": result}))
    order = [line.split(" | ")[0][2:] for line in lines if line.startswith("| ") and "gate |" not in line]
    assert order == ["top_k", "fixed", "relu", "soft"]
    assert any(line.startswith("Other work: more than 5%") for line in lines)
    assert any("4 cells took about 6 minutes of processor time" in line for line in lines)


def test_a_cell_without_numbers_has_a_row_without_a_loss() -> None:
    lost = {"gate": "relu", "seed": 0, "loss": None, "sees": "token", "parameters": 10, "diverged_at": 3}
    row = next(row for row in summarise([*CELLS, lost]) if row.gate == "relu")
    assert (row.loss, row.speed, row.flops, row.group) == (None, None, None, "equal work")


def test_the_picture_rings_who_stands_beside_and_puts_dense_at_zero() -> None:
    first = figure_of(summarise(CELLS), "a title").axes[0]
    names = [label.get_text() for label in first.get_yticklabels()]
    dots = {}
    for line in first.lines:
        if line.get_marker() == "o":
            difference, place = np.asarray(line.get_xydata())[0]
            dots[names[int(place)]] = (float(difference), line.get_markerfacecolor() == "white")
    assert {name: is_ring for name, (_, is_ring) in dots.items()} == {
        "top_k": False, "soft (sees later bytes)": False, "dense": True, "top_k, best fixed choice": True
    }  # fmt: skip
    assert dots["dense"][0] == 0.0


def test_the_picture_is_drawn() -> None:
    image = draw(summarise(CELLS), "a title")
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(image) > 10_000
