"""This module is the language of any server that speaks the OpenAI API: bytes are passed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from turnout.core.candidate import Candidate
from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Call, Fault, KeptCall, Reply
from turnout.gateway.providers.body import named_body, responses_body, upstream_body, upstream_model
from turnout.gateway.providers.dialect import Dialect, Outgoing
from turnout.gateway.settings_providers import OpenAIBodySettings, OpenAISettings

_PATHS = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "compact": "/responses/compact",
    "conversations": "/conversations",
    "embeddings": "/embeddings",
}
_BODIES = {"responses": responses_body, "compact": named_body, "embeddings": named_body}


def no_choice(body: bytes) -> Fault:
    """Return the fault of a chat answer in which nothing is said."""
    message = sentence(
        "the upstream answered 200 without an answer",
        allowed="an object with at least one of 'choices'",
        got=body[:60].decode("utf-8", "replace"),
        do="check that its base_url is the API that its kind says",
    )
    error = ApiError(502, message, code="upstream_error", kind="upstream_error")
    return Fault(error, is_charge_unknown=True)


def spoken(settings: OpenAIBodySettings) -> frozenset[str]:
    """Return the APIs that calls may come in; whoever has Responses may have its compaction."""
    more = ["compact"] if "responses" in settings.apis else []
    return frozenset(["chat", *settings.apis, *more])


def with_betas(headers: Mapping[str, str], call: Call) -> Mapping[str, str]:
    """Return the headers of a call with the betas of OpenAI's that its client asks for."""
    if not call.betas:
        return headers
    return {**headers, **{name.decode(): value.decode("latin-1") for name, value in call.betas}}


@final
class OpenAIDialect(Dialect):
    """The OpenAI API.

    Parameters
    ----------
    settings:
        Base URL, and how budgets and adapters are written.
    api_key:
        The key itself; it goes into the `authorization` header and nowhere else.
    """

    rewrites = False

    def __init__(self, *, settings: OpenAISettings, api_key: str | None) -> None:
        self.settings = settings
        self.speaks = spoken(settings)
        base = settings.base_url.rstrip("/")
        self._urls = {name: base + path for name, path in _PATHS.items()}
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key is not None:
            self._headers["authorization"] = f"Bearer {api_key}"

    def model_name(self, candidate: Candidate) -> str:
        """Return the upstream's name, with the adapter as `adapter_model` writes it."""
        return upstream_model(candidate, self.settings)

    def outgoing(self, call: Call) -> Outgoing:
        """Return the client's own bytes, with what the candidate sets."""
        write = _BODIES.get(call.protocol)
        body = upstream_body(call, self.settings) if write is None else write(call)
        return Outgoing(url=self._urls[call.protocol], headers=with_betas(self._headers, call), body=body)

    def whole(self, call: Call, reply: Reply) -> Reply:
        """Return a whole reply as it is; raises `Fault` for a chat answer without a choice."""
        if reply.status == 200 and reply.completion is not None and not reply.completion.choices:
            raise no_choice(reply.body)
        return reply

    def kept(self, call: KeptCall) -> Outgoing | None:
        """Return what to send about what is kept; None where the upstream has no such path."""
        if call.kind not in self.speaks:
            return None
        url = self._urls[call.kind] + call.path + (f"?{call.query}" if call.query else "")
        return Outgoing(url=url, headers=self._headers, body=call.body)
