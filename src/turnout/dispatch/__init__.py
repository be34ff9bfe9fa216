"""The model is chosen: which replica serves the request?

Contract: `Dispatcher.pick(request, replicas, now_s) -> Replica`. A replica has a load, a cache and a
health; what it answers and how well is not this room's business, so that every dispatcher can be run
against a simulated clock.

Imports: `core`. Used by: `gateway`. Siblings it does not see: `features`, `policies`, `datasets`, `nn`.

`registry` is the room's table: a name, and the "module:Class" that it stands for.
"""

from __future__ import annotations

from turnout.core.registry import Registry

TABLE: dict[str, str] = {}
"""Names of the dispatchers."""

registry = Registry("dispatch", TABLE)
"""The room's names; third parties add theirs through the entry points `turnout.dispatch`."""
