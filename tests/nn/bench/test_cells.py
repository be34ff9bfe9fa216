"""The comparison is fair: what gates do not touch is the same, and they cost the same."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn import TABLE, registry
from turnout.nn.balance.coupling import coupling_loss
from turnout.nn.bench.cells import Cell, load, run_cell
from turnout.nn.bench.contenders import CONTENDERS, LEFT_OUT, find_contender
from turnout.nn.bench.corpus import Corpus, load_corpus, made_text
from turnout.nn.bench.fight import fight
from turnout.nn.bench.model import Size
from turnout.nn.bench.setting import SETTINGS, Setting
from turnout.nn.gates.contract import Gate
from turnout.nn.mixture import MoE

TINY = Setting(
    name="tiny",
    size=Size(width=16, heads=2, layers=2, inner=32, experts=4, positions=16),
    batch=4,
    steps=10,
    rate=1e-2,
    seeds=2,
    contenders=("dense", "top_k"),
    judged=8,
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def cell(name: str, corpus: Corpus, *, seed: int = 0) -> Cell:
    return Cell(TINY, find_contender(name), seed, corpus, torch.device("cpu"))


@pytest.mark.parametrize("name", list(CONTENDERS))
def test_every_contender_trains_and_is_measured(name: str, corpus: Corpus) -> None:
    found = run_cell(TINY, name, 0, corpus)
    assert found["loss"] < 5.6
    assert found["tokens_per_s"] > 0
    assert ("max_vio" in found) == (name != "dense")


FREE = ("dense", "block_ffn", "dynamoe", "attention_k")
"""What is free in how many experts it takes: its aim is counted, and what it spent is shown."""


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name not in FREE])
def test_experts_cost_what_the_dense_feed_forward_costs(name: str, corpus: Corpus) -> None:
    dense, other = cell("dense", corpus).feed_flops(), cell(name, corpus)
    other.model.eval()
    # Gates themselves: 2 D E of 6 D I operations; soft slots also mix and unmix, and this model is tiny.
    own = {"soft": 3.0, "null_experts": 1.35, "smear": 1.9, "recurrent": 1.8, "hyper": 2.5, "stable": 1.5}
    own |= {"speech": 1.5, "vq": 1.5, "input_domain": 1.5, "rex": 1.25}
    own |= dict.fromkeys(
        ("mixture_of_routers", "expert_attention", "upcycled", "similarity_aware", "attention_aware"), 1.5
    )
    assert 0.85 < other.feed_flops() / dense < own.get(name, 1.15)


def test_every_gate_takes_part_or_is_named_with_its_reason() -> None:
    # Gates of other packages that are installed here are none of the project's.
    gates = {name for name in TABLE if issubclass(registry.get(name), Gate)}
    assert gates - {entry.gate for entry in CONTENDERS.values()} == set(LEFT_OUT)


RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"

UNRECORDED = {
    "sparse_transport_choice": "came after gates_all.json; each step solves a transport problem",
}
"""Contenders without a row in a result, and why."""


def test_every_contender_has_a_row_in_a_result_or_is_named_with_its_reason() -> None:
    recorded: set[str] = set()
    for path in RESULTS.glob("gates*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))["result"]
        assert result["key"] == SETTINGS["small"].key, "rows of other sizes are not to be compared"
        recorded |= {row["gate"] for row in result["rows"] if row["seeds"] >= 3}
    assert set(CONTENDERS) - recorded <= set(UNRECORDED)
    assert set(UNRECORDED) <= set(CONTENDERS)


@pytest.mark.parametrize("name", ["dense", "top_k"])
@pytest.mark.parametrize("where", ["loss", "weights"])
def test_training_that_leaves_the_numbers_ends_there_and_says_so(
    name: str, where: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = cell(name, corpus)
    before, draws = lost._draw, 0

    def draw() -> torch.Tensor:
        nonlocal draws
        draws += 1
        if draws == 3:
            parameter = next(lost.model.parameters()) if where == "weights" else lost.model.norm.weight
            parameter.data.fill_(float("nan"))
        return before()

    monkeypatch.setattr(lost, "_draw", draw)
    found = lost.run()
    assert draws == 3
    assert found["diverged_at"] == 3
    assert found["loss"] != found["loss"]
    assert "tokens_per_s" not in found


def test_neighbours_share_a_pool_and_own_what_others_own(corpus: Corpus) -> None:
    rex, plain = cell("rex", corpus), cell("top_k", corpus)
    experts = [block.feed.experts for block in rex._blocks()]
    assert experts[0] is experts[1]
    own = [sum(p.numel() for p in one.model.parameters() if p.ndim == 3) for one in (rex, plain)]
    assert own[0] == own[1]


def test_a_coupled_gate_ends_nearer_to_its_experts(corpus: Corpus) -> None:
    shares = []
    for name in ("top_k", "coupled"):
        one = cell(name, corpus)
        for _ in one._train():
            pass
        feeds = [block.feed for block in one._blocks()]
        assert all(isinstance(feed, MoE) for feed in feeds)
        pairs = [
            (feed.gate.get_parameter("weight_ED"), feed.experts.get_parameter("up_proj").chunk(2, dim=1)[0])
            for feed in feeds
            if isinstance(feed, MoE)
        ]
        shares.append(sum(float(coupling_loss(*pair, is_noisy=False).detach()) for pair in pairs))
    assert shares[1] < shares[0]


def test_first_weights_and_data_are_the_same_whatever_the_gate(corpus: Corpus) -> None:
    one, other = cell("dense", corpus), cell("null_experts", corpus)
    theirs = dict(other.model.named_parameters())
    shared = [name for name, _ in one.model.named_parameters() if ".feed." not in name]
    assert len(shared) > 8
    assert all(torch.equal(one.model.get_parameter(name), theirs[name]) for name in shared)
    for a, b in zip(one._train(), other._train(), strict=True):
        assert a == b
    assert torch.equal(one._draw(), other._draw())
    assert not torch.equal(cell("dense", corpus, seed=1)._draw(), cell("dense", corpus)._draw())


LOOKING_AHEAD = (
    "expert_choice",
    "transport_choice",
    "sparse_transport_choice",
    "soft",
    "smear",
    "attention_k",
)


def test_a_later_byte_changes_no_earlier_logit_but_for_gates_that_say_so(corpus: Corpus) -> None:
    for name in CONTENDERS:
        model = cell(name, corpus).model.eval()
        ids_BS = torch.randint(256, (2, 12))
        other_BS = ids_BS.clone()
        other_BS[:, 8:] = (other_BS[:, 8:] + 1) % 256
        torch.manual_seed(0)
        here = model(ids_BS)[:, :8]
        torch.manual_seed(0)
        there = model(other_BS)[:, :8]
        looks_ahead = name in LOOKING_AHEAD
        assert torch.allclose(here, there, atol=1e-5) != looks_ahead, name


def test_the_best_fixed_choice_is_one_choice_and_leaves_the_model_as_it_was(corpus: Corpus) -> None:
    one = cell("top_k", corpus)
    for _ in one._train():
        pass
    before = one.loss()
    fixed = one.best_fixed()
    assert one.loss() == before
    assert fixed != before


def test_loads_are_those_of_plans(corpus: Corpus) -> None:
    one = cell("top_k", corpus)
    for block in one._blocks():
        with torch.no_grad():
            block.feed.gate.weight_ED.zero_()  # type: ignore[union-attr,operator]
    one.model.eval()
    # Equal scores: all go to the same two of four, which is one mean too many, and two are dead.
    assert one._loads()["max_vio"] == pytest.approx(1.0)
    assert one._loads()["dead_share"] == pytest.approx(0.5)
    one.model(one.valid_BS[:, :-1])
    assert int(load(one.model.plans[0]).sum()) == 2 * 8 * 16


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    first = fight(TINY, tmp_path, about={"commit": "abc"})
    assert first.trained == 4
    (tmp_path / "top_k-1.json").unlink()
    (tmp_path / "dense-1.json").write_text("{ cut", encoding="utf-8")
    stamp = (tmp_path / "dense-0.json").stat().st_mtime_ns
    steps: list[str] = []
    began = time.monotonic()
    second = fight(TINY, tmp_path, progress=lambda phrase, done, total: steps.append(phrase))
    assert (tmp_path / "dense-0.json").stat().st_mtime_ns == stamp
    assert {phrase.split(" (")[0] for phrase in steps} == {"top_k, seed 1", "dense, seed 1"}
    assert [c["loss"] for c in first.cells] == [c["loss"] for c in second.cells]
    assert second.trained == 2
    assert second.run()["jobs"] == 1
    assert 0 < second.wall_s < time.monotonic() - began
    assert [c.get("commit") for c in second.cells] == ["abc", "abc", None, None]


def test_cells_of_another_setting_or_text_are_not_mixed_in(tmp_path: Path) -> None:
    fight(TINY, tmp_path)
    other = Setting(**{**vars(TINY), "steps": 12})
    with pytest.raises(InputError, match="another setting"):
        fight(other, tmp_path)
    text = tmp_path / "text"
    text.mkdir()
    (text / "own.txt").write_text("ab " * 20_000, encoding="utf-8")
    with pytest.raises(InputError, match="another text"):
        fight(TINY, tmp_path, text=text)


def test_made_text_is_the_same_each_time_and_has_four_kinds() -> None:
    text = made_text(20_000)
    assert text == made_text(20_000)
    assert text != made_text(20_000, seed=1)
    assert all(mark in text for mark in ("Where is the", " + ", "sorted: ", "def "))


def test_what_makes_no_comparison_is_refused(tmp_path: Path) -> None:
    for change, message in (
        ({"seeds": 1}, "at least 2"),
        ({"contenders": ("topk",)}, "top_k"),
        ({"steps": 5}, "10"),
    ):
        with pytest.raises(InputError, match=message):
            Setting(**{**vars(TINY), **change})
    with pytest.raises(InputError, match="10,000 bytes"):
        load_corpus(tmp_path)


def test_choices_are_compared_with_those_at_four_fifths_of_the_steps(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, taken, asked = cell("top_k", corpus), 0, []
    train, choices = one._train, one.choices

    def counted() -> Iterator[int]:
        nonlocal taken
        for step in train():
            taken = step + 1
            yield step

    def noted(*, seed: int) -> list[torch.Tensor]:
        asked.append(taken)
        return choices(seed=seed)

    monkeypatch.setattr(one, "_train", counted)
    monkeypatch.setattr(one, "choices", noted)
    assert one.run()["change_rate"] > 0
    assert asked == [8, 10]
