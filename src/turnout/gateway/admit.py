"""This module is the step at the door: may this request come in at all?"""

from __future__ import annotations

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError


def ledger_full() -> ApiError:
    """503 while rows wait for the disk and memory may hold no more of them."""
    message = sentence(
        "the ledger cannot be written and holds as many rows as it may",
        allowed="at most ledger.max_pending rows that wait for the disk",
        do="make room on its disk; no request is served that could not be accounted",
    )
    headers = [(b"retry-after", b"5")]
    return ApiError(503, message, code="ledger_unavailable", kind="server_error", headers=headers)
