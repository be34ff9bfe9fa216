"""This module names the token ids of a forward pass, so that recorded and replayed passes can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from turnout.nn.late import is_late


class TokenIds:
    """The ids that a model was called with, as they were; a GPU's are copied beside its work.

    What is pickled or copied deeply is the name alone.
    """

    def __init__(self, ids: Mapping[str, Tensor]) -> None:
        # Into pinned memory, which is not waited for; a copy even on a processor, where ids may change.
        self._ids = {
            name: value.detach().to("cpu", torch.int64, non_blocking=True, copy=True)
            for name, value in ids.items()
        }
        self._arrivals: list[Any] = []
        for device in {value.device for value in ids.values() if value.is_cuda}:
            arrival: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrival.record(torch.cuda.current_stream(device))
            self._arrivals.append(arrival)
        self._name: str | None = None
        if not any(is_late(value.device) for value in ids.values()):
            self._name = self._named()

    @property
    def name(self) -> str:
        """Sixteen hex digits; asked for the first time, it waits until the ids are there."""
        if self._name is None:
            self._name = self._named()
        return self._name

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Leave the name."""
        return str, (self.name,)

    def _named(self) -> str:
        for arrival in self._arrivals:
            arrival.synchronize()
        digest = hashlib.sha256()
        for name, ids in self._ids.items():
            digest.update(f"{name}{tuple(ids.shape)}".encode())
            digest.update(ids.contiguous().numpy().tobytes())
        self._ids, self._arrivals = {}, []
        return digest.hexdigest()[:16]


class TokensField:
    """A field of a dataclass that is given a name or ids, and reads as the name; None where it got none."""

    def __get__(self, holder: object, kind: type | None = None) -> str | None:
        """Return the name; of the class, the default."""
        value = None if holder is None else holder.__dict__.get("_tokens")
        return value.name if isinstance(value, TokenIds) else value

    def __set__(self, holder: object, value: str | TokenIds | None) -> None:
        """Keep what is given, in a frozen dataclass too: it does so once, when it is made."""
        holder.__dict__["_tokens"] = value
