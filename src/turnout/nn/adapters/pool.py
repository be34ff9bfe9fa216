"""This module holds a pool of LoRA adapters in place on a `transformers` model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, NotFittedError, UnknownNameError, did_you_mean, sentence
from turnout.core.validation import check_choice, check_count
from turnout.nn.adapters.contract import AdapterRouter, Context, Embed
from turnout.nn.adapters.files import read_lora, write_lora
from turnout.nn.adapters.linear import AdapterLinear, Live, Route, Shared, mix, mix_loop
from turnout.nn.adapters.lora import Lora, base_fingerprint
from turnout.nn.adapters.oracle import OracleAdapter
from turnout.nn.adapters.single import SingleAdapter
from turnout.nn.adapters.sites import (
    Seat,
    base_name,
    check_alike,
    check_base,
    check_fits,
    find_targets,
    install,
    linear_at,
    restore,
)
from turnout.nn.adapters.vectors import as_vectors, check_queries
from turnout.nn.caches import CacheGuard, serials

EXECUTIONS = {"fast": mix, "loop": mix_loop}
TASK_SEPARATORS = "/\\"
FRESH = "go on under the route that it was filled under, or start from an empty cache"


class AdapterPool:
    """Adapters by name, in place on a model: its linear modules compute W u + sum_i w_i s_i B_i A_i u.

    The weights w come from `router`, per token and per module, in every forward pass of the model, so that
    `generate`, batches, padding and caches work as they did. Without a router the model is the base, bit
    for bit; `close` puts the base's own modules back. The base's weights never change. All adapters have
    one target set and, unless `mixed_ranks`, one rank a module.

    Use from several threads: a route that is opened (`only`, `none`, `routed`) holds for its thread.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        router: AdapterRouter | None = None,
        targets: Sequence[str] | None = None,
        mixed_ranks: bool = False,
        execution: str = "fast",
    ) -> None:
        check_choice("AdapterPool: execution", execution, EXECUTIONS)
        if any(isinstance(module, AdapterLinear) for module in model.modules()):
            raise InputError(
                sentence(
                    "AdapterPool: the model holds a pool already", do="add to that one, or close it first"
                )
            )
        self.model, self.mixed_ranks = model, mixed_ranks
        self._shared = Shared(mix=EXECUTIONS[execution])
        self._seats: dict[str, Seat] = {}
        self._loras: dict[str, Lora] = {}
        self._vectors: dict[str, Tensor] = {}
        self._gated: frozenset[str] = frozenset()
        self._version = next(serials)
        self._serials: dict[str, int] = {}
        self._guard = CacheGuard(now=self._shared.stamp, do=FRESH)
        self._hooks: list[Any] = []
        if targets is not None:
            self.target(targets)
        self.router = router

    # What the pool holds

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters in the order of axis E."""
        return tuple(self._loras)

    @property
    def router(self) -> AdapterRouter | None:
        """Who weighs the adapters where no route is open; None is the base."""
        return self._shared.route.router

    @router.setter
    def router(self, router: AdapterRouter | None) -> None:
        self._shared.route = Route(router=_checked(router), context=self.context())

    @property
    def sites(self) -> dict[str, AdapterLinear]:
        """The modules that hold the adapters, by path."""
        return {path: seat.site for path, seat in self._seats.items()}

    def context(self) -> Context:
        """Return what the routers learn of the pool."""
        has_all = bool(self._loras) and set(self._vectors) == set(self._loras)
        vectors_EG = torch.stack([self._vectors[name] for name in self._loras]) if has_all else None
        return Context(
            names=self.names,
            gated=self._gated,
            vectors_EG=vectors_EG,
            serials=tuple(self._serials[name] for name in self._loras),
            version=self._version,
        )

    def get(self, name: str) -> Lora:
        """Return an adapter as it was added; raises `UnknownNameError`."""
        self._check_known(name)
        return self._loras[name]

    # Adapters come and go

    def target(self, targets: Sequence[str]) -> None:
        """Prepare an empty pool for adapters of these modules (paths or their ends), for training."""
        if self._seats:
            raise InputError(
                sentence("AdapterPool: its target modules are chosen already", got=list(targets))
            )
        self._sit(find_targets(self.model, targets))

    def load(self, folder: str | Path, *, name: str | None = None, is_same_base: bool = False) -> str:
        """Add the adapter in a folder that PEFT wrote; return its name (the folder's, unless given).

        `is_same_base` vouches that a base that was recorded under another name, or in another precision,
        is this one. Raises `InputError` for an adapter that does not fit, `ArtifactError` for a bad file.
        """
        return self.add(read_lora(folder, name=name), is_same_base=is_same_base)

    def add(self, lora: Lora, *, is_same_base: bool = False) -> str:
        """Add an adapter and return its name; those that are there, and their gates, keep their bits."""
        self.check(lora, is_same_base=is_same_base)
        if not self._seats:
            self._sit(sorted(lora.parts))
        for path, site in self.sites.items():
            part = lora.parts[path]
            site.append(part.a_RD, part.b_OR, part.scale)
        self._loras[lora.name] = lora
        self._serials[lora.name] = next(serials)
        self._refresh()
        return lora.name

    def check(self, lora: Lora, *, is_same_base: bool = False) -> None:
        """Raise what `add` would raise for this adapter, and add nothing."""
        self._check_closed()
        self._check_new(lora.name)
        linears = {path: self._linear(path) for path in lora.parts}
        check_fits(lora, linears)
        if not is_same_base:
            check_base(self.model, lora, linears)
        if self._loras:
            first = next(iter(self._loras.values()))
            check_alike(lora, first.parts, mixed_ranks=self.mixed_ranks)
        elif self._seats and set(self._seats) != set(lora.parts):
            check_alike(lora, dict.fromkeys(self._seats, next(iter(lora.parts.values()))), mixed_ranks=True)

    def remove(self, name: str) -> None:
        """Take an adapter out, with its gate and its vector; raises `UnknownNameError`."""
        self._check_closed()
        self._check_known(name)
        index = self.names.index(name)
        for site in self.sites.values():
            site.drop(index)
        del self._loras[name]
        self._vectors.pop(name, None)
        self._gated -= {name}
        self._refresh()

    def export(self, name: str, folder: str | Path) -> Path:
        """Write an adapter in PEFT's format, with the fingerprint of this base; return the folder."""
        lora = self.get(name)
        recorded = replace(
            lora,
            base_name=lora.base_name or base_name(self.model),
            base_fingerprint=base_fingerprint(self.sites),
        )
        return write_lora(recorded, folder)

    def close(self) -> None:
        """Put the base's own modules back: the model is what it was before the pool."""
        restore(self._seats)
        for hook in self._hooks:
            hook.remove()
        self._seats, self._loras, self._vectors, self._gated, self._hooks = {}, {}, {}, frozenset(), []
        self._refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What routers read

    def describe(self, name: str, vector: object) -> None:
        """Give an adapter its global vector (G,); raises `InputError` for another width than the others'."""
        self._check_known(name)
        vector_G = as_vectors(f"global vector of {name!r}", [vector])[0]
        widths = {v.numel() for other, v in self._vectors.items() if other != name} - {vector_G.numel()}
        if widths:
            raise InputError(
                sentence(f"global vector of {name!r}: width", allowed=widths.pop(), got=vector_G.numel())
            )
        self._vectors[name] = vector_G
        self._refresh()

    def describe_texts(self, texts: Mapping[str, str], embed: Embed) -> None:
        """Give adapters the vectors of texts that say what they are for: a description, a few samples."""
        vectors = as_vectors("embed", embed(list(texts.values())))
        if len(vectors) != len(texts):
            raise InputError(
                sentence("embed: vectors", allowed=f"{len(texts)}, one a text", got=len(vectors))
            )
        for name, vector in zip(texts, vectors, strict=True):
            self.describe(name, vector)

    def vector(self, name: str) -> Tensor | None:
        """Return the global vector of an adapter, (G,), or None."""
        self._check_known(name)
        return self._vectors.get(name)

    def set_gate(self, name: str, gates: Mapping[str, Tensor]) -> None:
        """Store the gate vectors (D,) of an adapter by path; no other adapter's changes by a bit."""
        self._check_known(name)
        sites = self.sites
        wrong = [p for p, site in sites.items() if p not in gates or gates[p].shape != (site.in_features,)]
        if wrong or set(gates) - set(sites):
            raise InputError(
                sentence(
                    f"gate of {name!r}", allowed="a vector (D,) for each module of the pool", got=wrong[:2]
                )
            )
        if bad := [path for path in sites if not gates[path].isfinite().all()]:
            raise InputError(sentence(f"gate of {name!r}: {bad[0]}", allowed="finite numbers", got="others"))
        for path, site in sites.items():
            site.set_gate(self.names.index(name), gates[path])
        self._gated |= {name}
        self._refresh()

    def gate(self, name: str) -> dict[str, Tensor]:
        """Return copies of an adapter's gate vectors by path; raises `NotFittedError` without one."""
        self._check_known(name)
        if name not in self._gated:
            raise NotFittedError(sentence(f"adapter {name!r} has no gate", do="call train_gate"))
        index = self.names.index(name)
        return {path: site.gate_ED[index].clone() for path, site in self.sites.items()}

    # Requests

    def only(self, names: str | Sequence[str | None], *, copies: int = 1) -> Any:
        """Open a context in which one adapter serves all, or each item has its own (None: the base)."""
        if isinstance(names, str):
            self._check_known(names)
            return self.routed(router=SingleAdapter(name=names), copies=copies)
        for name in names:
            if name is not None:
                self._check_known(name)
        return self.routed(router=OracleAdapter(), tasks=names, copies=copies)

    @contextmanager
    def none(self) -> Iterator[None]:
        """Open a context in which the model is the base, bit for bit."""
        with self._open(Route(router=None, context=self.context())):
            yield

    @contextmanager
    def routed(
        self,
        *,
        router: AdapterRouter | None = None,
        queries: object | None = None,
        tasks: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Iterator[None]:
        """Open a context with a router (None: the pool's) and what is known of the batch's items.

        `queries` are their global vectors (B, G), `tasks` the adapters that they ask for, and `copies` how
        often `generate` repeats each item (the larger of the numbers of beams and of answers).
        """
        context = self.context()
        if isinstance(tasks, str):
            raise InputError(
                sentence("AdapterPool.routed: tasks", allowed="a list, one for each item", got=tasks)
            )
        if queries is not None:
            queries = check_queries(queries, context)
        context = replace(
            context,
            queries_BG=queries,
            tasks_B=None if tasks is None else tuple(tasks),
            copies=check_count("AdapterPool.routed: copies", copies),
        )
        with self._open(Route(router=_checked(router or self.router), context=context)):
            yield

    def generate(
        self,
        input_ids: Tensor,
        *,
        router: AdapterRouter | None = None,
        queries: object | None = None,
        tasks: Sequence[str | None] | None = None,
        **options: Any,
    ) -> Any:
        """Return `model.generate(...)` under a route, with as many copies of an item as `options` make."""
        config = options.get("generation_config") or getattr(self.model, "generation_config", None)
        counts = [
            options.get(key) or getattr(config, key, None) or 1
            for key in ("num_beams", "num_return_sequences")
        ]
        with self.routed(router=router, queries=queries, tasks=tasks, copies=max(counts)):
            return self.model.generate(input_ids=input_ids, **options)  # type: ignore[operator]

    @contextmanager
    def recording(self) -> Iterator[dict[str, list[Tensor]]]:
        """Open a context that yields, by path, the weights (..., E) of each forward pass in it."""
        self._shared.trace = {}
        try:
            yield self._shared.trace
        finally:
            self._shared.trace = None

    @contextmanager
    def live(self, parts: dict[str, Live]) -> Iterator[None]:
        """Open a context in which parts in training stand in for the pool's adapters, one a site."""
        with self._open(Route(router=None, context=self.context(), live=parts)):
            yield

    # Inside

    @contextmanager
    def _open(self, route: Route) -> Iterator[None]:
        self._shared.push(route)
        try:
            yield
        finally:
            self._shared.pop()

    def _sit(self, paths: Sequence[str]) -> None:
        self._seats = install(self.model, paths, self._shared)
        self._hooks = self._guard.install(self.model)

    def _refresh(self) -> None:
        self._version = next(serials)
        self._shared.route = Route(router=self.router, context=self.context())

    def _linear(self, path: str) -> nn.Linear:
        # What sits in a seat is known; a path may have changed since.
        return self._seats[path].site if path in self._seats else linear_at(self.model, path)

    def _check_closed(self) -> None:
        if self._shared.is_open:
            raise InputError(
                sentence("AdapterPool: a route is open", do="leave it before an adapter is added or removed")
            )

    def _check_known(self, name: str) -> None:
        if name not in self._loras:
            raise UnknownNameError(
                sentence(
                    f"no adapter of the pool is called {name!r}", do=did_you_mean(str(name), self._loras)
                )
            )

    def _check_new(self, name: object) -> None:
        if (
            not isinstance(name, str)
            or not name
            or set(name) & set(TASK_SEPARATORS)
            or name in self._loras
            or name.startswith(".")
        ):
            raise InputError(
                sentence("name of an adapter", allowed="a folder's name that is not taken", got=name)
            )


def _checked(router: AdapterRouter | None) -> AdapterRouter | None:
    """Return a router; raises `InputError` for what cannot weigh adapters."""
    if router is not None and not callable(getattr(router, "weights", None)):
        allowed = "an AdapterRouter, such as GliderRouter(), or None"
        raise InputError(sentence("AdapterPool: router", allowed=allowed, got=router))
    return router
