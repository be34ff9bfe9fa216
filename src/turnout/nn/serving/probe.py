"""This module finds out whether a model can be served: answers continue from a cache, and rows leave a batch.

Models that keep attention's keys alone are known to. Others (running states, caches of their own) are tried.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from turnout.core.errors import ArtifactError, sentence
from turnout.core.generation import Generation
from turnout.nn.caches import takes_cache
from turnout.nn.serving.group import Group, keeps_keys_alone
from turnout.nn.serving.row import Row


@torch.no_grad()
def check_decoding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ArtifactError` for a model whose answers would be wrong, or would not come.

    Two rows are read and one leaves; the logits of the other, two tokens later, must be those of its tokens
    read at once. They may differ by the square root of the precision, relative to their norm.
    """
    try:
        if takes_cache(model) and keeps_keys_alone(model):
            return
        error = _error(model, tokenizer)
    except Exception as failure:  # The edge: code of a family that nobody here has seen.
        raise _refused(model, f"{type(failure).__name__}: {failure}") from failure
    if not error <= torch.finfo(model.dtype).eps ** 0.5:
        raise _refused(model, f"answers that continue from its cache are off by {error:.2g}")


@final
class _Probe(Row):
    """A row that keeps the logits of its newest token."""

    def __init__(self, ids: list[int], tokens: int, tokenizer: PreTrainedTokenizerBase) -> None:
        request = Generation(prompt="-", variant="-", max_new_tokens=tokens)
        super().__init__(
            request=request, ids=ids, tokenizer=tokenizer, ends=frozenset(), listener=lambda _event: None
        )

    def pick(self, logits_V: Tensor) -> int:
        self.logits_V = logits_V
        return super().pick(logits_V)


def _error(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    first, second = _Probe([1, 2, 3], 1, tokenizer), _Probe([3, 1, 2], 3, tokenizer)
    group = Group(model=model, rows=[first, second], pad=0, has_padding=keeps_keys_alone(model))
    while not group.is_over:
        group.step()
        group.leave()
    if second.error is not None:
        raise second.error
    ids_1T = torch.tensor([second.ids + second.output[:-1]], device=model.device)
    wanted_V = model(input_ids=ids_1T, use_cache=False).logits[0, -1].double()
    return float((second.logits_V.double() - wanted_V).norm() / wanted_V.norm())


def _refused(model: PreTrainedModel, reason: str) -> ArtifactError:
    return ArtifactError(
        sentence(
            f"models of the family {model.config.model_type!r} cannot be served here",
            allowed="a causal model that continues from a cache of transformers",
            got=reason.splitlines()[0][:200],
            do="serve it by a server of its own, and name that as a provider",
        )
    )
