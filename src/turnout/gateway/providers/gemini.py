"""This module is the language of Google's Gemini API."""

from __future__ import annotations

from typing import final
from urllib.parse import quote

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Call, Fault, Reply
from turnout.gateway.providers.dialect import Dialect, Outgoing
from turnout.gateway.providers.opening import Opening, read_opening
from turnout.gateway.settings_providers import GeminiSettings
from turnout.gateway.translate.chat_request_as_gemini import gemini_request
from turnout.gateway.translate.events import BadEventError, EventCutter, Translator, read_object
from turnout.gateway.translate.gemini_answer_as_chat import (
    GeminiAsChat,
    NotAnAnswerError,
    chat_of_gemini,
    gemini_error,
    is_lost,
)
from turnout.gateway.translate.refusal import plain


@final
class GeminiDialect(Dialect):
    """Gemini's generateContent and streamGenerateContent.

    Parameters
    ----------
    settings:
        Base URL, and how an effort is written.
    api_key:
        The key itself; it goes into the `x-goog-api-key` header and nowhere else.
    """

    def __init__(self, *, settings: GeminiSettings, api_key: str | None) -> None:
        self.settings = settings
        self._base = settings.base_url.rstrip("/")
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key is not None:
            self._headers["x-goog-api-key"] = api_key

    def outgoing(self, call: Call) -> Outgoing:
        """Return the request; raises `Fault` for what cannot be said."""
        method = "streamGenerateContent?alt=sse" if call.request.is_stream else "generateContent"
        name = call.model if "/" in call.model else f"models/{call.model}"
        body = gemini_request(call.request.members, candidate=call.candidate, settings=self.settings)
        return Outgoing(url=f"{self._base}/{quote(name)}:{method}", headers=self._headers, body=body)

    def whole(self, call: Call, reply: Reply) -> Reply:
        """Return a whole answer or an error as chat has it; raises `Fault` for a 200 that is no answer."""
        if reply.status != 200:
            return Reply(status=reply.status, headers=reply.headers, body=gemini_error(reply.body))
        try:
            return Reply(status=200, headers=reply.headers, body=chat_of_gemini(reply.body))
        except NotAnAnswerError as error:
            raise _no_answer(error) from error

    def translator(self, call: Call) -> Translator:
        """Return what turns a stream into chat chunks."""
        n = plain(call.request.members.get("n"))
        num_choices = n if isinstance(n, int) else 1
        return GeminiAsChat(asks_usage=call.request.asks_usage, num_choices=num_choices)

    def opening(self, held: bytes) -> Opening:
        """Return what the first bytes of a stream say; an answer that was lost is none."""
        opening = read_opening(held)
        if opening.look != "begun":
            return opening
        for data in EventCutter().feed(held):
            try:
                told = read_object(data)
                return Opening("failed", data) if is_lost(told) else opening
            except (BadEventError, AttributeError, TypeError):
                break
        return opening


def _no_answer(error: Exception) -> Fault:
    message = sentence(
        "an upstream of kind 'gemini' answered 200 without an answer",
        allowed="an object with 'candidates'",
        got=str(error),
        do="check that its base_url is Gemini's API",
    )
    api_error = ApiError(502, message, code="upstream_error", kind="upstream_error")
    return Fault(api_error, is_charge_unknown=True)
