"""This module calls a running gateway's admin paths, from the command line."""

from __future__ import annotations

import argparse
import http.client
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from turnout.cli.console import tell
from turnout.core.errors import ConfigError, InputError, ProviderError, sentence

if TYPE_CHECKING:
    from turnout.gateway.config import Config

_TIMEOUT_S = 120.0


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which gateway is meant."""
    parser.add_argument("config", type=Path, help="TOML file of the gateway")
    parser.add_argument("--url", metavar="URL", help="where it answers (default: as the file says)")
    parser.add_argument("--key-env", metavar="NAME", help="environment variable with an admin's key")


def admin_call(options: argparse.Namespace, config: Config, path: str) -> dict[str, Any] | None:
    """Post to a path below /admin and return the answer.

    None where no gateway listens there, or one of Ray's replicas does, which switch by their file. Raises
    `ConfigError` with the gateway's own sentence where it refuses.
    """
    from turnout.gateway.rollout_admin import REPLICAS

    server = config.server
    if options.url is None and server.port == 0:
        return None
    url = urlsplit(options.url or f"http://{server.host}:{server.port}")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InputError(sentence("--url is wrong", allowed="http://HOST:PORT", got=options.url))
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port, timeout=_TIMEOUT_S)
    try:
        connection.connect()
    except OSError as error:
        if options.url is None:
            return None
        what = f"no gateway answers at {options.url!r}"
        raise InputError(sentence(what, got=error.strerror or error, do="leave --url out")) from error
    try:
        connection.request("POST", path, body=b"", headers=_headers(options))
        response = connection.getresponse()
        status, body = response.status, response.read()
    except OSError as error:
        raise ProviderError(
            sentence("the gateway broke off", got=str(error), do="look at its log")
        ) from error
    finally:
        connection.close()
    try:
        told: dict[str, Any] = json.loads(body)
    except ValueError as error:
        what = f"what answers at {url.hostname}:{url.port} is no turnout gateway"
        raise InputError(sentence(what, got=body[:60], do="name the right --url")) from error
    refusal = told.get("error", {})
    if refusal.get("code") == REPLICAS:
        tell(
            "note: a replica on Ray answers there; `serve deploy` or `serve run` again puts a switch in force"
        )
        return None
    if status != 200:
        raise ConfigError(str(refusal.get("message", body[:200])))
    return told


def _headers(options: argparse.Namespace) -> dict[str, str]:
    if options.key_env is None:
        return {}
    key = os.environ.get(options.key_env, "").strip()
    if not key:
        what = f"the environment variable {options.key_env!r} holds no key"
        raise InputError(sentence(what, do="set it, or leave --key-env out"))
    return {"authorization": f"Bearer {key}"}
