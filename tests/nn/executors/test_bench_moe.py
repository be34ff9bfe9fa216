"""The benchmark of executors goes on where it was stopped, and its table says what was not reached."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import pytest
import torch

from benchmarks import bench_moe, bench_moe_gpu, moe_gpu_table, moe_table, packed_table
from benchmarks.record import RESULTS
from turnout.nn.flops import executed_flops

ROW = {
    "experts": 16, "k": 2, "tokens": 4096, "dtype": "float32", "skewed": False, "backward": False,
    "commit": "c", "best_backend": "eager", "over_best_backend": {"value": 0.9, "low": 0.8, "high": 1.1},
    "over_floor": {"value": 1.1, "low": 1.0, "high": 1.2},
    "over_fast_floor": {"value": 1.3, "low": 1.0, "high": 2.0},
    "products_over_floor": {"value": 1.05, "low": 1.0, "high": 2.0},
    "over_products": {"value": 1.04, "low": 1.0, "high": 2.0},
}  # fmt: skip


@pytest.fixture
def options(monkeypatch, tmp_path) -> Iterator[argparse.Namespace]:
    """Leave two settings of small experts."""
    monkeypatch.setattr(bench_moe, "WIDTH", 16)
    monkeypatch.setattr(bench_moe, "INNER", 16)
    monkeypatch.setattr(bench_moe, "CACHE_NUMBERS", 8)
    bench_moe.experts_of.cache_clear()
    yield argparse.Namespace(
        folder=tmp_path, cell_s=0.0, experts=[16], k=[2], tokens=[1], dtype=["float32"], write=False
    )
    bench_moe.experts_of.cache_clear()


def test_what_stands_in_the_folder_is_not_measured_again(options, capsys) -> None:
    bench_moe.measure_missing(options)
    names = ["16x2_1_float32_even_backward", "16x2_1_float32_even_forward"]
    assert sorted(path.stem for path in options.folder.iterdir()) == names
    row = json.loads((options.folder / f"{names[0]}.json").read_text())
    assert row["backward"]
    assert row["rounds"] >= 3
    assert row["largest_difference"] < 1e-4
    assert set(row["over_backend"]) == {"eager", "grouped_mm", "batched_mm"}
    (options.folder / f"{names[0]}.json").unlink()
    (options.folder / f"{names[1]}.json").write_text("kept")
    bench_moe.measure_missing(options)
    assert "1 of 2 settings are missing" in capsys.readouterr().out
    assert (options.folder / f"{names[1]}.json").read_text() == "kept"
    assert json.loads((options.folder / f"{names[0]}.json").read_text())["backward"]


def test_the_table_marks_what_is_slower_or_above_the_floor(monkeypatch, tmp_path) -> None:
    slow = {**ROW, "over_best_backend": {"value": 1.1, "low": 1.05, "high": 1.2}}
    high = {**ROW, "over_floor": {"value": 1.2, "low": 1.1, "high": 1.3}}
    few = {**high, "tokens": 16}
    bare = {**high, "products_over_floor": {"value": 1.17, "low": 1.1, "high": 1.3}}
    notes = tmp_path / "NOTES.md"
    notes.write_text(f"before\n{moe_table.BEGIN}\nold\n{moe_table.END}\nafter\n")
    monkeypatch.setattr(moe_table, "NOTES", notes)
    moe_table.write([ROW, slow, high, few, bare])
    text = notes.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    lines = [line for line in text.splitlines() if line.startswith("| 16, 2")]
    assert [line.split("|")[-2].strip() for line in lines] == ["", "slower", "above 1.15", "", "above 1.15"]
    assert [line.split("|")[-4].strip() for line in lines][-2:] == ["1.05", "1.17"]
    told = " ".join(text.split())
    assert "beyond the interval: 1. Above 1.15 of the floor at 4,096 tokens: 2 of 4," in told
    assert "in 1 of these the products alone are." in told


@pytest.mark.parametrize("backward", [False, True])
def test_products_and_floor_are_the_operations_of_the_layer(options, backward) -> None:
    experts = bench_moe.experts_of(16, torch.float32)
    weights_TK, indices_TK = bench_moe.choices(33, 16, 2, skewed=True)
    x_TD = torch.randn(33, 16, requires_grad=backward)
    run = bench_moe.runners(experts, x_TD, weights_TK, indices_TK)[bench_moe.OURS]

    def layer() -> None:
        with torch.set_grad_enabled(backward):
            y_TD = run()
        if backward:
            y_TD.sum().backward()

    _, flops = executed_flops(layer)
    experts.zero_grad()
    bare = [bench_moe.products(experts, indices_TK, backward=backward)]
    bare += bench_moe.floors(66, torch.float32, backward=backward).values()
    with torch.no_grad():
        assert [executed_flops(one)[1] for one in bare] == [flops] * 3


def test_the_table_of_a_gpu_says_who_is_ahead(tmp_path) -> None:
    ratio = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {
        "shape": "olmoe", "tokens": 4096, "backward": True, "ms": {"turnout": 1.0, "scattermoe": 2.0},
        "share_of_roofline": {"turnout": 0.6, "scattermoe": 0.3}, "ours_over": {"scattermoe": ratio},
    }  # fmt: skip
    slow = row | {"shape": "qwen3", "skewed": True, "ours_over": {"scattermoe": ratio | {"low": 1.1}}}
    peak = {"tflops": 700.4, "tb_per_s": 4.21}
    body = {
        "commit": "abc",
        "result": {"rows": [row, slow], "device": "a GPU", "peak": peak, "versions": {}},
    }
    said = moe_gpu_table.told(body)
    assert "| OLMoE-1B-7B | 4,096 | even | forward, backward | 1.00 | 0.60 | 0.50 (0.40 to 0.60) |" in said
    assert "| Qwen3-30B-A3B | 4,096 | skewed | forward, backward | 1.00" in said
    assert "Of 2 ratios to others 1 are above 1" in said
    settings = [
        row | {"shape": shape, "tokens": tokens, "backward": backward}
        for shape in moe_gpu_table.SHAPES
        for tokens in (4096, 8192)
        for backward in (False, True)
    ]
    moe_gpu_table.draw(settings, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_the_notes_hold_what_the_records_say() -> None:
    text = moe_table.NOTES.read_text(encoding="utf-8")
    record = {
        name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("moe", "moe_gpu", "packed")
    }
    assert moe_table.written(text, record["moe"]["result"]["rows"]) == text
    assert moe_gpu_table.written(text, record["moe_gpu"]) == text
    assert packed_table.written(text, record["packed"]["result"]["rows"]) == text


@pytest.mark.parametrize("shape", ["olmoe", "gpt_oss", "olmoe_gelu"])
def test_everybody_on_a_gpu_computes_the_same_layer(monkeypatch, shape) -> None:
    sizes = {shape: (64, 32, 6, 2)}
    monkeypatch.setattr(bench_moe_gpu, "SHAPES", sizes if shape == "olmoe" else {})
    monkeypatch.setattr(bench_moe_gpu, "OTHERS", {} if shape == "olmoe" else sizes)
    monkeypatch.setattr(bench_moe_gpu, "DEVICE", "cpu")
    for name in ("EXECUTORS", "FEW", "OF_OTHERS"):
        own = [one for one in getattr(bench_moe_gpu, name) if one != "triton"]
        monkeypatch.setattr(bench_moe_gpu, name, own)
    setting = bench_moe_gpu.Setting(shape, 37, skewed=True, backward=True)
    far = setting.errors()
    assert {"transformers grouped_mm", "turnout"} < set(far)
    if shape != "olmoe":
        assert "turnout grouped without kernels" in far
    assert max(far.values()) < 2e-2
    assert all(parameter.grad is None for parameter in setting.experts.parameters())


def test_the_table_of_other_experts_stands_between_its_marks(monkeypatch, tmp_path) -> None:
    ratio = {"value": 0.9, "low": 0.8, "high": 1.0}
    row = {
        "shape": "gpt_oss", "tokens": 4096, "backward": False, "ms": {"turnout": 1.0},
        "share_of_roofline": {"turnout": 0.6},
        "ours_over": {"transformers grouped_mm": ratio, "turnout triton": ratio | {"low": 1.1}},
    }  # fmt: skip
    peak = {"tflops": 700.4, "tb_per_s": 4.21}
    result = {"rows": [row], "device": "a GPU", "peak": peak, "versions": {}}
    records = {"moe_gpu_others": result, "moe_gpu": result | {"rows": [row | {"shape": "olmoe"}]}}
    notes = tmp_path / "NOTES.md"
    notes.write_text("\n".join([*moe_gpu_table.MARKS, "middle", *moe_gpu_table.MARKS_OF_OTHERS, "last\n"]))
    monkeypatch.setattr(moe_gpu_table, "NOTES", notes)
    monkeypatch.setattr(moe_gpu_table, "RESULTS", tmp_path)
    monkeypatch.setattr(moe_gpu_table, "draw", lambda *_: None)
    for name in ("moe_gpu", "moe_gpu_others"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"commit": "abc", "result": records[name]}))
        moe_gpu_table.main()
        assert ("gpt-oss-20b" in notes.read_text()) == (name == "moe_gpu_others")
    text = notes.read_text()
    assert text.index("| OLMoE-1B-7B |") < text.index("middle") < text.index("| gpt-oss-20b | 4,096 |")
    # Another way of ours is no rival.
    assert text.count("Of 1 ratios to others 0 are above 1") == 2
