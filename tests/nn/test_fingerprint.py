"""What was trained on a base is put on no other, by the bits of its weights and of its gates' biases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.nn.depth.families import make
from tests.nn.moe_models import deepseek_v3
from turnout.core.errors import ArtifactError
from turnout.nn.depth import FixedDepth, RoutedDepth, load_depth, save_depth
from turnout.nn.fingerprint import FORM, fingerprint, stored_weights


def test_every_column_of_a_square_matrix_is_sampled() -> None:
    weight = torch.zeros(1024, 1024)
    before = fingerprint({"w": weight})
    assert before.startswith(FORM)
    first = fingerprint({"w": weight}, like="0123456789abcdef")
    seen = []
    for column in range(0, 1024, 41):
        other = weight.clone()
        other[:, column] = 1.0
        seen.append(fingerprint({"w": other}) != before)
        assert fingerprint({"w": other}, like="0123456789abcdef") == first or column % 256 == 0
    assert all(seen)


def test_a_bias_that_is_a_buffer_of_the_checkpoint_belongs_to_the_base() -> None:
    model = deepseek_v3()
    before = fingerprint(stored_weights(model))
    kept = set(model.state_dict())
    assert set(stored_weights(model)) <= kept
    bias = next(buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias"))
    bias.add_(1.0)
    assert fingerprint(stored_weights(model)) != before
    like = "0123456789abcdef"
    assert set(stored_weights(model, like=like)) == set(dict(model.named_parameters()))


def test_files_of_the_first_form_are_read_and_still_know_their_base(tmp_path: Path) -> None:
    routed = RoutedDepth(model=make("llama"), router=FixedDepth(counts=[1, 0, 1, 1]))
    manifest = save_depth(tmp_path, routed)
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert content["config"]["base"]["weights"].startswith(FORM)
    # As it was written before: no form, one number in so many, parameters alone.
    old = fingerprint(dict(routed.owner.named_parameters()), like="0123456789abcdef")
    content["config"]["base"]["weights"] = old
    manifest.write_text(json.dumps(content), encoding="utf-8")
    assert load_depth(tmp_path, make("llama")).layers == 4
    with pytest.raises(ArtifactError, match="another base"):
        load_depth(tmp_path, make("llama", seed=1))
