from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import bench_rewiring_tasks as bench
from benchmarks import record, rewiring_tasks_picture
from benchmarks.rewiring_models import ALPHABET, encode, make_model
from turnout.nn.tiny import IGNORED, Batch, train


@pytest.mark.slow
def test_a_quick_run_measures_every_arm_of_every_kind_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "write", lambda *_, **__: pytest.fail("a quick run is no result"))
    bench.main(["--quick"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*bench.ARMS, "dense", "random, as long as all adam"))
    assert all(kind in printed for kind in ("unshifted", "longer", "rare"))


@pytest.mark.parametrize(
    ("kind", "tasks", "levels"),
    [("unshifted", bench.COMMON, {2, 3, 4}), ("longer", bench.COMMON, {5}), ("rare", bench.RARE, {2, 3, 4})],
)
def test_a_prompt_is_of_its_kind_and_ends_before_the_last_answer(
    kind: str, tasks: tuple[str, ...], levels: set[int]
) -> None:
    setting = dataclasses.replace(bench.QUICK, items=20, lines=3)
    prompts = bench.make_prompts(kind, np.random.default_rng(0), setting)
    assert (prompts.mask_BT.diff(dim=1) >= 0).all()
    for row, mask in zip(prompts.ids_BT.tolist(), prompts.mask_BT.tolist(), strict=True):
        text = "".join(ALPHABET[i - 4] for i, kept in zip(row, mask, strict=True) if kept)
        *solved, last = text.split("\n")
        assert len(solved) == setting.lines - 1
        assert last.endswith("=")
        for line in (*solved, last):
            task, _, inside = line.partition("=")[0].partition(":")
            assert task in tasks
            assert len(inside) in levels


def test_training_documents_hold_rare_tasks_in_their_share() -> None:
    setting = dataclasses.replace(bench.QUICK, rows=200, lines=5, rare_share=0.1)
    batch = bench.training_batch(np.random.default_rng(0), setting)
    text = "".join(ALPHABET[i - 4] for row in batch.input_ids_BT.tolist() for i in row if i >= 4)
    lines = text.strip().split("\n")
    assert len(lines) == 1000
    share = sum(line.startswith(bench.RARE) for line in lines) / len(lines)
    assert 0.07 < share < 0.13


def test_right_answers_are_told_from_wrong_ones_on_the_left_padded_batch() -> None:
    setting = dataclasses.replace(bench.QUICK, rows=4, levels=(1,))
    model = make_model("olmoe", width=16, layers=1, experts=2, seed=0)
    model.config.output_router_logits = False
    asked = bench.make_prompts("unshifted", np.random.default_rng(1), dataclasses.replace(setting, items=6))
    same = dataclasses.replace(asked, answers=("a",) * 6)

    def answers_a() -> Batch:
        # Whatever is asked, the model learns to say "a" and to end the line.
        ending = encode("a\n")
        ids_BT = torch.cat([asked.ids_BT, torch.from_numpy(ending)[None].expand(6, -1)], dim=1)
        mask_BT = torch.cat([asked.mask_BT, torch.ones(6, 2, dtype=torch.long)], dim=1)
        labels_BT = ids_BT.clone()
        labels_BT[:, :-2] = IGNORED
        return Batch(input_ids_BT=ids_BT, attention_mask_BT=mask_BT, labels_BT=labels_BT)

    train(model, answers_a, steps=25, lr=2e-2)
    judged = bench.judge(model, same)
    assert judged["right"].tolist() == [1.0] * 6
    other = bench.judge(model, dataclasses.replace(asked, answers=("b", "aa", "a", "a", "", "ba")))
    assert other["right"].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert (other["loss"][[0, 1, 4, 5]] > judged["loss"][[0, 1, 4, 5]]).all()


def test_changes_are_paired_and_seeds_are_kept_apart(tmp_path) -> None:
    def trial(dense: list[float], rewired: list[float]) -> dict[str, dict[str, np.ndarray]]:
        lines = {"dense": dense, "all adam": rewired}
        return {k: {"right": np.array(v), "loss": 1.0 - np.array(v)} for k, v in lines.items()}

    found = bench.summary([trial([0, 1, 1, 0], [1, 1, 1, 0]), trial([0, 0, 0, 0], [0, 0, 1, 0])])
    line = found["all adam"]
    assert line["right_change"]["value"] == 0.25
    assert line["right_by_seed"] == [0.75, 0.25]
    assert line["loss_change"]["value"] == -0.25
    assert found["dense"]["right_change"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    drawn = rewiring_tasks_picture.draw({"kinds": {"rare": found}}, tmp_path / "tasks.png")
    assert drawn.stat().st_size > 1000
