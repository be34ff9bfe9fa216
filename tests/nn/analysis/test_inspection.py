from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.figure import Figure

from tests.nn.moe_models import decisive, tokens
from turnout.cli.main import main
from turnout.core.errors import TableError
from turnout.nn.analysis import pictures
from turnout.nn.analysis.counts import read_counts
from turnout.nn.analysis.inspection import inspect_counts, inspect_recording
from turnout.nn.analysis.pictures import draw
from turnout.nn.analysis.recording import Recording, record_model
from turnout.nn.analysis.table import Table, show

PNG = b"\x89PNG"


def recorded(**changes) -> Recording:
    return record_model(decisive("olmoe"), [tokens(batch=6, length=32)], domains=list("aabbcc"), **changes)


def counts_file(folder: Path) -> Path:
    rows = [
        {"model": model, "domain": domain, "layer": layer, "expert": expert, "count": 10 * expert + layer}
        for model in ("m", "n")
        for domain in ("code", "prose")
        for layer in (0, 7)
        for expert in range(4)
        if (domain, expert) != ("code", 0)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "counts.parquet")
    return folder / "counts.parquet"


def test_a_recording_answers_everything() -> None:
    found = inspect_recording(recorded(), name="olmoe", rng=np.random.default_rng(0))
    assert [table.title for table in found.tables] == [
        "Load of experts",
        "Sureness of gates",
        "Specialisation by domain",
        "Standing committee",
        "Specialisation by token",
        "Local routing consistency",
    ]
    assert all(len(table.rows) >= 3 for table in found.tables)
    assert draw(found).startswith(PNG)


def test_what_is_not_known_is_left_out() -> None:
    bare = Recording(chosen=recorded().chosen)
    found = inspect_recording(bare, name="bare", rng=np.random.default_rng(0))
    assert [table.title for table in found.tables] == ["Load of experts", "Local routing consistency"]
    assert draw(found).startswith(PNG)


def joined(junk: torch.Tensor, plain: torch.Tensor, *, is_left: bool) -> torch.Tensor:
    return torch.cat([junk, plain] if is_left else [plain, junk], dim=1)


@pytest.mark.parametrize("is_left", [False, True])
def test_padding_changes_no_table(is_left) -> None:
    plain = recorded()
    assert plain.token_ids_BS is not None
    ones, zeros = torch.ones(6, 5, 8, dtype=torch.bool), torch.zeros(6, 5)
    padded = Recording(
        chosen=tuple(joined(ones, chosen, is_left=is_left) for chosen in plain.chosen),
        probs=tuple(joined(torch.rand(6, 5, 8), probs, is_left=is_left) for probs in plain.probs),
        token_ids_BS=joined(zeros.long(), plain.token_ids_BS, is_left=is_left),
        mask_BS=joined(zeros.bool(), torch.ones(6, 32, dtype=torch.bool), is_left=is_left),
        domains=plain.domains,
        layers=plain.layers,
    )
    one = inspect_recording(plain, name="x", rng=np.random.default_rng(0))
    other = inspect_recording(padded, name="x", rng=np.random.default_rng(0))
    assert one.to_text() == other.to_text()


def test_a_layer_without_tokens_and_a_row_of_padding_are_shown_as_such(tmp_path: Path, capsys) -> None:
    plain = recorded()
    mask_BS = torch.ones(6, 32, dtype=torch.bool)
    mask_BS[3] = False
    empty = replace(plain, chosen=(torch.zeros_like(plain.chosen[0]), *plain.chosen[1:]), mask_BS=mask_BS)
    found = inspect_recording(empty, name="x", rng=np.random.default_rng(0))
    assert "8 of them got no token. Least even is model.layers." in found.summary()
    for title in ("Specialisation by domain", "Local routing consistency"):
        table = found.table(title)
        assert table is not None
        assert {row[0] for row in table.rows if math.isnan(float(row[-1]))} == {plain.layers[0]}
    without = [0, 1, 2, 4, 5]
    kept = Recording(
        chosen=tuple(chosen[without] for chosen in empty.chosen),
        probs=tuple(probs[without] for probs in plain.probs),
        token_ids_BS=None if plain.token_ids_BS is None else plain.token_ids_BS[without],
        domains=tuple("aabcc"),
        layers=plain.layers,
    )
    assert found.to_text() == inspect_recording(kept, name="x", rng=np.random.default_rng(0)).to_text()
    file = empty.save(tmp_path / "empty.safetensors")
    assert main(["nn", "inspect", str(file), "--out", str(tmp_path / "out")]) == 0
    nobody = Recording(chosen=(torch.zeros(1, 4, 3, dtype=torch.bool),))
    said = inspect_recording(nobody, name="x", rng=np.random.default_rng(0)).summary()
    assert said == "1 layer of 3 experts; none of them got a token."


