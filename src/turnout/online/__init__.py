"""What does one observed answer teach us?

Contract: `Learner.act(context) -> Decision` and `observe(decision, outcome)`. Every decision carries its
propensity, so that a log can be replayed off-policy. Embedders and clients come by injection.

Imports: `core`, `policies`. Used by: `gateway`, `cli`. Siblings it does not see: `routers`, `sequential`.

`registry` is the room's table: a name, and the "module:Class" that it stands for.
"""

from __future__ import annotations

from turnout.core.registry import Registry

TABLE: dict[str, str] = {}
"""Names of the learners."""

registry = Registry("online", TABLE)
"""The room's names; third parties add theirs through the entry points `turnout.online`."""
