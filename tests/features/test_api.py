"""The API embedder speaks through the real `openai` client to a real server on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openai
import pytest

from tests.features.corpora import as_queries
from tests.features.embedding_server import EmbeddingServer, embedding_server, vector
from turnout.core import artifact
from turnout.core.errors import InputError, ProviderError
from turnout.features import ApiEmbedder


@contextmanager
def client_of(server: EmbeddingServer) -> Iterator[openai.OpenAI]:
    host, port = server.server_address[:2]
    with openai.OpenAI(base_url=f"http://{host!s}:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_vectors_come_back_in_order_and_normalised() -> None:
    texts = ["one", "two", "three", "four", "five"]
    with embedding_server() as server, client_of(server) as client:
        embedder = ApiEmbedder(model="tiny", client=client, batch_size=2)
        x_QF = embedder.embed(as_queries(texts))
        assert [len(batch) for batch in server.batches] == [2, 2, 1]
        assert embedder.embed([]).shape[0] == 0
    expected = np.array([vector(text) for text in texts])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(x_QF, expected, atol=1e-6)


def test_a_failing_server_is_asked_again_and_then_given_up() -> None:
    with embedding_server(num_failures=2) as server, client_of(server) as client:
        patient = ApiEmbedder(model="tiny", client=client, num_retries=2, wait_s=0.0)
        assert patient.embed(as_queries(["one"])).shape == (1, 5)
    with embedding_server(num_failures=9) as server, client_of(server) as client:
        hasty = ApiEmbedder(model="tiny", client=client, num_retries=1, wait_s=0.0)
        with pytest.raises(ProviderError, match="failed 2 times"):
            hasty.embed(as_queries(["one"]))
        assert len(server.batches) == 2


def test_an_answer_with_too_few_vectors_is_refused() -> None:
    with embedding_server(num_dropped=1) as server, client_of(server) as client:
        embedder = ApiEmbedder(model="tiny", client=client, num_retries=0)
        with pytest.raises(ProviderError, match="2 vectors"):
            embedder.embed(as_queries(["one", "two"]))


def test_none_text_and_lone_surrogates_can_be_sent() -> None:
    with embedding_server() as server, client_of(server) as client:
        x_QF = ApiEmbedder(model="tiny", client=client).embed(as_queries([None, "\ud800"]))
        assert np.isfinite(x_QF).all()
        assert server.batches == [[" ", "?"]]


def test_the_client_is_injected_and_never_saved(tmp_path: Path) -> None:
    with embedding_server() as server, client_of(server) as client:
        artifact.save(ApiEmbedder(model="tiny", client=client, batch_size=3), tmp_path)
        loaded = artifact.load(tmp_path)
        assert isinstance(loaded, ApiEmbedder)
        with pytest.raises(InputError, match="has no client"):
            loaded.embed(as_queries(["one"]))
        loaded.client = client
        assert loaded.embed(as_queries(["one"])).shape == (1, 5)
