"""This module computes a linear module with weighted adapters: out = W u + sum_i w_i s_i B_i A_i u.

Axes: T tokens, D inputs, O outputs, E adapters, R rank (of the widest adapter; thinner ones are padded with
zeros, which add nothing).
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from turnout.nn.adapters.contract import AdapterRouter, Context
from turnout.nn.adapters.hooks import hand_over
from turnout.nn.caches import Stamp, serials
from turnout.nn.held import POOL

Mix = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

STATE = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
"""Where a module of torch keeps its state."""

BUFFERS = ("a_ERD", "b_EOR", "scale_E", "gate_ED")
"""What a pool adds to it."""


def mix(u: Tensor, w: Tensor, a_ERD: Tensor, b_EOR: Tensor, scale_E: Tensor) -> Tensor:
    """Return sum_i w_i s_i B_i A_i u, (..., O), for `u` (..., D) and weights `w` (..., E) in two products.

    A weight of an adapter is a weight of its R inner columns, so all adapters are one thin layer of width
    E R whose inside is scaled.
    """
    num, rank, width = a_ERD.shape
    flat = F.linear(u, a_ERD.reshape(num * rank, width))
    inner = flat.reshape(*u.shape[:-1], num, rank) * (w * scale_E).unsqueeze(-1)
    return inner.flatten(-2) @ b_EOR.mT.reshape(num * rank, b_EOR.shape[1])


def mix_loop(u: Tensor, w: Tensor, a_ERD: Tensor, b_EOR: Tensor, scale_E: Tensor) -> Tensor:
    """Return what `mix` returns, adapter by adapter, as the equation reads: the slow truth."""
    out = u.new_zeros(*u.shape[:-1], b_EOR.shape[1])
    for a_RD, b_OR, scale, w_i in zip(a_ERD, b_EOR, scale_E, w.unbind(-1), strict=True):
        out = out + w_i.unsqueeze(-1) * scale * ((u @ a_RD.T) @ b_OR.T)
    return out


@dataclass(frozen=True, kw_only=True)
class Live:
    """One adapter that is being trained, or whose gate is, in place of the pool's at one site."""

    a_RD: Tensor
    b_OR: Tensor
    scale: float
    gate_D: Tensor | None = None
    """PHATGOOSE's v; None weighs the adapter by 1."""

    def delta(self, u: Tensor) -> Tensor:
        """Return sigmoid(v . u) s B A u (PHATGOOSE, arXiv 2402.05859, equation 3)."""
        low = self.scale * F.linear(F.linear(u, self.a_RD), self.b_OR)
        return low if self.gate_D is None else torch.sigmoid(u @ self.gate_D).unsqueeze(-1) * low


@dataclass(frozen=True, kw_only=True)
class Route:
    """Who weighs the adapters in this forward pass, and what is known of it."""

    router: AdapterRouter | None
    context: Context
    live: dict[str, Live] | None = None

    @functools.cached_property
    def stamp(self) -> Stamp | None:
        """What a cache is made under that is filled on this route; None is the base."""
        router, context = self.router, self.context
        if self.live is not None:
            return Stamp(who=("live", next(serials)))
        if router is None or not context.names:
            return None
        # A router with other arguments than plain ones, or that does not keep them, is only like itself.
        try:
            config = tuple(sorted(router.config().items()))
        except AttributeError:
            config = (("self", router),)
        is_plain = all(isinstance(value, str | int | float | bool | None) for _, value in config)
        kind = (type(router).__qualname__, config if is_plain else id(router))
        active = router.active(context)
        if context.tasks_B is None:
            known: object = context.version if active is None else tuple(context.serials[i] for i in active)
            tasks: list[object] = []
        else:
            known = context.version if active is None else None
            tasks = [
                None if task is None else context.serials[context.index(task)] for task in context.tasks_B
            ]
        queries_BG = context.queries_BG
        queries = [] if queries_BG is None else [row_G.cpu().numpy().tobytes() for row_G in queries_BG]
        items = tuple(itertools.zip_longest(tasks, queries))
        return Stamp(who=(kind, known), items=items, copies=context.copies)


