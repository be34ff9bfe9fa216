from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.cases import choose, make_table, random_table
from turnout.core import decisions_for
from turnout.evaluation import Cells, Report, Run, Value, evaluate
from turnout.evaluation.forest import bars
from turnout.evaluation.rows import ORDER
from turnout.evaluation.runs import RunLike
from turnout.evaluation.scene import make_scene, short

PNG = b"\x89PNG\r\n\x1a\n"


@cache
def report(num_candidates: int = 5, *, has_costs: bool = True) -> Report:
    table = random_table(400, num_candidates, seed=3)
    if not has_costs:
        table = table.with_costs(np.full(table.num_rows, np.nan))
    rng = np.random.default_rng(0)
    noisy_QM = table.quality_QM + rng.normal(0, 0.8, table.quality_QM.shape)
    cost_QM = np.nan_to_num(table.cost_usd_QM)
    sweep = [
        decisions_for(table.candidates, np.argmax(noisy_QM - price * cost_QM, axis=1), price=price)
        for price in (0.0, 50.0, 200.0, 1000.0, 1e5)
    ]
    runs: dict[str, RunLike] = {
        "router": Run(chosen=sweep[2], sweep=sweep),
        "knn": choose(table, [k % num_candidates for k in range(400)]),
    }
    return evaluate(
        runs, table, train=random_table(300, num_candidates, seed=4, prefix="t"), num_resamples=60
    )


