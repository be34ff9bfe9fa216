"""This module holds what reading a context needs: losses by item, frozen parameters, caches that fit."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.caches import CacheGuard, Stamp, find_cache, made_elsewhere

KEEP = "start from an empty cache, or set is_cache_kept to accept stale keys"

BLOCKS = "_turnout_blocks"
"""The attribute by which a cache remembers in which `with` blocks it was filled."""

_open: set[int] = set()
"""The blocks that are open now, by their guards' numbers."""


def check_context(input_ids: object, attention_mask: object | None) -> Tensor:
    """Return the mask (B, T) of a batch of token ids, ones where none is given.

    Raises `InputError` or `ShapeError` unless both are tensors of whole numbers of one shape, the mask is of
    0 and 1, and each item holds at least one next token.
    """
    if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        got = str(input_ids.dtype) if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise InputError(sentence("input_ids", allowed="a tensor of whole numbers", got=got))
    mask_BT = torch.ones_like(input_ids) if attention_mask is None else torch.as_tensor(attention_mask)
    if input_ids.ndim != 2 or input_ids.shape != mask_BT.shape:
        raise ShapeError(
            sentence(
                "input_ids and attention_mask",
                allowed="both (B, T)",
                got=(tuple(input_ids.shape), tuple(mask_BT.shape)),
            )
        )
    if not input_ids.shape[0]:
        raise InputError(sentence("input_ids", allowed="at least one item", got=tuple(input_ids.shape)))
    if not bool(((mask_BT == 0) | (mask_BT == 1)).all()):
        raise InputError(sentence("attention_mask", allowed="0 and 1", got="other numbers"))
    pairs_B = (mask_BT[:, 1:] * mask_BT[:, :-1]).sum(dim=1)
    short = [b for b, n in enumerate(pairs_B.tolist()) if n < 1]
    if short:
        raise InputError(
            sentence(
                f"the prompt of item {short[0]} has no next token to learn from",
                allowed="at least 2 tokens in a row that are not masked",
                got=int(mask_BT[short[0]].sum()),
            )
        )
    return mask_BT


def check_finite(what: str, values: Iterable[Tensor], *, do: str | None = None) -> None:
    """Raise `InputError` if a number is NaN or infinite."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise InputError(sentence(what, allowed="finite numbers", got="NaN or infinity", do=do))


def positions(mask_BT: Tensor) -> Tensor:
    """Return the position of each token, counted from its item's first, as `generate` does (B, T)."""
    return (mask_BT.long().cumsum(dim=1) - 1).clamp_min(0)


def next_token_loss(model: nn.Module, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return each item's mean cross-entropy of its next tokens, in nats (B,); masked tokens count nowhere."""
    out = model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions(mask_BT), use_cache=False)
    logits_BTV = out.logits[:, :-1].float()
    loss_BT = functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
    counts_BT = (mask_BT[:, 1:] * mask_BT[:, :-1]).bool()
    return loss_BT.where(counts_BT, 0.0).sum(dim=1) / counts_BT.sum(dim=1)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter want a gradient and no module be in training mode; put both back afterwards."""
    wanting = [p for p in model.parameters() if p.requires_grad]
    training = [m for m in model.modules() if m.training]
    try:
        for parameter in wanting:
            parameter.requires_grad_(False)
        for module in training:
            module.training = False
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@dataclass(kw_only=True, eq=False)
class BlockGuard(CacheGuard):
    """Also lets no cache that is filled in a block be filled on after it, whoever runs the model then."""

    def _mark(self, cache: Cache, now: Stamp | None) -> None:
        super()._mark(cache, now)
        # A class of its own and no hook: the model keeps no trace of the block, and copies are held too.
        if not getattr(cache, BLOCKS, frozenset()):
            kind: Any = type(cache)
            cache.__class__ = _held(kind)
        setattr(cache, BLOCKS, getattr(cache, BLOCKS, frozenset()) | {self.serial})


@functools.cache
def _held(kind: Any) -> Any:
    """Return a class that is `kind`, and takes no keys once a block of the cache is closed."""

    def update(cache: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(cache, BLOCKS) <= _open:
            if cache.get_seq_length():
                raise made_elsewhere(KEEP)
            release(cache)
        return kind.update(cache, *args, **kwargs)

    return type(kind.__name__, (kind,), {"update": update, "__module__": kind.__module__})


def release(cache: Cache) -> None:
    """Forget in which blocks a cache was filled."""
    if getattr(cache, BLOCKS, frozenset()):
        cache.__class__ = type(cache).__mro__[1]
        setattr(cache, BLOCKS, frozenset())


@contextmanager
def caches_checked(model: nn.Module) -> Iterator[None]:
    """Refuse caches that hold keys of another routing inside, and after it those that were filled inside."""
    guard = BlockGuard(now=lambda: Stamp(who="block"), do=KEEP)
    handles = guard.install(model)
    _open.add(guard.serial)
    try:
        yield
    finally:
        _open.discard(guard.serial)
        for handle in handles:
            handle.remove()


@contextmanager
def caches_released(model: nn.Module) -> Iterator[None]:
    """Accept every cache inside."""

    def before(_model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = find_cache((*args, *kwargs.values()))
        if cache is not None:
            release(cache)

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
