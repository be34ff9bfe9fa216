"""This module puts adapter modules into a model and takes them out again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from turnout.core.errors import InputError, sentence
from turnout.nn.adapters.linear import AdapterLinear, Shared
from turnout.nn.adapters.lora import Lora, LoraPart, base_fingerprint


def find_targets(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Return the paths of the linear modules whose path is, or ends in, one of `targets`.

    Raises `InputError` when one of them names nothing.
    """
    linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    found = {t: [p for p in linears if p == t or p.endswith("." + t)] for t in targets}
    empty = [target for target, paths in found.items() if not paths]
    if empty or not found:
        known = sorted({path.rpartition(".")[2] for path in linears})
        raise InputError(
            sentence(
                f"target modules of {type(model).__name__}", allowed=f"some of {known}", got=list(targets)
            )
        )
    return sorted({path for paths in found.values() for path in paths})


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A place in the model where an adapter module sits: what owns it, and what sat there."""

    owner: nn.Module
    name: str
    base: nn.Linear
    site: AdapterLinear


def install(model: nn.Module, paths: Iterable[str], shared: Shared) -> dict[str, Seat]:
    """Replace the linear modules at `paths`; return their seats.

    A seat outlives a change of paths, as when something wraps the blocks of the model later.
    """
    bases = {path: linear_at(model, path) for path in paths}
    seats = {}
    for path, base in bases.items():
        owner, _, name = path.rpartition(".")
        site = AdapterLinear(path=path, base=base, shared=shared)
        seats[path] = Seat(owner=model.get_submodule(owner), name=name, base=base, site=site)
        setattr(seats[path].owner, name, site)
    return seats


def restore(seats: Mapping[str, Seat]) -> None:
    """Put back what `install` took out, with the parameters that the model holds now."""
    for seat in seats.values():
        seat.base.weight, seat.base.bias = seat.site.weight, seat.site.bias
        seat.base.train(seat.site.training)
        setattr(seat.owner, seat.name, seat.base)


def check_fits(lora: Lora, linears: Mapping[str, nn.Linear]) -> None:
    """Raise `InputError` unless each part of the adapter has the shape of its linear module and is finite."""
    for path, part in lora.parts.items():
        if not (part.a_RD.isfinite().all() and part.b_OR.isfinite().all() and math.isfinite(part.scale)):
            raise InputError(
                sentence(f"adapter {lora.name!r}: {path}", allowed="finite numbers", got="others")
            )
        base = linears[path]
        shapes = (part.a_RD.shape[1], part.b_OR.shape[0])
        if shapes != (base.in_features, base.out_features):
            raise InputError(
                sentence(
                    f"adapter {lora.name!r} is of another base: {path} has (inputs, outputs)",
                    allowed=(base.in_features, base.out_features),
                    got=tuple(int(n) for n in shapes),
                )
            )


def base_name(model: nn.Module) -> str | None:
    """Return the name or path that a model was loaded from, or None."""
    return getattr(getattr(model, "config", None), "_name_or_path", None) or None


def check_base(model: nn.Module, lora: Lora, linears: Mapping[str, nn.Linear]) -> None:
    """Raise `InputError` for an adapter that was recorded with another base.

    The fingerprint of the weights decides where there is one; else names do, by their last part, where
    both are known.
    """
    names = [str(n).rstrip("/").rpartition("/")[2] for n in (lora.base_name, base_name(model)) if n]
    if lora.base_fingerprint is not None:
        got = lora.base_fingerprint
        allowed = base_fingerprint(linears, like=got)
        is_other = allowed != got
    else:
        allowed, got = base_name(model) or "", lora.base_name or ""
        is_other = len(set(names)) > 1
    if is_other:
        raise InputError(
            sentence(
                f"adapter {lora.name!r} is of another base",
                allowed=allowed,
                got=got,
                do="pass is_same_base=True if this is the same under another name or in another precision",
            )
        )


def check_alike(lora: Lora, others: Mapping[str, LoraPart], *, mixed_ranks: bool) -> None:
    """Raise `InputError` unless an adapter has the target set of the pool, and its ranks where they must."""
    if set(lora.parts) != set(others):
        extra, lacking = sorted(set(lora.parts) - set(others)), sorted(set(others) - set(lora.parts))
        raise InputError(
            sentence(
                f"adapter {lora.name!r} has another target set",
                allowed=f"the pool's {len(others)} modules",
                got=f"{len(extra)} besides {extra[:2]}, {len(lacking)} lacking {lacking[:2]}",
            )
        )
    ranks = sorted({part.rank for part in lora.parts.values()})
    known = sorted({part.rank for part in others.values()})
    is_same = all(lora.parts[path].rank == others[path].rank for path in others)
    if not mixed_ranks and not is_same:
        raise InputError(
            sentence(
                f"adapter {lora.name!r} has another rank",
                allowed=known,
                got=ranks,
                do="build the pool with mixed_ranks=True to pad with zeros, which is exact",
            )
        )


def linear_at(model: nn.Module, path: str) -> nn.Linear:
    """Return the linear module at `path`; raises `InputError` for anything else."""
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = None
    if isinstance(module, nn.Linear) and module.weight.is_floating_point():
        return module
    raise InputError(
        sentence(
            f"{type(model).__name__}: what stands at {path!r}",
            allowed="a linear module with floating-point weights",
            got=type(module).__name__ if module is not None else "nothing",
            do="use adapters that were trained on this base",
        )
    )
