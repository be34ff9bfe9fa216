"""This module is the language of Amazon Bedrock: Converse and ConverseStream, signed."""

from __future__ import annotations

import os
import time
from typing import ClassVar, final
from urllib.parse import quote

from turnout.core.errors import ConfigError, sentence
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.providers.base import Call, Fault, Reply
from turnout.gateway.providers.dialect import Dialect, Outgoing
from turnout.gateway.providers.opening import BEGUN, SILENT, Opening
from turnout.gateway.providers.sigv4 import AwsKeys, signed
from turnout.gateway.settings_providers import BedrockSettings
from turnout.gateway.translate.aws_events import AwsEventCutter
from turnout.gateway.translate.chat_request_as_messages import messages_body
from turnout.gateway.translate.converse_as_messages import ConverseAsChat, chat_of_converse, converse_error
from turnout.gateway.translate.events import BadEventError, Translator
from turnout.gateway.translate.json_form import INSTRUCTED, is_instructed
from turnout.gateway.translate.messages_as_converse import converse_request, is_anthropics

_SERVICE = "bedrock"
_ANNOUNCED = ("messageStart", "contentBlockStart")


@final
class BedrockDialect(Dialect):
    """Bedrock's Converse.

    Parameters
    ----------
    settings:
        Base URL and region.
    api_key:
        A Bedrock API key; it goes into the `authorization` header, and nothing is signed then.
    keys:
        Who signs, where there is no API key.
    """

    lists_cache_writes: ClassVar[bool] = True
    stream_type: ClassVar[str] = "application/vnd.amazon.eventstream"

    def __init__(self, *, settings: BedrockSettings, api_key: str | None, keys: AwsKeys | None) -> None:
        self.settings = settings
        self._keys = keys
        self._base = settings.base_url.rstrip("/")
        self._headers = {"content-type": "application/json"}
        if api_key is not None:
            self._headers["authorization"] = f"Bearer {api_key}"

    def lists_cache_reads(self, model: str) -> bool:
        """Anthropic's models do; those of others have prices of their own."""
        return is_anthropics(model)

    def outgoing(self, call: Call) -> Outgoing:
        """Return the signed request; raises `Fault` for what cannot be said."""
        body = converse_request(
            messages_body(
                call.request.members,
                model=call.model,
                candidate=call.candidate,
                default_max_tokens=None,
                thinking="effort",
            )
        )
        method = "converse-stream" if call.request.is_stream else "converse"
        url = f"{self._base}/model/{quote(call.model, safe='')}/{method}"
        headers = self._headers
        if self._keys is not None:
            headers = signed(
                url,
                body,
                headers,
                keys=self._keys,
                region=self.settings.region,
                service=_SERVICE,
                now_s=time.time(),
            )
        return Outgoing(url=url, headers={**headers, "accept-encoding": "identity"}, body=body)

    def whole(self, call: Call, reply: Reply) -> Reply:
        """Return a whole answer or an error as chat has it; raises `Fault` for a 200 that is no answer."""
        if reply.status != 200:
            kind = dict(reply.headers).get(b"x-amzn-errortype", b"").decode("latin-1") or None
            return Reply(status=reply.status, headers=reply.headers, body=converse_error(reply.body, kind))
        try:
            body = chat_of_converse(
                reply.body,
                answer_id=_id(call),
                model=call.model,
                only_object=is_instructed(call.request.members),
            )
        except BadEventError as error:
            raise _no_answer(error) from error
        return Reply(status=200, headers=reply.headers, body=body)

    def translator(self, call: Call) -> Translator:
        """Return what turns a stream into chat chunks."""
        return ConverseAsChat(
            answer_id=_id(call),
            model=call.model,
            asks_usage=call.request.asks_usage,
            only_object=is_instructed(call.request.members),
        )

    def added(self, call: Call) -> Headers:
        """Say where the model alone keeps the form of its answer."""
        return INSTRUCTED if is_instructed(call.request.members) else []

    def opening(self, held: bytes) -> Opening:
        """Return what the messages that are whole say; what cannot be read is left to who translates it."""
        try:
            messages = AwsEventCutter().feed(held)
        except BadEventError:
            return BEGUN
        for headers, payload in messages:
            if headers.get(":message-type", "event") != "event":
                return Opening("failed", payload)
            if headers.get(":event-type") not in _ANNOUNCED:
                return BEGUN
        return SILENT


def read_aws_keys(name: str, settings: BedrockSettings) -> AwsKeys | None:
    """Return the keys that the environment holds; None where an API key is used instead.

    Raises `ConfigError` where a variable is not set.
    """
    if settings.api_key_env is not None:
        return None
    values = {
        env: os.environ.get(env, "").strip() for env in (settings.access_key_env, settings.secret_key_env)
    }
    for env, value in values.items():
        if not value:
            raise ConfigError(
                sentence(
                    f"the provider {name!r} needs keys to sign with",
                    allowed=f"a key in the environment variable {env!r}",
                    got="nothing",
                    do="set it, or name the variable of a Bedrock API key as api_key_env",
                )
            )
    return AwsKeys(
        access_key=values[settings.access_key_env],
        secret_key=values[settings.secret_key_env],
        session_token=os.environ.get(settings.session_token_env, "").strip() or None,
    )


def _id(call: Call) -> str:
    return f"chatcmpl-{call.decision_id}"


def _no_answer(error: Exception) -> Fault:
    message = sentence(
        "an upstream of kind 'bedrock' answered 200 without an answer",
        allowed="an object with 'output' and 'stopReason'",
        got=str(error),
        do="check that its base_url is Bedrock's runtime",
    )
    api_error = ApiError(502, message, code="upstream_error", kind="upstream_error")
    return Fault(api_error, is_charge_unknown=True)
