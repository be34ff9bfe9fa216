"""The same questions inside a network: which expert, layer, adapter or block computes this token?

Contract: `Gate.forward(x_TD) -> Plan`. A gate makes a plan, an executor runs it, balance and losses read
it, analysis records it. A claim of saved compute is backed by a counter of executed operations.

Imports: `core`, and torch from the extra `nn`. Used by: `cli`. Siblings it does not see: `features`,
`policies`, `dispatch`, `datasets`. This file imports no torch, so that a name can be looked up without it.

`registry` is the room's table: a name, and the "module:Class" that it stands for.
"""

from __future__ import annotations

from turnout.core.registry import Registry

TABLE: dict[str, str] = {
    "local": "turnout.nn.serving.local:LocalModel",
    "arrow": "turnout.nn.adapters.arrow:ArrowRouter",
    "glider": "turnout.nn.adapters.glider:GliderRouter",
    "merged_adapters": "turnout.nn.adapters.merged:MergedAdapters",
    "oracle_adapter": "turnout.nn.adapters.oracle:OracleAdapter",
    "phatgoose": "turnout.nn.adapters.phatgoose:PhatgooseRouter",
    "single_adapter": "turnout.nn.adapters.single:SingleAdapter",
    "drllm": "turnout.nn.depth.drllm.router:DrLLMRouter",
    "duo": "turnout.nn.depth.duo.router:DuoRouter",
    "fixed_depth": "turnout.nn.depth.fixed:FixedDepth",
    "random_skip": "turnout.nn.depth.random_skip:RandomSkip",
    "rewiring": "turnout.nn.testtime.rewiring:Rewiring",
}
"""Names of the gates."""

registry = Registry("nn", TABLE)
"""The room's names; third parties add theirs through the entry points `turnout.nn`."""
