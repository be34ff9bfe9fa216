"""This module opens a connection to a host that may have several addresses.

Source: RFC 8305, "Happy Eyeballs Version 2": addresses of both families in turn, the next one is tried when
the one before has failed or after a quarter of a second, and the first connection wins.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

_STAGGER_S = 0.25

Address = tuple[socket.AddressFamily, Any]
"""A family, and an address of it as sockets take it."""


async def addresses_of(host: str, port: int) -> list[Address]:
    """Return the addresses of a host, both families in turn; raises `OSError`."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[socket.AddressFamily, list[Address]] = {}
    for family, _, _, _, address in infos:
        families.setdefault(family, []).append((family, address))
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [found for found in turns if found is not None]


async def open_socket(addresses: Sequence[Address]) -> socket.socket:
    """Return a connected socket to one of the addresses; raises the first one's `OSError`."""
    if len(addresses) == 1:
        return await _connect(addresses[0])
    running: list[asyncio.Task[socket.socket]] = []
    try:
        for address in addresses:
            running.append(asyncio.create_task(_connect(address)))
            won = await _first(running, _STAGGER_S)
            if won is not None:
                return won
        won = await _first(running, None)
        if won is not None:
            return won
        raise _error_of(running)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_loser)


async def _first(running: list[asyncio.Task[socket.socket]], wait_s: float | None) -> socket.socket | None:
    """Return the socket of the first that succeeds; None where the time is up or all have failed."""
    until_s = None if wait_s is None else asyncio.get_running_loop().time() + wait_s
    while pending := [task for task in running if not task.done()]:
        left_s = None if until_s is None else max(0.0, until_s - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled() and task.exception() is None:
                running.remove(task)
                return task.result()
        if not done or pending[-1] in done:
            return None
    return None


def _error_of(running: list[asyncio.Task[socket.socket]]) -> OSError:
    error = running[0].exception()
    return error if isinstance(error, OSError) else OSError("no address could be reached")


def _close_loser(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(address: Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock
