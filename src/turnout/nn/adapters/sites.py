"""This module puts adapter modules into a model and takes them out again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
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
    """A place in the model where an adapter module sits, and what owns it."""

    owner: nn.Module
    name: str
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
        seats[path] = Seat(owner=model.get_submodule(owner), name=name, site=site)
        setattr(seats[path].owner, name, site)
    return seats


def restore(seats: Mapping[str, Seat]) -> None:
    """Put back what `install` took out, with the parameters that the model holds now."""
    for seat in seats.values():
        setattr(seat.owner, seat.name, seat.site.release())


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
        obstacle = _obstacle(module)
        if obstacle is None:
            return module
        allowed, got = "a linear module that maps (..., inputs) to (..., outputs)", obstacle
    else:
        allowed = "a linear module with floating-point weights"
        got = type(module).__name__ if module is not None else "nothing"
    raise InputError(
        sentence(
            f"{type(model).__name__}: what stands at {path!r}",
            allowed=allowed,
            got=got,
            do="use adapters that were trained on this base",
        )
    )


@torch.no_grad()
def _obstacle(module: nn.Linear) -> str | None:
    """Say why a module with a forward of its own is no linear module to adapters; None if it is one."""
    kind = type(module)
    if kind.forward is nn.Linear.forward:
        return None
    weight = module.weight
    # Half precision, say, where weights are smaller still and are multiplied by a kernel of their own.
    dtype = weight.dtype if weight.dtype.itemsize > 1 else torch.get_default_dtype()
    ones = torch.ones(1, 2, module.in_features, dtype=dtype, device=weight.device)
    try:
        # Without the hooks of somebody who would hear of a pass that is none.
        out: object = kind.forward(module, ones)
    except Exception as error:  # noqa: BLE001 (whatever a forward of somebody's raises)
        why = next(iter(str(error).splitlines()), type(error).__name__)
        return f"a {kind.__name__}, which refuses (1, 2, {module.in_features}): {why}"
    shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
    wanted = (1, 2, module.out_features)
    return None if shape == wanted else f"a {kind.__name__}, which gives {shape} for {wanted}"
