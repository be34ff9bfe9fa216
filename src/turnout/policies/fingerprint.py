"""This module names a fitted object by a digest of its configuration and of everything that it learned."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from turnout.core.contracts import Configured


def fingerprint_of(thing: Configured) -> str:
    """Return sixteen hex digits; objects of equal digits decide alike."""
    digest = hashlib.sha256()
    _add(thing, digest)
    return digest.hexdigest()[:16]


def _add(thing: Configured, digest: Any) -> None:
    digest.update(type(thing).__qualname__.encode())
    for name, value in sorted(thing.config().items()):
        if isinstance(value, Configured):
            _add(value, digest)
        else:
            digest.update(f"{name}={value!r}".encode("utf-8", "surrogatepass"))
    if not thing.is_fitted:
        return
    state = thing.state()
    for name, array in sorted(state.arrays.items()):
        digest.update(name.encode())
        # Not as bytes: copies of large tables would stay in the memory of a gateway that has just started.
        digest.update(np.ascontiguousarray(array).ravel().view(np.uint8))
    digest.update(json.dumps(dict(state.values), sort_keys=True, default=str).encode())
    for _, part in sorted(state.parts.items()):
        _add(part, digest)
