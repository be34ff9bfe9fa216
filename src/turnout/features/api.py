"""This module embeds text through an embedding API, with a client that the caller brings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, final

import numpy as np

from turnout.core.contracts import Embedder
from turnout.core.errors import InputError, ProviderError, sentence
from turnout.core.query import Query
from turnout.core.validation import check_count, check_number
from turnout.features.sparse import Array
from turnout.features.tokens import clip


class EmbeddingClient(Protocol):
    """What is asked of a client: the `openai` client has it, and so has anything that looks like it."""

    @property
    def embeddings(self) -> Any:
        """The resource whose `create(model=..., input=[...])` returns `.data[i].embedding`."""


@final
class ApiEmbedder(Embedder):
    """Embed text by calling `client.embeddings.create`; learns nothing.

    The client carries address, key and timeouts; it is not part of the configuration and is not saved.
    After loading, give it again: `embedder.client = client`.

    Parameters
    ----------
    model:
        Name of the embedding model, as the API knows it.
    client:
        An object with `.embeddings.create(model=..., input=[...])`, such as `openai.OpenAI(...)`.
    batch_size:
        Texts per request.
    num_retries:
        Further tries of a failed request, at least 0.
    wait_s:
        Seconds before the first further try; doubled each time.
    max_chars:
        At most so many characters of a prompt are sent, half from each end.

    Raises
    ------
    ProviderError
        If a request fails every time, or the answer has another number of vectors than texts.

    Shapes
    ------
    Output float32 of shape (Q, F) with rows of length 1.
    """

    def __init__(
        self,
        *,
        model: str,
        client: EmbeddingClient | None = None,
        batch_size: int = 128,
        num_retries: int = 2,
        wait_s: float = 0.5,
        max_chars: int = 8_000,
    ) -> None:
        if not model:
            raise InputError(
                sentence("ApiEmbedder.model", allowed="the name of a model", got=model, do="name one")
            )
        self.model = model
        self.client = client
        self.batch_size = check_count("ApiEmbedder.batch_size", batch_size)
        self.num_retries = check_count("ApiEmbedder.num_retries", num_retries, low=0)
        self.wait_s = check_number("ApiEmbedder.wait_s", wait_s, low=0.0)
        self.max_chars = check_count("ApiEmbedder.max_chars", max_chars)

    def config(self) -> dict[str, object]:
        """Return the settings without the client, which cannot be stored."""
        return {**super().config(), "client": None}

    def clone(self) -> Self:
        """Return the same settings with the same client."""
        return type(self)(**{**self.config(), "client": self.client})  # type: ignore[arg-type]

    def fit(self, queries: Sequence[Query]) -> Self:
        """Return self: nothing is learned."""
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the API's vectors, normalised, float32 of shape (Q, F)."""
        # An API refuses an empty input; a space asks for the same without being one.
        texts = [
            clip(query.words, self.max_chars).encode("utf-8", "replace").decode() or " " for query in queries
        ]
        if not texts:
            return np.zeros((0, 0), np.float32)
        rows = [
            row
            for low in range(0, len(texts), self.batch_size)
            for row in self._ask(texts[low : low + self.batch_size])
        ]
        x_QF = np.array(rows, np.float32)
        return np.asarray(x_QF / np.maximum(np.linalg.norm(x_QF, axis=1, keepdims=True), 1e-12), np.float32)

    def _ask(self, texts: list[str]) -> list[list[float]]:
        if self.client is None:
            raise InputError(
                sentence(
                    "ApiEmbedder has no client",
                    allowed="an object with .embeddings.create(model=..., input=[...])",
                    do="set `embedder.client`, for example to openai.OpenAI(base_url=..., api_key=...)",
                )
            )
        create: Callable[..., Any] = self.client.embeddings.create
        num_failed = 0
        while True:
            try:
                # Floats, since base64 is the openai client's default and not every server speaks it.
                return _vectors(create(model=self.model, input=texts, encoding_format="float"), len(texts))
            except Exception as error:  # An edge: every client has errors of its own.
                num_failed += 1
                if num_failed > self.num_retries:
                    raise ProviderError(
                        sentence(
                            f"the embedding model {self.model!r} failed {num_failed} times",
                            allowed=f"{len(texts)} vectors",
                            got=f"{type(error).__name__}: {error}",
                            do="check the client's address, key and model",
                        )
                    ) from error
            time.sleep(self.wait_s * 2.0 ** (num_failed - 1))


def _vectors(answer: Any, num_texts: int) -> list[list[float]]:
    items = sorted(answer.data, key=lambda item: int(item.index))
    if [int(item.index) for item in items] != list(range(num_texts)):
        raise ProviderError(
            sentence(
                "an embedding answer has not one vector for each text",
                allowed=f"{num_texts} vectors",
                got=len(items),
                do="check the embedding server",
            )
        )
    return [list(item.embedding) for item in items]
