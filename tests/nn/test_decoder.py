from __future__ import annotations

import pytest
from torch import nn

from turnout.core.errors import InputError
from turnout.nn.decoder import decoder_blocks, freeze
from turnout.nn.tiny import tiny_llama


def test_the_blocks_of_a_decoder_are_found_with_their_owner() -> None:
    model = tiny_llama(vocab_size=8, width=16, layers=3)
    owner, name = decoder_blocks(model)
    assert owner is model.model
    assert getattr(owner, name) is model.model.layers


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="Sequential has no decoder blocks"):
        decoder_blocks(nn.Sequential(nn.ModuleList([nn.Linear(2, 2)])))


def test_a_frozen_model_has_nothing_to_train() -> None:
    model = tiny_llama(vocab_size=8, width=16, layers=1)
    freeze(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