class Page(HTMLParser):
    """Collects tags and what they point to, and checks that they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "path", "circle", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle", "polygon") or (self.open and self.open[-1] == tag):
            assert self.open.pop() == tag


def test_the_json_is_plain_and_holds_what_is_needed_to_make_it_again(tmp_path: Path) -> None:
    text = report().to_json(tmp_path / "report.json")
    body = json.loads(text)
    assert json.loads((tmp_path / "report.json").read_text()) == body
    assert "NaN" not in text
    assert "Infinity" not in text
    assert {"seed", "table", "train", "num_resamples", "dropped_quality", "version"} <= set(body["origin"])
    assert [row["name"] for row in body["rows"]] == list(report().names)
    assert len(body["rows"][0]["curve"]["points"]) == 5
    assert set(body["rows"][0]["quality"]) == {"value", "low", "high"}
    assert body["leakage"]["exact"] == 0


def test_an_infinite_price_is_no_number_in_json() -> None:
    table = make_table([[1.0, 0.0]] * 3, [[1e-3, 2e-3]] * 3)
    sweep = [choose(table, [0] * 3), choose(table, [1] * 3, price=float("inf"))]
    body = json.loads(evaluate({"mine": sweep}, table, num_resamples=5).to_json())
    assert [point["price"] for point in body["rows"][0]["curve"]["points"]] == [0.0, None]


def test_the_text_has_the_columns_of_the_table_and_no_colour_off_a_terminal() -> None:
    text = report().to_text()
    assert "\x1b" not in text
    heading = " ".join(text.split("----")[0].split("\u2500")[0].split())
    for word in ("router", "quality", "usd", "saving", "vs best", "oracle"):
        assert word in heading
    for name in report().names:
        assert re.search(rf"^{name} +\d\.\d\d\d \[\d\.\d\d\d, \d\.\d\d\d\]", text, re.MULTILINE), name
    assert "\x1b[" in report().to_text(color=True)


@pytest.mark.parametrize("width", [80, 110, 160])
def test_the_text_keeps_to_its_width_and_cuts_no_number(width: int) -> None:
    text = report().to_text(width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\u2026" not in text


@pytest.mark.parametrize("has_costs", [True, False])
def test_the_page_is_self_contained_and_well_formed(tmp_path: Path, has_costs: bool) -> None:
    path = report(has_costs=has_costs).to_html(tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.links == []
    assert page.tags.count("svg") == 2
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "viewport" in text
    assert "prefers-color-scheme:dark" in text
    assert ("usd per 1,000" in text) is has_costs


def test_names_are_escaped_in_the_page(tmp_path: Path) -> None:
    table = make_table([[1.0, 0.0]] * 3, [[1e-3, 2e-3]] * 3, names=["<b>&", "y"])
    text = (
        evaluate({"<i>": choose(table, [0] * 3)}, table, num_resamples=5)
        .to_html(tmp_path / "r.html")
        .read_text()
    )
    assert "<b>&" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;&amp;" in text


@pytest.mark.parametrize("has_costs", [True, False])
def test_the_picture_is_a_png_of_some_size(tmp_path: Path, has_costs: bool) -> None:
    path = report(has_costs=has_costs).to_png(tmp_path / "report.png")
    data = path.read_bytes()
    assert data.startswith(PNG)
    assert int.from_bytes(data[16:20], "big") >= 1200
    assert len(data) > 20_000


def test_the_scene_shows_everything_once_and_a_wide_range_on_a_log_axis() -> None:
    scene = make_scene(report())
    assert scene is not None
    labels = [mark.label for mark in scene.marks]
    # Where baselines coincide their names share a mark, and the best single model is not drawn twice.
    names = " = ".join(labels).replace("best single: ", "best single = ").split(" = ")
    assert sorted(names) == sorted(["router", "knn", *ORDER, "m0", "m1", "m2", "m3", "m4"])
    assert scene.x.is_log
    assert all(0 <= scene.x.share(mark.x) <= 1 for mark in scene.marks)
    assert all(0 <= scene.y.share(end) <= 1 for mark in scene.marks for end in (mark.low, mark.high))
    (line,) = scene.lines
    assert list(line.xs) == sorted(line.xs)
    assert list(line.ys) == sorted(line.ys)


def test_marks_at_one_place_are_one_mark_with_both_names() -> None:
    table = random_table(60, 3, seed=3)
    found = evaluate({"mine": choose(table, [2] * 60)}, table, num_resamples=5)
    scene = make_scene(found)
    assert found.best_single == "m2"
    assert scene is not None
    labels = [mark.label for mark in scene.marks]
    assert any(label.startswith("mine = best single: m2") for label in labels)
    assert not any(label.startswith("best single") for label in labels)


def test_a_free_model_has_a_place_on_a_log_axis(tmp_path: Path) -> None:
    table = make_table([[0.5, 0.6, 1.0]] * 4, [[0.0, 1e-4, 9e-3]] * 4)
    found = evaluate({"mine": choose(table, [0, 1, 2, 2])}, table, num_resamples=5)
    scene = make_scene(found)
    assert scene is not None
    assert "m0 (free)" in [mark.label for mark in scene.marks]
    found.to_png(tmp_path / "free.png")
    found.to_html(tmp_path / "free.html")


@pytest.mark.parametrize("cost", [0.0, 1e-3])
def test_one_candidate_at_one_cost_can_be_drawn(tmp_path: Path, cost: float) -> None:
    table = make_table([[1.0]] * 3, [[cost]] * 3)
    found = evaluate({"mine": choose(table, [0] * 3)}, table, num_resamples=5)
    found.to_png(tmp_path / "one.png")
    found.to_html(tmp_path / "one.html")
    assert found["mine"].vs_best_single.value == 0.0


def test_without_costs_the_picture_lists_by_quality() -> None:
    shown = bars(report(has_costs=False))
    assert shown[0].label == "oracle"
    assert [bar.value for bar in shown] == sorted((bar.value for bar in shown), reverse=True)


def test_a_row_that_does_not_exist_is_named() -> None:
    with pytest.raises(LookupError, match="router"):
        report()["roter"]


def test_long_names_lose_their_provider_and_their_middle() -> None:
    assert short("mistralai/Mixtral-8x7B") == "Mixtral-8x7B"
    cut = short("a" * 20 + "b" * 20)
    assert len(cut) <= 30
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")


def test_a_mean_of_values_that_stand_in_stays_within_what_a_quality_can_be() -> None:
    """Doubly robust values of single cells lie beyond 1, and so did intervals of their means."""
    table = make_table(np.ones((300, 2)), 0.01)
    beyond_QM = np.random.default_rng(0).normal(1.0, 0.4, (300, 2))
    cells = Cells(
        quality_QM=beyond_QM,
        cost_usd_QM=table.cost_usd_QM,
        hindsight_QM=table.quality_QM,
        hindsight_usd_QM=table.cost_usd_QM,
    )
    runs = {"first": choose(table, [0] * 300)}
    row = evaluate(runs, table, num_resamples=200, cells=cells)["first"].quality
    spread = 0.4 / 300**0.5
    assert row.value == pytest.approx(beyond_QM[:, 0].mean())
    assert row.low == pytest.approx(row.value - 2 * spread, abs=spread)
    assert row.value + 2 * spread > 1.0
    assert row.high == 1.0
    cells = replace(cells, quality_QM=beyond_QM + 1.0)
    assert evaluate(runs, table, num_resamples=50, cells=cells)["first"].quality == Value(1.0, 1.0, 1.0)


def test_the_oracle_is_not_said_to_save_at_equal_quality() -> None:
    """It buys the best quality, so that a router may save more: a number beside its would mislead."""
    table = make_table([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5]] * 40, [[2.0, 5.0, 1.0], [5.0, 9.0, 1.0]] * 40)
    found = evaluate({"first": choose(table, [0] * 80)}, table, num_resamples=20)
    assert found["oracle"].saving is None
    assert found["first"].saving is not None
    assert found["random"].saving is not None
    line = next(line for line in found.to_text(width=200).splitlines() if line.strip().startswith("oracle"))
    assert "None" not in found.to_text(width=200)
    assert " - " in line
    found.to_html(Path("/dev/null"))
