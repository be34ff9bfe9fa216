"""This module refuses what another site's page makes a browser send to a gateway that asks nobody for a key.

A browser reaches what no stranger does: a gateway on loopback. Any page may have it send requests there, and
one whose own name is made to lead to 127.0.0.1 (DNS rebinding) may read the answers, too. So a request of a
page counts only where the page is this gateway's, and on loopback a gateway has no other name than this
machine's.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from turnout.core.errors import sentence
from turnout.gateway.config import ServerSettings
from turnout.gateway.disconnect import Scope
from turnout.gateway.errors import ApiError

_ORIGIN, _SITE, _HOST = b"origin", b"sec-fetch-site", b"host"
_TOLD = frozenset({_ORIGIN, _SITE, _HOST})
_READS = ("GET", "HEAD")
_LOCAL = (".localhost", ".local", ".internal")
"""How names end that nobody can register."""


def check_page(scope: Scope, server: ServerSettings) -> None:
    """Raise `ApiError` (403) for a request of another site's page, where nobody needs a key."""
    host = b""
    told: dict[bytes, bytes] | None = None
    for name, value in scope["headers"]:
        if name in _TOLD:
            if name == _HOST:
                host = value
            else:
                told = {} if told is None else told
                told[name] = value
    if not _is_ours(host):
        _check_host(host, scope, server)
    if told is None or scope["method"] in _READS:
        return  # Other sites' pages may link here, and cannot read what is said.
    origin = told.get(_ORIGIN)
    if origin is None:
        _check_site(told[_SITE])
        return
    # A browser leaves the usual port out of both.
    own = origin.rpartition(b"://")[2]
    if own != host and _name_of(own) not in server.allowed_hosts:
        raise _cross_site(origin)


def _check_host(host: bytes, scope: Scope, server: ServerSettings) -> None:
    """Raise `ApiError` (403) where a connection to loopback asks under a name that may be a stranger's."""
    if _name_of(host) not in server.allowed_hosts and _is_loopback((scope.get("server") or ("",))[0]):
        raise _strange(host)


def check_site(scope: Scope) -> None:
    """Raise `ApiError` (403) for another site's page: a browser adds the password by itself."""
    _check_site(next((value for name, value in scope["headers"] if name == _SITE), b"none"))


def _check_site(site: bytes) -> None:
    if site not in (b"none", b"same-origin"):
        raise _cross_site(site)


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False  # A socket of the file system has no address.


def _name_of(host: bytes) -> str:
    try:
        return (urlsplit(f"//{host.decode('latin-1')}").hostname or "").rstrip(".")
    except ValueError:
        return "."


@lru_cache(maxsize=256)
def _is_ours(host: bytes) -> bool:
    """Whether a name is none that a stranger can have registered: an address, or a bare name."""
    name = _name_of(host)
    if not set(name) & {".", ":"} or name.endswith(_LOCAL):
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _cross_site(got: bytes) -> ApiError:
    message = sentence(
        "the request comes from a page of another site",
        allowed="requests of this gateway's own pages, or of no page",
        got=got[:200].decode("latin-1"),
        do="send it from the command line; where no key is needed, server.allowed_hosts may name the site",
    )
    return ApiError(403, message, code="cross_site", kind="permission_error")


def _strange(host: bytes) -> ApiError:
    message = sentence(
        "the gateway listens on loopback, needs no key, and is asked under a name that is not this machine's",
        allowed="localhost, an address, or a name of server.allowed_hosts",
        got=host[:200].decode("latin-1"),
        do="use such a name, add this one to server.allowed_hosts, or ask for keys",
    )
    return ApiError(403, message, code="strange_host", kind="permission_error")
