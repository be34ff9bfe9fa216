"""This module keeps a pool beside its base: a folder in PEFT's format per adapter, and what routes them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from turnout.core.errors import ArtifactError, sentence
from turnout.nn import registry
from turnout.nn.adapters.contract import AdapterRouter
from turnout.nn.adapters.pool import AdapterPool
from turnout.nn.sidecar import load_sidecar, save_sidecar

KIND = "adapters"


def save_pool(pool: AdapterPool, folder: str | Path) -> Path:
    """Write `<folder>/<adapter>/` for each adapter, and gates, vectors and router in a side file.

    Returns the side file's path. PEFT loads each adapter's folder as it is.
    """
    place, tensors = Path(folder), dict[str, Tensor]()
    gated, router = pool.context().gated, pool.router
    for name in pool.names:
        pool.export(name, place / name)
        if name in gated:
            tensors |= {f"gate/{name}/{path}": gate_D for path, gate_D in pool.gate(name).items()}
        if (vector_G := pool.vector(name)) is not None:
            tensors[f"vector/{name}"] = vector_G
    config = {
        "adapters": list(pool.names),
        "gated": sorted(gated),
        "mixed_ranks": pool.mixed_ranks,
        "router": None
        if router is None
        else {"name": registry.name_of(type(router)), "config": router.config()},
    }
    return save_sidecar(place, KIND, config=config, tensors=tensors)


def load_pool(model: nn.Module, folder: str | Path, *, is_same_base: bool = False) -> AdapterPool:
    """Return the pool that `save_pool` wrote, in place on `model`.

    On an error the model is left as it was. Raises `ArtifactError` for a damaged file, `InputError` for a
    model that is not the adapters' base.
    """
    config, tensors = load_sidecar(folder, KIND)
    pool = AdapterPool(model=model, mixed_ranks=bool(config.get("mixed_ranks")))
    try:
        _fill(pool, Path(folder), config, tensors, is_same_base)
    except (KeyError, TypeError) as error:
        pool.close()
        raise ArtifactError(
            sentence(
                f"{folder}: the pool's side file does not hold together",
                got=f"{type(error).__name__}: {error}",
                do="save the pool again",
            )
        ) from error
    except BaseException:
        pool.close()
        raise
    return pool


def _fill(
    pool: AdapterPool, place: Path, config: dict[str, object], tensors: dict[str, Tensor], is_same_base: bool
) -> None:
    names, gated, router = config["adapters"], config["gated"], config["router"]
    if not isinstance(names, list) or not isinstance(gated, list):
        raise KeyError("adapters")
    for name in names:
        pool.load(place / name, name=name, is_same_base=is_same_base)
        if name in gated:
            pool.set_gate(name, {path: tensors[f"gate/{name}/{path}"] for path in pool.sites})
        if f"vector/{name}" in tensors:
            pool.describe(name, tensors[f"vector/{name}"])
    if isinstance(router, dict):
        made = registry.get(router["name"], is_stored=True)(**router["config"])
        if not isinstance(made, AdapterRouter):
            raise KeyError("router")
        pool.router = made
