"""This module is a stream of an upstream as it arrives over HTTP."""

from __future__ import annotations

import asyncio
from typing import final

from turnout.gateway.alarm import Patience
from turnout.gateway.providers.base import Chunks, TakeIn, Wait, cut
from turnout.gateway.providers.response import ClientError, Response


@final
class Arriving(Chunks):
    """Blocks as they come; one that lets wait too long is cut.

    Parameters
    ----------
    name:
        Of the provider, for errors.
    response:
        What arrives.
    first:
        What has arrived.
    idle_s:
        How long the upstream may be silent.
    """

    def __init__(self, name: str, response: Response, first: bytes, idle_s: float) -> None:
        self._name = name
        self._response = response
        self._first = first
        self._idle_s = idle_s
        self._patience: Patience | None = None

    async def read(self) -> bytes:
        """Return what has arrived; raises `Fault` where nothing does in time."""
        if self._first:
            block, self._first = self._first, b""
            return block
        if block := self._response.ready():
            return block
        patience = self._patience
        if patience is None:
            patience = self._patience = Patience(self._idle_s)
        patience.begin()
        try:
            return await self._response.read_some()
        except ClientError as error:
            raise cut(self._name, error, may_fall_back=False) from error
        except asyncio.CancelledError as error:
            if patience.is_cause():
                raise cut(self._name, TimeoutError(), may_fall_back=False) from error
            raise
        finally:
            patience.end()

    async def pour(self, take_in: TakeIn) -> None:
        """Have blocks taken where they arrive, without a turn of the event loop for each."""
        if self._first:
            block, self._first = self._first, b""
            if (wait := take_in(block)) is not None:
                await wait()
        patience = Patience(self._idle_s)

        def take(block: bytes) -> Wait | None:
            patience.go_on()
            return take_in(block)

        try:
            while True:
                patience.begin()
                wait = await self._response.hand_on(take)
                patience.end()
                if wait is None:
                    return
                await wait()
        except ClientError as error:
            raise cut(self._name, error, may_fall_back=False) from error
        except asyncio.CancelledError as error:
            if patience.is_cause():
                raise cut(self._name, TimeoutError(), may_fall_back=False) from error
            raise
        finally:
            patience.end()
            patience.stop()

    def close(self) -> None:
        """Stop; an upstream that is still sending sees its connection closed."""
        if self._patience is not None:
            self._patience.stop()
        # A response that was read to its end has given its connection back already; closing it is free.
        self._response.close()
