"""Which experts does this token deserve? Gates: one file a method, one contract (`contract.Gate`).

A gate reads hidden states x_TD and a `GateContext`, and returns a `Plan`; executors run it, losses read it.
`turnout.checks.check_gate` puts a gate's promises to the test; those here are in the table of `turnout.nn`.
"""

from __future__ import annotations
