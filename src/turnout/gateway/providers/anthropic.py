"""This module is the language of a server that speaks Anthropic's Messages API."""

from __future__ import annotations

from typing import ClassVar, final

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.providers.anthropic_body import own_body
from turnout.gateway.providers.base import Call, Fault, Reply
from turnout.gateway.providers.dialect import Dialect, Outgoing
from turnout.gateway.settings_providers import AnthropicSettings
from turnout.gateway.translate.chat_request_as_messages import messages_request
from turnout.gateway.translate.events import Translator
from turnout.gateway.translate.json_form import INSTRUCTED, is_instructed
from turnout.gateway.translate.messages_answer_as_chat import chat_completion
from turnout.gateway.translate.messages_stream_as_chat import MessagesAsChat
from turnout.gateway.translate.words import chat_error

_OWN = "messages"
CLIENT_HEADERS = (b"anthropic-version", b"anthropic-beta")
"""Headers of a client that are passed on where it speaks Messages."""


@final
class AnthropicDialect(Dialect):
    """Anthropic's Messages.

    Parameters
    ----------
    settings:
        Base URL, version and defaults.
    api_key:
        The key itself; it goes into the `x-api-key` header and nowhere else.
    """

    speaks: frozenset[str] = frozenset({"chat", "messages"})
    lists_cache_writes: ClassVar[bool] = True

    def __init__(self, *, settings: AnthropicSettings, api_key: str | None) -> None:
        self.settings = settings
        self._url = settings.base_url.rstrip("/") + "/messages"
        self._headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "anthropic-version": settings.version,
        }
        if api_key is not None:
            self._headers["x-api-key"] = api_key

    def lists_cache_reads(self, model: str) -> bool:
        """Every model of Anthropic's does."""
        return True

    def outgoing(self, call: Call) -> Outgoing:
        """Return the client's own bytes with what the candidate sets, or a translation; raises `Fault`."""
        if call.protocol == _OWN:
            headers = self._headers | _passed(call)
            return Outgoing(url=self._url, headers=headers, body=own_body(call, self.settings))
        body = messages_request(
            call.request.members, model=call.model, candidate=call.candidate, settings=self.settings
        )
        return Outgoing(url=self._url, headers=self._headers, body=body)

    def whole(self, call: Call, reply: Reply) -> Reply:
        """Return a whole answer or an error as chat has it; raises `Fault` for a 200 that is no answer."""
        if call.protocol == _OWN:
            return reply
        if reply.status != 200:
            return Reply(status=reply.status, headers=reply.headers, body=chat_error(reply.body))
        try:
            body = chat_completion(reply.body, only_object=is_instructed(call.request.members))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _no_message(error) from error
        return Reply(status=200, headers=reply.headers, body=body)

    def translator(self, call: Call) -> Translator | None:
        """Return what turns a stream into chat chunks; None where the client speaks Messages."""
        if call.protocol == _OWN:
            return None
        request = call.request
        return MessagesAsChat(asks_usage=request.asks_usage, only_object=is_instructed(request.members))

    def added(self, call: Call) -> Headers:
        """Say where the model alone keeps the form of its answer."""
        return INSTRUCTED if call.protocol != _OWN and is_instructed(call.request.members) else []


def _passed(call: Call) -> dict[str, str]:
    """Return the client's headers that Anthropic's API knows."""
    return {
        name.decode(): value.decode("latin-1")
        for name, value in call.client_headers
        if name in CLIENT_HEADERS
    }


def _no_message(error: Exception) -> Fault:
    message = sentence(
        "an upstream of kind 'anthropic' answered 200 without a message",
        allowed="an object with 'id', 'model' and 'content'",
        got=str(error),
        do="check that its base_url is Anthropic's API",
    )
    api_error = ApiError(502, message, code="upstream_error", kind="upstream_error")
    return Fault(api_error, is_charge_unknown=True)
