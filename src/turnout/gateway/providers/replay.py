"""This module answers known questions with what the chosen candidate once said, and invents nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Call, Chunks, Fault, Provider, Reply
from turnout.gateway.providers.recording import Recorded, Recording
from turnout.gateway.providers.written import ChatEvents, Usage, usage_of, whole_reply

_CHARS_PER_CHUNK = 24


@final
class ReplayProvider(Provider):
    """Answers from a recording.

    Parameters
    ----------
    name:
        The provider's name in the configuration.
    recording:
        Questions and answers.
    """

    is_replay: ClassVar[bool] = True

    def __init__(self, *, name: str, recording: Recording) -> None:
        super().__init__(name=name)
        self.recording = recording

    async def ask(self, call: Call) -> Reply:
        """Return the recorded answer; raises `Fault` (404) where there is none."""
        recorded = self._find(call)
        if call.request.is_stream:
            events = ChatEvents(call)
            return Reply(status=200, headers=events.headers, chunks=_Replayed(_events(events, recorded)))
        return whole_reply(call, recorded.answer or "", finish="stop", usage=_usage(recorded))

    def _find(self, call: Call) -> Recorded:
        known = None if call.request.text is None else self.recording.find(call.request.text)
        name = call.candidate.name
        if known is None:
            raise self._nothing(
                "this provider replays recorded answers and does not know the question",
                code="replay_unknown_question",
                do="ask a question of the table word for word, or configure a provider of kind 'openai' "
                "(base_url, api_key_env) and make it the default_provider",
            )
        if name not in known or known[name].answer is None:
            raise self._nothing(
                f"the recording holds no answer of {name!r} to this question",
                code="replay_missing_answer",
                do="name another candidate as the model, or configure a provider of kind 'openai'",
            )
        return known[name]

    def _nothing(self, what: str, *, code: str, do: str) -> Fault:
        """Another candidate's answer would be a wrong replay of the decision, so nothing falls back."""
        message = sentence(
            what, allowed=f"the {len(self.recording)} questions of {self.recording.where!r}", do=do
        )
        return Fault(
            ApiError(404, message, code=code, param="messages"), may_fall_back=False, is_failure=False
        )


@final
class _Replayed(Chunks):
    def __init__(self, events: Iterator[bytes]) -> None:
        self._events = events

    async def read(self) -> bytes:
        return next(self._events, b"")

    def close(self) -> None:
        self._events = iter(())


def _events(events: ChatEvents, recorded: Recorded) -> Iterator[bytes]:
    yield events.begin()
    for piece in pieces(recorded.answer or ""):
        yield events.piece(piece)
    yield events.end("stop", _usage(recorded))


def pieces(text: str) -> list[str]:
    """Cut a text into parts of about `_CHARS_PER_CHUNK` characters, at least two where it has two."""
    size = max(1, min(_CHARS_PER_CHUNK, (len(text) + 1) // 2))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _usage(recorded: Recorded) -> Usage | None:
    if recorded.input_tokens is None or recorded.output_tokens is None:
        return None
    return usage_of(recorded.input_tokens, recorded.output_tokens)
