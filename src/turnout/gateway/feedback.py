"""This module takes scores that come later: POST /v1/feedback joins one to the decision that it judges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, final

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.admit import ledger_full
from turnout.gateway.body import read_body
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError
from turnout.gateway.expected import mismatch
from turnout.gateway.key import Key
from turnout.gateway.parts import Parts
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.routes import Routes
from turnout.gateway.schema import FeedbackRow

FEEDBACK = "/v1/feedback"

_EXAMPLE = 'send for example {"decision_id": "0193...", "score": 1}'


class _Score(msgspec.Struct, forbid_unknown_fields=True):
    decision_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    source: Annotated[str, msgspec.Meta(max_length=200)] | None = None


_decoder = msgspec.json.Decoder(_Score)


@final
class Feedback:
    """The endpoint that takes scores.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts

    def add_to(self, routes: Routes) -> None:
        """Add the path."""
        routes.add("POST", FEEDBACK, self.take)

    async def take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write a score into the ledger; raises `ApiError` (400, 404, 503)."""
        parts = self._parts()
        if parts.ledger.is_full:
            raise ledger_full()
        given = _parse(await read_body(scope, receive, parts.config.server))
        owner = await asyncio.to_thread(parts.ledger.owner, given.decision_id)
        key: Key | None = scope.get(KEY)
        # A decision of another tenant is not there for this one: its existence is nobody else's business.
        if owner is None or (key is not None and not key.is_admin and key.tenant != owner.tenant):
            raise _unknown(given.decision_id)
        row = FeedbackRow(
            decision_id=given.decision_id,
            time_s=parts.clock.now_s(),
            score=given.score,
            source=given.source,
        )
        parts.ledger.add(row)
        body = {"object": "turnout.feedback", "decision_id": row.decision_id, "score": row.score}
        await send_body(send, json_reply(body), [], is_estimated=False)


def _parse(body: bytes) -> _Score:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        found = mismatch(error)
        param = found.missing or found.place or None
        what = "the feedback is wrong" if param is None else f"the field {param!r} of the feedback is wrong"
        message = sentence(what, allowed=found.allowed, got=found.got, do=_EXAMPLE)
        raise ApiError(400, message, code="invalid_feedback", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        allowed = "a JSON object with 'decision_id', 'score' in [0, 1], and perhaps 'source'"
        message = sentence("the feedback is no JSON object", allowed=allowed, got=str(error), do=_EXAMPLE)
        raise ApiError(400, message, code="invalid_json") from error


def _unknown(decision_id: str) -> ApiError:
    message = sentence(
        "there is no such decision",
        allowed="what the header x-turnout-decision-id of an answer said",
        got=decision_id,
        do="send the header's value; one that a crash took away is gone",
    )
    return ApiError(404, message, code="decision_not_found", param="decision_id")
