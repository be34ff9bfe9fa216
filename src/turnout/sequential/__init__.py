"""What next, having seen the last step?

Contract: `Sequencer.next(trace)` answers with one of `Call`, `CallSet`, `Stop`, `Escalate` or `Abstain`.
A trace holds the steps of one task so far; what it cost and what came back. Embedders and clients come by
injection, and an environment stands in for the world.

Imports: `core`, `policies`. Used by: `gateway`, `cli`. Siblings it does not see: `routers`, `online`.

`registry` is the room's table: a name, and the "module:Class" that it stands for.
"""

from __future__ import annotations

from turnout.core.registry import Registry

TABLE: dict[str, str] = {}
"""Names of the sequencers."""

registry = Registry("sequential", TABLE)
"""The room's names; third parties add theirs through the entry points `turnout.sequential`."""
