"""This module holds what every test shares: steady property tests, a quiet screen, and no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import hypothesis
import pytest

# Two machines must see the same examples, and a slow one must not fail for being slow.
hypothesis.settings.register_profile("turnout", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("turnout")

os.environ.setdefault("MPLBACKEND", "Agg")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

pytest_plugins = ("tests.no_skips",)

_LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> Iterator[None]:
    """Refuse every connection that would leave the machine."""
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in _LOCAL:
            raise RuntimeError(f"a test tried to reach {host!r}; tests use the loopback only")
        connect(self, address)  # type: ignore[arg-type]

    def guarded_lookup(host: object, *args: object, **kwargs: object) -> object:
        if host not in (None, "", *_LOCAL):
            raise RuntimeError(f"a test tried to look up {host!r}; tests use the loopback only")
        return lookup(host, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket, "getaddrinfo", guarded_lookup)
        yield
