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
| `caps` | which spend caps a deployment cannot keep |
| `stream` | server-sent events: find the usage, notice a cut |
| `providers` | who answers: any OpenAI-compatible server, or a recording |
| `ledger`, `schema`, `spend` | the append-only memory of decisions and spend |
| `lifecycle` | sockets, signals, drain |

The names below load on first use; importing the room imports no server and no client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from turnout.gateway.app import Gateway, build_app
    from turnout.gateway.config import Config, demo_config, load_config
    from turnout.gateway.lifecycle import Ready, running, serve
    from turnout.gateway.spend import SpendSummary, spend_summary

_LAZY = {
    "Config": ".config",
    "Gateway": ".app",
    "Ready": ".lifecycle",
    "SpendSummary": ".spend",
    "build_app": ".app",
    "demo_config": ".config",
    "load_config": ".config",
    "running": ".lifecycle",
    "serve": ".lifecycle",
    "spend_summary": ".spend",
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


__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
