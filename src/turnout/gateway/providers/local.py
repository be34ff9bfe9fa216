"""This module serves a model that runs in this process: each of its variants is a candidate of the pool.

The model itself lives in the room `nn`, behind the contract of `core.generation`; it is loaded by name when
the gateway starts, so a gateway without a local model needs no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import final

from turnout.core.candidate import Candidate
from turnout.core.errors import ConfigError, InputError, MissingExtraError, sentence
from turnout.core.generation import EngineFullError, Event, Failed, Finished, Generation, LocalServer, Ticket
from turnout.core.registry import find_registry
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Call, Chunks, Fault, Provider, Reply
from turnout.gateway.providers.local_request import CODE, LocalRequest
from turnout.gateway.providers.written import ChatEvents, Usage, usage_of, whole_reply
from turnout.gateway.settings_providers import LocalSettings
from turnout.gateway.wire import CHARS_PER_TOKEN


@final
class LocalProvider(Provider):
    """Asks a local model.

    Parameters
    ----------
    name:
        The provider's name in the configuration.
    settings:
        The model's folder and its limits.
    """

    def __init__(self, *, name: str, settings: LocalSettings) -> None:
        super().__init__(name=name)
        self.settings = settings
        self._server: LocalServer | None = None

    def model_name(self, candidate: Candidate) -> str:
        """Return the candidate's own name, which is the name of its variant."""
        return candidate.name

    @property
    def models(self) -> Collection[str] | None:
        """The names of its variants, once it is started."""
        return None if self._server is None else self._server.variants

    async def start(self) -> None:
        """Load the model; raises `ConfigError` where the folder or the extra is missing."""
        self._server = await asyncio.to_thread(self._load)

    async def close(self) -> None:
        """Fail what still runs, and let the model go."""
        if self._server is not None:
            await asyncio.to_thread(self._server.close)

    async def ask(self, call: Call) -> Reply:
        """Return the answer, or a stream whose first text has come; raises `Fault`."""
        answer = _Answer(self._submit, call)
        try:
            first = await answer.next()
            if call.request.is_stream:
                events = ChatEvents(call)
                return Reply(status=200, headers=events.headers, chunks=_Written(answer, events, first))
            texts = []
            while not isinstance(first, Finished):
                texts.append(first)
                first = await answer.next()
            return whole_reply(call, "".join(texts), finish=first.reason, usage=_usage(first))
        except BaseException:
            # Whoever does not want the answer any more (a client that left) frees the model's time.
            answer.cancel()
            raise

    def _load(self) -> LocalServer:
        try:
            cls = find_registry("nn").get("local")
        except ImportError as error:
            raise MissingExtraError(
                sentence(
                    f"the provider {self.name!r} runs a model in this process",
                    allowed="an installation with the extra 'nn'",
                    got=str(error),
                    do="pip install 'turnout[nn]'",
                )
            ) from error
        settings = self.settings
        try:
            server: LocalServer = cls.load(  # type: ignore[attr-defined]
                settings.folder,
                max_batch=settings.max_batch,
                max_waiting=settings.max_waiting,
                max_running=settings.max_running,
                threads=settings.threads,
            )
        except ValueError as error:
            raise ConfigError(f"the provider {self.name!r} cannot start; {error}") from error
        return server

    def _submit(self, call: Call, answer: _Answer) -> Ticket:
        assert self._server is not None  # `start` ran before any request
        asked = LocalRequest(call, self.settings)
        generation = Generation(
            prompt=self._server.prompt(asked.messages),
            variant=call.model,
            max_new_tokens=asked.max_new_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            stop=asked.stop,
        )
        return self._server.submit(generation, answer.hear)


class _Answer:
    """Brings the events of the model's thread to the event loop."""

    def __init__(self, submit: Callable[[Call, _Answer], Ticket], call: Call) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._work = call.work
        self._chars = self._pieces = 0
        try:
            self._ticket = submit(call, self)
            self._work.output_tokens = 0
        except EngineFullError as error:
            raise Fault(
                _error(503, str(error), "local_queue_full"), is_failure=False, may_retry=True
            ) from error
        except InputError as error:
            message = f"{error}; change the messages, or name another model"
            raise Fault(_error(400, message, CODE), is_failure=False) from error

    def hear(self, event: Event) -> None:
        """Take an event in the model's thread."""
        # A loop that is closed has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self) -> str | Finished:
        """Return some more text, or how the answer ended; raises `Fault`."""
        event = await self._events.get()
        if isinstance(event, Failed):
            raise Fault(_error(502, event.message, "local_model_failed"))
        if isinstance(event, Finished):
            return event
        # A piece is about one token; text that was held back comes in longer ones.
        self._pieces, self._chars = self._pieces + 1, self._chars + len(event.text)
        self._work.output_tokens = max(self._pieces, -(-self._chars // CHARS_PER_TOKEN))
        return event.text

    def cancel(self) -> None:
        """Want no more."""
        self._ticket.cancel()


@final
class _Written(Chunks):
    """The stream of one answer."""

    def __init__(self, answer: _Answer, events: ChatEvents, first: str | Finished) -> None:
        self._answer = answer
        self._events = events
        self._next: str | Finished | None = first
        self._begun = False
        self._is_over = False

    async def read(self) -> bytes:
        """Return the next events; nothing after the end."""
        if self._is_over:
            return b""
        item = await self._answer.next() if self._next is None else self._next
        self._next = None
        head = b"" if self._begun else self._events.begin()
        self._begun = True
        if isinstance(item, Finished):
            self._is_over = True
            return head + self._events.end(item.reason, _usage(item))
        return head + self._events.piece(item)

    def close(self) -> None:
        """Stop; the model's time goes to others."""
        self._is_over = True
        self._answer.cancel()


def _usage(finished: Finished) -> Usage:
    return usage_of(finished.input_tokens, finished.output_tokens)


def _error(status: int, message: str, code: str) -> ApiError:
    if status < 500:
        return ApiError(status, message, code=code, param="messages")
    headers = [(b"retry-after", b"1")] if status == 503 else []
    return ApiError(status, message, code=code, kind="server_error", headers=headers)