def test_rows_of_several_lengths_are_cut_to_the_shortest() -> None:
    plain = recorded()
    mask_BS = torch.ones(6, 32, dtype=torch.bool)
    mask_BS[0, :8], mask_BS[1, 20:] = False, False
    rows = [chosen.clone() for chosen in plain.chosen]
    found = inspect_recording(
        Recording(chosen=plain.chosen, mask_BS=mask_BS), name="x", rng=np.random.default_rng(0)
    )
    for chosen in rows:
        chosen[0, :20] = chosen[0, 8:28].clone()
    cut = Recording(chosen=tuple(chosen[:, :20] for chosen in rows))
    expected = inspect_recording(cut, name="x", rng=np.random.default_rng(0))
    title = "Local routing consistency"
    assert found.table(title) == expected.table(title)


def test_counts_are_read_and_a_missing_row_is_none(tmp_path: Path) -> None:
    counts = read_counts(counts_file(tmp_path))
    assert counts["m"]["7"]["code"].tolist() == [0.0, 17.0, 27.0, 37.0]
    found = inspect_counts(counts)
    assert [one.name for one in found] == ["m", "n"]
    assert [table.title for table in found[0].tables] == ["Load of experts", "Specialisation by domain"]


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(TableError, match="rows of model, domain, layer, expert, count"):
        read_counts(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(TableError, match="a parquet file"):
        read_counts(tmp_path / "b.parquet")


def test_the_command_writes_one_page_with_its_pictures_inside(tmp_path: Path, capsys) -> None:
    file = recorded().save(tmp_path / "small.safetensors")
    assert main(["nn", "inspect", str(file), "--out", str(tmp_path / "out")]) == 0
    assert "Local routing consistency" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "http" not in page
    assert (tmp_path / "out" / "small.png").read_bytes().startswith(PNG)
    body = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert body[0]["tables"][0]["rows"][0]["num_experts"] == 8


def test_the_command_reads_counts_as_json(tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "out")
    assert main(["nn", "inspect", str(counts_file(tmp_path)), "--out", out, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in body["models"]] == ["m", "n"]


def test_the_command_refuses_in_one_sentence(tmp_path: Path, capsys) -> None:
    assert main(["nn", "inspect", str(tmp_path / "none.parquet")]) == 1
    assert "a file that exists" in capsys.readouterr().err


def test_a_table_shows_what_it_holds() -> None:
    table = Table(title="T", columns=("a", "b"), rows=(("x", 1234), ("y", float("nan"))), note="n")
    assert table.to_text() == "T\na      b\nx  1,234\ny      -\nn"
    assert table.column("b")[0] == 1234
    assert [show(v) for v in (0.5, 1e-9, 0.0, 12345.6)] == ["0.500", "1e-09", "0.000", "1.23e+04"]
    assert [show(v) for v in (2091234.0, 1e300, 7.0)] == ["2,091,234", "1e+300", "7.000"]


def test_the_summary_names_the_least_even_layer_and_the_dead() -> None:
    even_TE = torch.eye(4, dtype=torch.bool).repeat(3, 1)[None]
    skewed_TE = even_TE.clone()
    skewed_TE[0, :, 2] = False
    skewed_TE[0, :, 1] |= ~skewed_TE[0].any(dim=-1)
    found = inspect_recording(
        Recording(chosen=(even_TE, skewed_TE), layers=("l.0", "l.1")), name="x", rng=np.random.default_rng(0)
    )
    assert found.summary() == (
        "2 layers of 4 experts; 1 of them got no token. "
        "Least even is l.1: its busiest expert has 2.0 times the mean."
    )
    assert found.summary() in found.to_text()


def test_many_layers_are_drawn_without_a_legend_over_the_lines() -> None:
    chosen = tuple(torch.rand(2, 16, 4) > 0.5 for _ in range(20))
    found = inspect_recording(Recording(chosen=chosen), name="deep", rng=np.random.default_rng(0))
    lines, loads = Figure(), Figure()
    axes = lines.subplots()
    pictures._draw_consistency(lines, axes, found)
    assert axes.get_legend() is None
    assert len(lines.axes) == 2
    axes = loads.subplots()
    pictures._draw_load(loads, axes, found)
    assert len(axes.get_yticks()) <= pictures.TICKS
