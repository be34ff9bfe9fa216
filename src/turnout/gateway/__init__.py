"""How do bytes get in and out?

Contract: an ASGI app that speaks the OpenAI API. A request becomes a `Query`, a deployment decides, a
provider answers, the ledger remembers. Async lives here and nowhere below.

Imports: `core` (later `features`, `policies`, `dispatch`, `online`, `sequential`, `evaluation`). Never
`routers` or `training`: a deployment is loaded by name, through `core.artifact`. Used by: `cli`.

A request passes these steps, each in a module of its own; `exchange` carries it from one to the next:

    routes -> admit -> protocols (parse) -> obey -> decide -> attempt -> providers -> settle -> ledger

| module | purpose |
|---|---|
| `config`, `settings*`, `toml`, `expected` | the settings, their file, the decoder's messages as sentences |
| `build`, `reload`, `diff`, `config_schema` | what the settings name; other settings, whole or not at all |
| `app` | the ASGI callable: makes the table of paths and lives from start to shutdown |
| `routes` | the table: (method, path) -> handler; a new endpoint is one `routes.add` |
| `endpoints`, `admin` | handlers that read and change nothing: models, health; those that do |
| `parts` | what a gateway is made of under one configuration; swapped whole, never changed |
| `cache`, `cache_key`, `answer_again` | answers that are given again |
| `explain`, `reasons` | what a request would lead to, and why |
| `ui` | the page |
| `feedback` | scores that come later |
| `exchange` | one request on its way through the steps |
| `flow` | the steps in their order, and what becomes of a request that fails in one of them |
| `admit`, `body` | may it come in: capacity; the body up to its limit |
| `admission`, `afford`, `dial` | who asks, for what, and what is left of the budget; whose dial holds |
| `key*`, `secret`, `door` | keys and where they are kept; secrets by reference; paths that serve no model |
| `limits*`, `books` | how spend and rates are counted, and where |
| `shared*`, `central*` | what hosts share: a Redis, a PostgreSQL that gets every row |
| `protocols` | one module per API: parse a request, read along with a stream, word an error |
| `wire` | OpenAI's shapes: what is read from a request, and how it is passed on unchanged |
| `signals`, `conditions`, `rules` | what a rule asks of a request, and which rules hold |
| `obey`, `rewrite`, `conversation*` | what they put in force: the request is changed or refused |
| `decide` | the contract of the step that decides, and the deployment as its plainest form |
| `told` | the task and the tags that a client tells beside the text |
| `select`, `pacers`, `caps` | pure: a request and its headers to a ranked list; paced caps, unkept caps |
| `warmth`, `pins*` | who has read a conversation already; who keeps a response |
| `kept*`, `stored`, `conversation_makers`, `conversations` | what upstreams keep of OpenAI's APIs |
| `attempt` | down the ranked list until somebody answers |
| `providers` | who answers: any OpenAI-compatible server, a recording, a model in this process |
| `settle`, `stream`, `reply` | the answer on its way out: whole or as events, its usage, its headers |
| `disconnect` | a client that leaves ends the work |
| `account`, `ledger`, `schema`, `session` | one row per request in an append-only memory |
| `prices` | price cards of a file with a date |
| `spend`, `ledger_*` | what a ledger sums to; exports, retention, deletion, a look at its file |
| `metrics*`, `telemetry*` | what Prometheus and OpenTelemetry are told |
| `sequence*` | several calls for one request |
| `lifecycle`, `address` | signals, drain; sockets |
| `workers`, `worker`, `board` | several processes on one port, and their numbers together |

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