@dataclass
class Shared:
    """What all sites of a pool share. A route that was opened holds for the thread that opened it."""

    route: Route = field(default_factory=lambda: Route(router=None, context=Context(names=())))
    """What holds where no thread opened another."""
    mix: Mix = mix
    trace: dict[str, list[Tensor]] | None = None
    """Weights by site, where somebody records them."""
    _local: threading.local = field(default_factory=threading.local)

    @property
    def current(self) -> Route:
        """The route of this thread."""
        stack: list[Route] = getattr(self._local, "stack", [])
        return stack[-1] if stack else self.route

    def push(self, route: Route) -> None:
        """Open a route for this thread."""
        self._local.stack = [*getattr(self._local, "stack", []), route]

    @property
    def is_open(self) -> bool:
        """Whether this thread has a route open."""
        return bool(getattr(self._local, "stack", []))

    def pop(self) -> None:
        """Close the last route that this thread opened."""
        self._local.stack = self._local.stack[:-1]

    def stamp(self) -> Stamp | None:
        """Return what a cache is made under in this thread now; None is the base."""
        return self.current.stamp

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        twin = Shared(route=replace(self.route), mix=self.mix)
        memo[id(self)] = twin
        return twin

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled, as `torch.save(model)` would."""
        raise POOL.refused()


class AdapterLinear(nn.Linear):
    """A linear module with the pool's adapters beside what the base module computes itself.

    The base may be of a class of its own, have hooks, or a weight that is computed: it is called. It is not
    a child, for its state is this module's, under the same names; what this one adds are buffers that no
    state dict holds. A checkpoint saved from the model is the base's.
    """

    a_ERD: Tensor
    b_EOR: Tensor
    scale_E: Tensor
    gate_ED: Tensor

    def __init__(self, *, path: str, base: nn.Linear, shared: Shared) -> None:
        nn.Module.__init__(self)
        self.path, self.shared = path, shared
        self.in_features, self.out_features = base.in_features, base.out_features
        # One dictionary for both: what becomes of a parameter here becomes of the base's.
        for name in STATE:
            self.__dict__[name] = base.__dict__[name]
        # In a tuple, where no module looks for children.
        self._held = (base,)
        self._handles: list[RemovableHandle] = []
        self.training = base.training
        # A half-precision base keeps adapters in float32, as PEFT does.
        dtype = torch.float32 if base.weight.dtype.itemsize < 4 else base.weight.dtype
        empty = torch.zeros(0, dtype=dtype, device=base.weight.device)
        self._put(
            empty.reshape(0, 0, base.in_features),
            empty.reshape(0, base.out_features, 0),
            empty,
            empty.reshape(0, base.in_features),
        )

    def __getattr__(self, name: str) -> Any:
        """Return what the base alone has: a weight that is computed, the settings of its class."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            held = self.__dict__.get("_held")
            if held is None or not hasattr(held[0], name):
                raise
            return getattr(held[0], name)

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """Put a hook on that stays when the base comes back, and is taken off by the same handle."""
        return self._noted(super().register_forward_pre_hook(*args, **kwargs))

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As `register_forward_pre_hook`."""
        return self._noted(super().register_forward_hook(*args, **kwargs))

    def register_full_backward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As `register_forward_pre_hook`."""
        return self._noted(super().register_full_backward_pre_hook(*args, **kwargs))

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As `register_forward_pre_hook`."""
        return self._noted(super().register_full_backward_hook(*args, **kwargs))

    def _noted(self, handle: RemovableHandle) -> RemovableHandle:
        self._handles.append(handle)
        return handle

    def release(self) -> nn.Linear:
        """Return the base, with nothing of the pool in its state, and the hooks that were put on here."""
        (base,) = self._held
        for name in BUFFERS:
            del base._buffers[name]
            base._non_persistent_buffers_set.discard(name)
        base.train(self.training)
        hand_over(self, base, self._handles)
        return base

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name is nn.Linear's)
        """Return what the base does, W u where it is plain, and what the route's adapters add to it."""
        (base,) = self._held
        if base.training != self.training:
            base.training = self.training
        out: Tensor = base(input)
        route = self.shared.current
        if route.live is not None:
            return (out + route.live[self.path].delta(input.to(self.a_ERD.dtype))).to(out.dtype)
        if route.router is None or not len(self.scale_E):
            return out
        return (out + self._delta(input.to(self.a_ERD.dtype), route.router, route.context)).to(out.dtype)

    def _delta(self, u: Tensor, router: AdapterRouter, context: Context) -> Tensor:
        w = router.weights(u, self, context)
        if self.shared.trace is not None:
            seen = w.detach().expand(*u.shape[:-1], w.shape[-1])
            self.shared.trace.setdefault(self.path, []).append(seen)
        a_ERD, b_EOR, scale_E = self.a_ERD, self.b_EOR, self.scale_E
        active = router.active(context)
        if active is not None and len(active) < len(scale_E):
            index = torch.tensor(active, dtype=torch.long, device=u.device)
            w, a_ERD, b_EOR, scale_E = w[..., index], a_ERD[index], b_EOR[index], scale_E[index]
        return self.shared.mix(u, w.to(u.dtype), a_ERD, b_EOR, scale_E)

    def append(self, a_RD: Tensor, b_OR: Tensor, scale: float) -> None:
        """Add one adapter at the end; the others keep their bits. Its gate is 0."""
        rank = max(self.a_ERD.shape[1], a_RD.shape[0])
        old_a, old_b = self.a_ERD, self.b_EOR
        new_a, new_b = (x.detach().to(old_a)[None] for x in (a_RD, b_OR))
        self._put(
            torch.cat([F.pad(a, (0, 0, 0, rank - a.shape[1])) for a in (old_a, new_a)]),
            torch.cat([F.pad(b, (0, rank - b.shape[2])) for b in (old_b, new_b)]),
            torch.cat([self.scale_E, self.scale_E.new_tensor([scale])]),
            torch.cat([self.gate_ED, self.gate_ED.new_zeros(1, self.in_features)]),
        )

    def drop(self, index: int) -> None:
        """Take one adapter out; the others keep their bits and their order."""
        keep = [i for i in range(len(self.scale_E)) if i != index]
        self._put(self.a_ERD[keep], self.b_EOR[keep], self.scale_E[keep], self.gate_ED[keep])

    def set_gate(self, index: int, gate_D: Tensor) -> None:
        """Store the gate vector of one adapter; the others keep their bits."""
        gate_ED = self.gate_ED.clone()
        gate_ED[index] = gate_D.detach().to(gate_ED)
        self._put(self.a_ERD, self.b_EOR, self.scale_E, gate_ED)

    def cached(self, key: str, make: Callable[[AdapterLinear], Tensor]) -> Tensor:
        """Return `make(self)`, computed once for these adapters on this device and in this precision."""
        known = self._cache.get(key)
        if known is None or known.device != self.a_ERD.device or known.dtype != self.a_ERD.dtype:
            known = self._cache[key] = make(self)
        return known

    def _put(self, a_ERD: Tensor, b_EOR: Tensor, scale_E: Tensor, gate_ED: Tensor) -> None:
        self._cache: dict[str, Tensor] = {}
        # In memory B lies as (E, R, O), so that `mix` reads all of it as one matrix without a copy.
        b_EOR = b_EOR.mT.contiguous().mT
        for name, tensor in zip(BUFFERS, (a_ERD, b_EOR, scale_E, gate_ED), strict=True):
            self.register_buffer(name, tensor, persistent=False)


def ones(num: int, index: Sequence[int], like: Tensor) -> Tensor:
    """Return a row of `num` weights that shares 1 evenly among the adapters of `index`."""
    row_E = torch.zeros(num, dtype=like.dtype, device=like.device)
    row_E[list(index)] = 1 / max(len(index), 1)
    return row_E
