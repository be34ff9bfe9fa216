"""This module is the language of Azure OpenAI: OpenAI's bytes at another address."""

from __future__ import annotations

from typing import final
from urllib.parse import quote

from turnout.core.candidate import Candidate
from turnout.gateway.providers.base import Call, KeptCall
from turnout.gateway.providers.body import named_body, responses_body, upstream_body, upstream_model
from turnout.gateway.providers.dialect import Dialect, Outgoing
from turnout.gateway.providers.openai import spoken, with_betas
from turnout.gateway.settings_providers import AzureSettings

_PATHS = {
    "chat": "/openai/deployments/{name}/chat/completions",
    "embeddings": "/openai/deployments/{name}/embeddings",
    "responses": "/openai/responses",
    "compact": "/openai/responses/compact",
}
_BODIES = {"responses": responses_body, "compact": named_body, "embeddings": named_body}


@final
class AzureDialect(Dialect):
    """Azure OpenAI. The upstream's name of a model is the name of a deployment there.

    Parameters
    ----------
    settings:
        Base URL, version, and how budgets and adapters are written.
    api_key:
        The key itself; it goes into the `api-key` header and nowhere else.
    """

    rewrites = False

    def __init__(self, *, settings: AzureSettings, api_key: str | None) -> None:
        self.settings = settings
        self.speaks = spoken(settings)
        self._base = settings.base_url.rstrip("/")
        self._query = f"?api-version={quote(settings.api_version)}"
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key is not None:
            self._headers["api-key"] = api_key

    def model_name(self, candidate: Candidate) -> str:
        """Return the deployment's name, with the adapter as `adapter_model` writes it."""
        return upstream_model(candidate, self.settings)

    def outgoing(self, call: Call) -> Outgoing:
        """Return the client's own bytes, with what the candidate sets."""
        path = _PATHS[call.protocol].replace("{name}", quote(call.model, safe=""))
        write = _BODIES.get(call.protocol)
        body = upstream_body(call, self.settings) if write is None else write(call)
        headers = with_betas(self._headers, call)
        return Outgoing(url=self._base + path + self._query, headers=headers, body=body)

    def kept(self, call: KeptCall) -> Outgoing | None:
        """Return what to send about a kept response; None where the upstream has no Responses.

        Conversations are there under `/openai/v1` alone, which is the API of kind `openai`.
        """
        if call.kind != "responses" or "responses" not in self.speaks:
            return None
        query = self._query + (f"&{call.query}" if call.query else "")
        url = self._base + _PATHS["responses"] + call.path + query
        return Outgoing(url=url, headers=self._headers, body=call.body)
