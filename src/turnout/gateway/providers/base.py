"""This module states what a provider does: one call, one reply, or a fault that says what to do next."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.errors import ConfigError, ProviderError, did_you_mean, sentence
from turnout.gateway.completion import Completion
from turnout.gateway.config import Config
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.wire import ChatRequest


@final
class Work(msgspec.Struct, kw_only=True, eq=False):
    """What a provider has done for a call so far, for a client that leaves before the answer."""

    output_tokens: int | None = None
    """Tokens that were generated, as far as one knows; None where the provider does not count along."""


@final
class Call(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One request for one candidate."""

    request: ChatRequest
    candidate: Candidate
    model: str
    """The upstream's name for the candidate."""
    decision_id: str
    protocol: str = "chat"
    """The API that the request is written in (`Protocol.name`); the reply is in it too."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What goes upstream besides the provider's own: the trace, and what rules send; names in lower case."""
    client_headers: Sequence[tuple[bytes, bytes]] = ()
    """What the client sent; a dialect picks what its API knows."""
    betas: tuple[tuple[bytes, bytes], ...] = ()
    """What of it asks for betas of OpenAI's."""
    deadline_s: float = math.inf
    """When something of an answer must be there, by the event loop's clock."""
    takes_usage: bool = True
    """Whether the upstream may be asked for the usage of a stream; not once it has refused to be."""
    work: Work = msgspec.field(default_factory=Work)
    """Filled by the provider while it works."""


@final
class KeptCall(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One request about what an upstream keeps: responses and conversations of OpenAI's."""

    method: str
    kind: str
    """`responses` or `conversations`, as the settings' `apis` name them."""
    path: str = ""
    """What follows the kind in the path, escaped: nothing, or an id and what comes after it."""
    query: str = ""
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What rules send upstream besides the provider's own; names in lower case."""


Wait = Callable[[], Awaitable[None]]
TakeIn = Callable[[bytes], Wait | None]
"""Takes a block of a stream; returns what is to be waited for before the next one, or None."""


class Chunks(ABC):
    """Bytes of a stream as they arrive."""

    @property
    def reported(self) -> Mapping[str, Any]:
        """What the upstream has told of its usage, in chat's words, and the stream does not say yet."""
        return {}

    @abstractmethod
    async def read(self) -> bytes:
        """Return what has arrived, at least one byte, or nothing at the end; raises `Fault` when cut."""

    async def pour(self, take_in: TakeIn) -> None:
        """Have every block taken, to the end; raises `Fault` when cut, and what `take_in` raises."""
        while block := await self.read():
            if (wait := take_in(block)) is not None:
                await wait()

    @abstractmethod
    def close(self) -> None:
        """Stop; an upstream that is still sending sees its connection closed. May be called twice."""


@final
class Reply(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What came back: a whole body, or chunks that arrive."""

    status: int
    headers: Headers = msgspec.field(default_factory=list)
    body: bytes = b""
    chunks: Chunks | None = None
    """Server-sent events as they arrive, instead of a body; the first ones have arrived."""
    completion: Completion | None = None
    """What a body of chat says, where somebody has read it already."""


class Fault(ProviderError):
    """An upstream did not answer as it should.

    Parameters
    ----------
    error:
        What the client is told if nobody else answers either.
    may_fall_back:
        Whether the next ranked candidate may be asked instead.
    may_retry:
        Whether the same candidate may be asked once more, after a wait.
    is_failure:
        Whether the upstream failed, which its breaker counts; a question that it cannot answer is none.
    is_limit:
        Whether the upstream asks for a rest rather than being broken.
    retry_after_s:
        For how long, where it says so.
    is_charge_unknown:
        Whether the upstream may have charged for what it did not deliver.
    """

    def __init__(
        self,
        error: ApiError,
        *,
        may_fall_back: bool = True,
        may_retry: bool = False,
        is_failure: bool = True,
        is_limit: bool = False,
        retry_after_s: float | None = None,
        is_charge_unknown: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.may_fall_back = may_fall_back
        self.may_retry = may_retry
        self.is_failure = is_failure
        self.is_limit = is_limit
        self.retry_after_s = retry_after_s
        self.is_charge_unknown = is_charge_unknown


def cut(name: str, error: Exception, *, may_fall_back: bool) -> Fault:
    """Return the fault of an upstream that stopped in the middle of its answer."""
    message = sentence(
        f"the upstream {name!r} stopped in the middle of its answer",
        allowed="an answer that comes to its end",
        got=type(error).__name__,
        do="what was received is incomplete; ask again",
    )
    return Fault(
        ApiError(502, message, code="upstream_cut", kind="upstream_error"),
        may_fall_back=may_fall_back,
        is_charge_unknown=True,
    )


class Provider(ABC):
    """Answers calls."""

    speaks: frozenset[str] = frozenset({"chat"})
    """The APIs (`Protocol.name`) that a call may come in; every provider speaks `chat`."""

    lists_cache_writes: bool = False
    """Whether writes to its prompt cache cost what Anthropic's price list says (`cache_prices`)."""

    is_replay: ClassVar[bool] = False
    """Whether replies come from a recording: nothing is spent, and usage is an estimate."""

    def __init__(self, *, name: str) -> None:
        self.name = name

    def lists_cache_reads(self, model: str) -> bool:
        """Whether what a model reads from the prompt cache costs what that list says, too."""
        return False

    def keeps(self, kind: str) -> bool:
        """Whether it keeps responses or conversations of OpenAI's, for which `ask_kept` asks."""
        return False

    async def ask_kept(self, call: KeptCall) -> Reply:
        """Ask about what is kept; whatever the upstream says is the reply. Raises `Fault`."""
        raise RuntimeError(f"provider {self.name!r} keeps no {call.kind}")

    @abstractmethod
    async def ask(self, call: Call) -> Reply:
        """Return the reply (any status that is the client's business); raises `Fault`."""

    def model_name(self, candidate: Candidate) -> str:
        """Return the upstream's name for a candidate that the configuration gives no other name."""
        return candidate.model

    @property
    def models(self) -> Collection[str] | None:
        """Upstream names that it can be asked for, once it is started; None where it does not know them."""
        return None

    async def start(self) -> None:
        """Open what needs a running event loop."""
        return

    async def close(self) -> None:
        """Close what `start` opened."""
        return


def unrouted_of(config: Config, pool: Collection[str] = ()) -> dict[str, Candidate]:
    """Return the models that are served and never chosen, by name: those that are not in `pool`."""
    return {
        name: Candidate(model=name, price_card=own.price_card)
        for name, own in config.models.items()
        if name not in pool
    }


Place = tuple[Provider, str]
"""Who serves a candidate, and under which name."""


def check_places(places: Mapping[str, Place]) -> None:
    """Raise `ConfigError` for a candidate whose name upstream a started provider does not know."""
    for name, (provider, model) in places.items():
        known = provider.models
        if known is not None and model not in known:
            raise ConfigError(
                sentence(
                    f"the candidate {name!r} has no model at the provider {provider.name!r}",
                    allowed=f"as 'candidates.{name}.model', a variant that providers.{provider.name} has",
                    got=model,
                    do=did_you_mean(model, known),
                )
            )


def places_of(
    config: Config, candidates: Iterable[Candidate], providers: Mapping[str, Provider]
) -> dict[str, Place]:
    """Return who serves each candidate, by candidate name."""
    places: dict[str, Place] = {}
    for candidate in candidates:
        provider = providers[config.provider_of(candidate.name)]
        own = config.own_of(candidate.name)
        model = None if own is None else own.model
        places[candidate.name] = provider, provider.model_name(candidate) if model is None else model
    return places
