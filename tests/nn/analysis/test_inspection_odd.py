"""Recordings and tables at the edge of what is allowed: each is shown, or refused in one sentence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.figure import Figure

from turnout.cli.main import main
from turnout.cli.nn import file_names
from turnout.core.errors import InputError, ShapeError, TableError
from turnout.nn.analysis import pictures
from turnout.nn.analysis.counts import MOST_EXPERTS, read_counts
from turnout.nn.analysis.inspection import Inspection, inspect_counts, inspect_recording
from turnout.nn.analysis.page import render
from turnout.nn.analysis.recording import Recording, chosen_of

ROW = {"model": "m", "domain": "a", "layer": 0, "expert": 1, "count": 5}


def inspected(recording: Recording, **options) -> Inspection:
    return inspect_recording(recording, name="x", rng=np.random.default_rng(0), **options)


def routed(*experts: int, k: int = 2, rows: int = 6, length: int = 32) -> Recording:
    """Layers of these numbers of experts, whose routing knows of nothing."""
    probs = tuple(torch.randn(rows, length, e).softmax(dim=-1) for e in experts)
    chosen = tuple(chosen_of(p.topk(min(k, p.shape[2]))[1], p.shape[2]) for p in probs)
    ids = torch.randint(0, 10, (rows, length))
    return Recording(chosen=chosen, probs=probs, token_ids_BS=ids, domains=tuple("abcdef"[:rows]))


def counts(folder: Path, *rows: dict) -> Path:
    pq.write_table(pa.Table.from_pylist([ROW | row for row in rows]), folder / "counts.parquet")
    return folder / "counts.parquet"


@pytest.mark.parametrize("name", ["allenai/OLMoE-1B-7B", "../../evil", "", "..", "C:\\x", "a" * 300])
def test_any_name_of_a_model_is_a_file_inside_the_folder(tmp_path: Path, name: str, capsys) -> None:
    out = tmp_path / "one" / "two" / "out"
    file = counts(tmp_path, {"model": name})
    assert main(["nn", "inspect", str(file), "--out", str(out), "--json"]) == 0
    assert len(list(out.glob("*.png"))) == 1
    assert not list(tmp_path.glob("*.png"))
    assert sorted(path.name for path in tmp_path.rglob("*.*"))[-2:] == ["report.html", "report.json"]


def test_names_of_files_are_readable_and_differ() -> None:
    assert file_names(["allenai/OLMoE-1B-7B", "mistralai/Mixtral_8x7B.v1"]) == [
        "allenai-OLMoE-1B-7B",
        "mistralai-Mixtral_8x7B.v1",
    ]
    assert file_names(["a/b", "a:b", "A-B", "..", ""]) == ["a-b", "a-b-2", "A-B-3", "model", "model-2"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"domain": None}, "column domain, row 2; allowed: text or whole numbers; got: None"),
        (
            {"expert": None},
            f"column expert, row 2; .* from 0 to {MOST_EXPERTS - 1}; got: None",
        ),
        ({"expert": 2_000_000_000}, "column expert, row 2; .*got: 2000000000"),
        ({"expert": -1}, "column expert, row 2; .*got: -1"),
        ({"count": -1}, "column count, row 2; allowed: finite numbers from 0 on; got: -1"),
        ({"layer": None}, "column layer, row 2"),
        ({"model": None}, "column model, row 2"),
    ],
)
def test_a_cell_that_is_none_is_named_with_its_row(tmp_path: Path, row: dict, said: str, capsys) -> None:
    file = counts(tmp_path, {}, row)
    with pytest.raises(TableError, match=said):
        read_counts(file)
    assert main(["nn", "inspect", str(file), "--out", str(tmp_path / "out")]) == 1
    assert f"column {next(iter(row))}, row 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "column", [{"expert": [0.5, 1.0]}, {"count": [1.5, math.nan]}, {"domain": [[1], [2]]}]
)
def test_columns_of_another_kind_are_refused(tmp_path: Path, column: dict) -> None:
    table = {name: [value] * 2 for name, value in ROW.items()} | column
    pq.write_table(pa.table(table), tmp_path / "counts.parquet")
    with pytest.raises(TableError, match=f"column {next(iter(column))}"):
        read_counts(tmp_path / "counts.parquet")


def test_layers_of_counts_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rows = [{"layer": layer} for layer in ("10", "head", "9", "0")]
    assert list(read_counts(counts(tmp_path, *rows))["m"]) == ["0", "9", "10", "head"]


def test_layers_in_which_nobody_is_routed_are_drawn(tmp_path: Path) -> None:
    none = torch.zeros(2, 8, 4, dtype=torch.bool)
    even = torch.full((2, 8, 4), 0.25)
    nobody = Recording(
        chosen=(none, none),
        probs=(even, even),
        domains=("a", "b"),
        token_ids_BS=torch.zeros(2, 8, dtype=torch.long),
    )
    file = nobody.save(tmp_path / "nobody.safetensors")
    assert main(["nn", "inspect", str(file), "--out", str(tmp_path / "out")]) == 0
    assert inspected(nobody).summary() == "2 layers of 4 experts; none of them got a token."


@pytest.mark.parametrize("name", ["$\\frac$", "US$ and $x", "a$\\frac", "", "$", "\\$x$", "a\nb"])
def test_a_dollar_in_a_name_begins_no_formula(name: str) -> None:
    plain = routed(4, 4, rows=2)
    found = inspected(Recording(chosen=plain.chosen, domains=(name, "b"), layers=(name, "second")))
    assert "data:image/png" in render([found], source="x")
    figure = Figure()
    pictures._draw_domains(figure, figure.subplots(), found)
    shown = {label.get_text().replace("\\$", "$") for label in figure.axes[0].get_yticklabels()}
    assert shown == {name, "b"}


def test_layers_may_differ_in_experts_and_in_how_many_a_token_has() -> None:
    one, two = routed(8, k=4), routed(2, k=1)
    single = Recording(chosen=(torch.ones(6, 32, 1, dtype=torch.bool),), probs=(torch.ones(6, 32, 1),))
    found = inspected(
        Recording(
            chosen=one.chosen + two.chosen + single.chosen,
            probs=one.probs + two.probs + single.probs,
            token_ids_BS=one.token_ids_BS,
            domains=tuple("aabbcc"),
        )
    )
    assert {len(table.rows) % 3 for table in found.tables} == {0}
    sure = found.table("Sureness of gates")
    assert sure is not None
    assert all(math.isnan(float(value)) for value in sure.rows[2][1:])
    assert not any(math.isnan(float(value)) for row in sure.rows[:2] for value in row[1:])
    # The committee of each layer is asked with the layer's own k.
    committee = found.table("Standing committee")
    alone = inspected(Recording(chosen=two.chosen, probs=two.probs, domains=tuple("aabbcc")))
    expected = alone.table("Standing committee")
    assert committee is not None
    assert expected is not None
    assert committee.rows[1][1:] == expected.rows[0][1:]
    assert "data:image/png" in render([found], source="x")


def test_layers_have_as_many_names_as_they_are_and_no_name_twice() -> None:
    chosen = routed(4, 4).chosen
    with pytest.raises(ShapeError, match="Recording: layers; allowed: 2 names; got: 1"):
        Recording(chosen=chosen, layers=("a",))
    with pytest.raises(InputError, match="names that differ; got: 'a, a'"):
        Recording(chosen=chosen, layers=("a", "a"))


def test_many_domains_are_named_apart_and_dead_experts_are_not_coloured() -> None:
    chosen = torch.zeros(40, 64, 6, dtype=torch.bool)
    chosen[:20, :, 0], chosen[20:, :, 1] = True, True
    # Expert 2 has one token, in one domain; 3 to 5 have none.
    chosen[7, 3, 2] = True
    names = tuple(f"a rather long name of a domain, number {i}" for i in range(40))
    found = inspected(Recording(chosen=(chosen,), domains=names))
    figure = Figure()
    pictures._draw_domains(figure, figure.subplots(), found)
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert 2 <= len(labels) <= pictures.TICKS
    assert max(map(len, labels)) <= pictures.LETTERS
    assert len(set(labels)) == len(labels)
    drawn = axes.images[0].get_array()
    assert drawn is not None
    shown = np.ma.filled(drawn, np.nan)
    assert np.isnan(shown[:, 2:]).all()
    assert not np.isnan(shown[:, :2]).any()
    assert np.nanmax(shown) == pytest.approx(1.0, abs=0.01)
    table = found.table("Specialisation by domain")
    assert table is not None
    assert table.column("lift") == pytest.approx([2.0], rel=0.01)


def test_tokens_that_decide_nothing_are_no_more_than_chance() -> None:
    found = inspected(routed(16, 16)).table("Specialisation by token")
    assert found is not None
    for _, share, chance, even in found.rows:
        assert float(share) == pytest.approx(float(chance), abs=0.03)
        assert float(share) > 1.3 * float(even)


def test_of_tokens_that_occur_too_rarely_nothing_is_said() -> None:
    plain = routed(4, 4)
    rare = Recording(chosen=plain.chosen, token_ids_BS=torch.arange(6 * 32).view(6, 32) // 7)
    found = inspected(rare).table("Specialisation by token")
    assert found is not None
    unknown = [[math.isnan(float(value)) for value in row[1:]] for row in found.rows]
    assert unknown == [[True, True, False]] * 2
    assert "data:image/png" in render([inspected(rare)], source="x")


def test_the_width_of_the_cache_is_the_one_asked_for(tmp_path: Path, capsys) -> None:
    recording = routed(16)
    small, large = (inspected(recording, rho=rho).table("Local routing consistency") for rho in (1.0, 4.0))
    assert small is not None
    assert large is not None
    assert all(float(a) < float(b) for a, b in zip(small.column("sch"), large.column("sch"), strict=True))
    file = recording.save(tmp_path / "r.safetensors")
    assert main(["nn", "inspect", str(file), "--out", str(tmp_path / "o"), "--rho", "4"]) == 0
    assert "cache of 4 k" in capsys.readouterr().out


def test_layers_of_one_choice_are_saved(tmp_path: Path) -> None:
    shared = routed(4).chosen[0]
    file = Recording(chosen=(shared, shared)).save(tmp_path / "r.safetensors")
    assert all(torch.equal(one, shared) for one in Recording.load(file).chosen)


def test_the_summary_of_experts_that_are_all_used() -> None:
    found = inspect_counts({"m": {"0": {"a": torch.ones(1)}}})[0]
    assert found.summary().startswith("1 layer of 1 expert; each got a token. Least even is 0")
