"""This module checks that a table can judge a deployment."""

from __future__ import annotations

from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.policies import Deployment


def check_same_pool(deployment: Deployment, table: OutcomeTable) -> None:
    """Raise `InputError` for a table that lacks a candidate of the deployment."""
    pool = {candidate.name for candidate in deployment.candidates}
    missing = sorted(pool - set(table.names))
    if not missing:
        return
    raise InputError(
        sentence(
            f"the table lacks {len(missing)} of the deployment's candidates",
            allowed=f"a table with all {len(pool)} of them",
            got=f"for example {missing[0]!r} is missing",
            do="name the table it was fitted from, or fit again",
        )
    )
