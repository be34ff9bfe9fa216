"""Does a class keep its promises?

Contract: `check_router(router)`, `check_policy(policy)`, `check_embedder(embedder)`, `check_gate(gate)` and
`check_configured(thing)` yield named checks; `run(checks)` runs them and returns a printable `Report`.
A check is a plain function of the object: it returns, or raises `CheckFailed` with one sentence, or
`CheckSkipped` with the reason why the promise does not apply. Imports: `core`, and for gates the contract of
`nn`, which is loaded on first use; needs no test framework.

`yield_variants(cls)` varies every constructor parameter, so that a suite can be run over all settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.checks.configured import check_configured
from turnout.checks.embedder import check_embedder
from turnout.checks.policy import check_policy
from turnout.checks.report import Check, CheckFailed, CheckSkipped, Report, Result, run
from turnout.checks.router import check_router
from turnout.checks.variants import Settings, Variant, yield_variants
from turnout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from turnout.checks.gate import check_gate

__all__ = [
    "Check",
    "CheckFailed",
    "CheckSkipped",
    "Report",
    "Result",
    "Settings",
    "Variant",
    "check_configured",
    "check_embedder",
    "check_gate",
    "check_policy",
    "check_router",
    "run",
    "yield_variants",
]

__getattr__, __dir__ = lazy_exports(__name__, {"check_gate": ".gate"})
