"""How do bytes get in and out?

Contract: an ASGI app that speaks the OpenAI API. A request becomes a `Query`, a deployment decides, a
provider answers, the ledger remembers. Async lives here and nowhere below.

Imports: `core` (later `features`, `policies`, `dispatch`, `online`, `sequential`, `evaluation`). Never
`routers` or `training`: a deployment is loaded by name, through `core.artifact`. Used by: `cli`.

| module | purpose |
|---|---|
| `config` | the settings, and the TOML file they come from |
| `app` | the ASGI callable and its table of paths |
| `chat` | one chat request from bytes to bytes: decide, ask down the ranked list, account |
| `expected` | the decoder's messages, taken apart for ours |
| `wire` | the OpenAI shapes: what is read from a request, and how it is passed on unchanged |
| `select` | pure: a request and its headers to a decision |
| `stream` | server-sent events: find the usage, notice a cut |
| `providers` | who answers: any OpenAI-compatible server, or a recording |
| `ledger`, `schema`, `spend` | the append-only memory of decisions and spend |
| `lifecycle` | sockets, signals, drain |

The names below load on first use; importing the room imports no server and no client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turnout.gateway.app import Gateway, build_app
    from turnout.gateway.config import Config, demo_config, load_config
    from turnout.gateway.lifecycle import Ready, running, serve
    from turnout.gateway.spend import SpendSummary, spend_summary

_LAZY = {
    "Config": "turnout.gateway.config",
    "Gateway": "turnout.gateway.app",
    "Ready": "turnout.gateway.lifecycle",
    "SpendSummary": "turnout.gateway.spend",
    "build_app": "turnout.gateway.app",
    "demo_config": "turnout.gateway.config",
    "load_config": "turnout.gateway.config",
    "running": "turnout.gateway.lifecycle",
    "serve": "turnout.gateway.lifecycle",
    "spend_summary": "turnout.gateway.spend",
}

__all__ = [
    "Config",
    "Gateway",
    "Ready",
    "SpendSummary",
    "build_app",
    "demo_config",
    "load_config",
    "running",
    "serve",
    "spend_summary",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_LAZY))}"
        )
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
