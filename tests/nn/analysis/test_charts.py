"""Each analysis has a picture of its table, and the lines are the table's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from turnout.core.errors import InputError
from turnout.nn.analysis.change import saturation_table
from turnout.nn.analysis.charts import CHARTS, draw_table, has_chart, plot
from turnout.nn.analysis.inspection import inspect_recording
from turnout.nn.analysis.page import render
from turnout.nn.analysis.recording import Recording
from turnout.nn.analysis.scaling import ScalingLaw, scaling_table
from turnout.nn.analysis.table import Table

LAW = ScalingLaw(a=-0.08, b=-0.1, c=0.01, d=1.0, e_start=1.8, e_max=300.0)


def recorded(num_layers: int) -> Recording:
    probs = tuple(torch.rand(6, 32, 8).softmax(-1) for _ in range(num_layers))
    return Recording(
        chosen=tuple(torch.zeros(6, 32, 8).scatter(2, p.topk(2)[1], 1.0).bool() for p in probs),
        probs=probs,
        token_ids_BS=torch.randint(5, (6, 32)),
        domains=("code", "prose") * 3,
        layers=tuple(f"layers.{i}.mlp" for i in range(num_layers)),
    )


def tables() -> list[Table]:
    found = inspect_recording(recorded(3), name="x", rng=np.random.default_rng(0))
    chosen = [[torch.rand(40, 8) > 0.7 for _ in range(2)] for _ in range(3)]
    scaled = scaling_table(LAW, [1e7, 1e8], [1, 8, 64])
    return [*found.tables, saturation_table(["1k", "2k", "3k"], chosen), scaled]


def drawn(table: Table) -> dict[str, list[tuple[float, float]]]:
    axes = Figure().subplots()
    plot(axes, table)
    return {
        str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True))  # type: ignore[arg-type]
        for line in axes.get_lines()
    }


def test_every_analysis_has_a_picture_and_every_picture_an_analysis() -> None:
    found = tables()
    assert {table.title for table in found} == set(CHARTS)
    assert all(draw_table(table).startswith(b"\x89PNG") for table in found)


def test_lines_are_the_columns_of_the_table() -> None:
    by_title = {table.title: table for table in tables()}
    sure = by_title["Sureness of gates"]
    lines = drawn(sure)
    assert list(lines) == ["entropy", "top", "margin"]
    assert lines["top"] == [(float(i), sure.column("top")[i]) for i in range(3)]
    law = by_title["Effective parameter count"]
    factors = law.column("factor")
    assert [points for _, points in drawn(law).items()] == [
        list(zip([1.0, 8.0, 64.0], factors[:3], strict=True)),
        list(zip([1.0, 8.0, 64.0], factors[3:], strict=True)),
    ]
    change = by_title["Saturation and change of the choice"]
    assert list(drawn(change)) == ["0", "1"]
    assert [y for _, y in drawn(change)["1"]] == change.column("saturation")[1::2]


def test_one_layer_has_no_line_and_a_table_of_ones_own_none_either() -> None:
    alone = inspect_recording(recorded(1), name="x", rng=np.random.default_rng(0))
    sure = alone.table("Sureness of gates")
    assert sure is not None
    assert not has_chart(sure)
    own = Table(title="Mine", columns=("layer", "x"), rows=(("a", 1.0), ("b", 2.0)))
    for table in (sure, own):
        with pytest.raises(InputError, match="two rows or more"):
            draw_table(table)


def test_the_page_shows_a_picture_below_each_table() -> None:
    found = inspect_recording(recorded(3), name="a model", rng=np.random.default_rng(0))
    page = render([found], source="s")
    assert page.count("<img") == 1 + len(found.tables)
    assert 'alt="Standing committee"' in page
