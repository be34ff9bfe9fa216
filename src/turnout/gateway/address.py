"""This module binds addresses: before anything else is started, so that a taken port is one sentence."""

from __future__ import annotations

import ipaddress
import socket

from turnout.core.errors import ConfigError, sentence

BACKLOG = 2048
"""Connections that the system holds until they are accepted."""

_DO = "choose another server.port (0 takes a free one) or server.host"


def bind(host: str, port: int, do: str = _DO, *, share: bool = False, listen: bool = True) -> socket.socket:
    """Return a socket that listens; raises `ConfigError` where there is none to be had.

    `share` lets other processes bind the same address, for workers. `do` says what to do in the caller's
    words.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unbound(host, port, error, do) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if listen:
            listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _unbound(host, port, error, do) from error
    return listener


def check_address(host: str, port: int, *, do: str = _DO) -> None:
    """Raise `ConfigError` where nothing can listen now, for whoever works long before it serves.

    `do` says what to do in the caller's words; nothing is kept open.
    """
    bind(host, port, do).close()


def shown_address(listener: socket.socket) -> str:
    """Return host and port as they stand in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_on_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches an address."""
    host: str = listener.getsockname()[0]
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def open_door_notice(listener: socket.socket) -> str | None:
    """Return what to say of an address that others can reach, where nobody is asked for a key."""
    if is_on_loopback(listener):
        return None
    return (
        f"the gateway listens on {shown_address(listener)} and asks nobody for a key: everyone who reaches "
        'this address can spend; server.host = "127.0.0.1" keeps it to this machine'
    )


def _unbound(host: str, port: int, error: OSError, do: str) -> ConfigError:
    return ConfigError(
        sentence(
            f"the gateway cannot listen on {host}:{port}",
            allowed="a free port of an address of this machine",
            got=error.strerror or str(error),
            do=do,
        )
    )
