from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.recording import chosen_of
from turnout.nn.analysis.specialisation import (
    co_activation,
    counts_by_domain,
    specialisation,
    specialisation_table,
    vocabulary_chance,
    vocabulary_specialisation,
)


def test_an_expert_per_domain_tells_everything() -> None:
    found = specialisation(torch.eye(4) * 100)
    assert found.information == pytest.approx(2.0)
    assert found.share == pytest.approx(1.0)
    assert found.distance == pytest.approx(1.0)
    assert found.lift == pytest.approx(4.0)


def test_equal_shares_tell_nothing_however_many_tokens_were_read() -> None:
    row_E = torch.tensor([5.0, 1.0, 3.0, 0.0])
    found = specialisation(torch.stack([row_E, 1000 * row_E]))
    assert found.information == pytest.approx(0.0, abs=1e-12)
    assert found.distance == pytest.approx(0.0, abs=1e-12)
    assert found.lift == pytest.approx(1.0)


def test_chance_is_what_independent_choices_show() -> None:
    found = [
        specialisation(
            torch.stack([torch.bincount(torch.randint(16, (2000,)), minlength=16) for _ in range(3)])
        )
        for _ in range(40)
    ]
    mean = sum(one.information for one in found) / len(found)
    assert mean == pytest.approx(found[0].chance, rel=0.15)


def test_domains_are_counted_apart_and_padding_is_left_out() -> None:
    chosen_BSE = chosen_of(torch.tensor([[[0], [0]], [[1], [1]], [[0], [2]]]), 3)
    mask_BS = torch.tensor([[True, True], [True, False], [True, True]])
    counts = counts_by_domain(chosen_BSE, ["code", "prose", "code"], mask_BS)
    assert {name: row.tolist() for name, row in counts.items()} == {"code": [3, 0, 1], "prose": [0, 1, 0]}
    table = specialisation_table({"0": counts})
    assert table.column("share") == pytest.approx([1.0])


def test_vocabulary_specialisation_ends_and_rare_tokens() -> None:
    ids_T = torch.arange(4).repeat(10)
    assert vocabulary_specialisation(chosen_of((ids_T % 3).unsqueeze(1), 3), ids_T) == 1.0
    by_place = chosen_of((torch.arange(40) // 4 % 2).unsqueeze(1), 3)
    assert vocabulary_specialisation(by_place, ids_T) == 0.5
    with pytest.raises(InputError, match="occurs 11 times"):
        vocabulary_specialisation(by_place, ids_T, least=11)
    with pytest.raises(ShapeError, match="T = 40"):
        vocabulary_specialisation(by_place, ids_T[:3])


def test_co_activation_by_hand() -> None:
    both_EE = co_activation(chosen_of(torch.tensor([[0, 1], [0, 2], [0, 1]]), 4))
    assert both_EE[0].tolist() == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
    assert both_EE[1].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert all(math.isnan(value) for value in both_EE[3].tolist())


@pytest.mark.data
def test_olmoe_is_more_specialised_by_domain_than_mixtral() -> None:
    """OLMoE (arXiv 2409.02060), section 5.3, says so of the same counts."""
    from turnout.nn.analysis.counts import read_counts

    folder = Path(os.environ["TURNOUT_DATA"]) / "corpora" / "moe"
    models = read_counts(folder / "expert_counts.parquet")
    shares = {
        model: [specialisation(torch.stack(list(counts.values()))).distance for counts in layers.values()]
        for model, layers in models.items()
        if len(layers["0"]) > 1
    }
    assert shares.keys() == {"mistral", "olmoe"}
    assert min(shares["olmoe"]) > max(shares["mistral"])


def test_a_layer_without_tokens_is_a_row_of_unknown_numbers() -> None:
    used, none = {"a": torch.tensor([3.0, 1]), "b": torch.tensor([1.0, 3])}, torch.zeros(2)
    table = specialisation_table({"0": used, "1": used | {"c": none}, "2": used | {"b": none}})
    rows = [row[1:] for row in table.rows]
    assert rows[0] == rows[1]
    assert all(math.isnan(float(value)) for value in rows[2])


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match="G > 1"):
        specialisation(torch.ones(1, 4))
    with pytest.raises(InputError, match=r"a choice in every domain; got: \[4.0, 0.0\]"):
        specialisation(torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]]))
    with pytest.raises(InputError, match="finite numbers from 0 on"):
        specialisation(torch.tensor([[-1.0, 3.0], [1.0, 1.0]]))
    with pytest.raises(ShapeError, match="B = 2 names; got: 1"):
        counts_by_domain(torch.ones(2, 3, 4, dtype=torch.bool), ["a"], None)


def test_the_lift_of_an_expert_with_few_choices_is_not_known() -> None:
    count_GE = torch.full((8, 4), 100.0)
    count_GE[:, 3] = 0
    count_GE[2, 3] = 1
    assert specialisation(count_GE).lift == pytest.approx(1.0, abs=0.01)
    assert math.isnan(specialisation(torch.tensor([[1.0, 3.0], [3.0, 1.0]])).lift)
    count_GE[2, 3] = 64
    assert specialisation(count_GE).lift == pytest.approx(8.0)


def test_chance_is_what_a_token_tells_that_decides_nothing() -> None:
    ids_T, rng = torch.arange(2000) % 100, np.random.default_rng(0)
    unknowing = chosen_of(torch.randn(2000, 16).topk(2)[1], 16)
    share, chance = vocabulary_specialisation(unknowing, ids_T), vocabulary_chance(unknowing, ids_T, rng=rng)
    assert share == pytest.approx(chance, rel=0.1)
    assert chance > 1.8 * 2 / 16
    decided = chosen_of((ids_T % 16)[:, None], 16)
    assert vocabulary_specialisation(decided, ids_T) == 1.0
    assert vocabulary_chance(decided, ids_T, rng=rng) < 0.3
