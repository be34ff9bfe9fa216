"""The sentence encoder runs a real model of its package: the vectors are those of the bare network."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.features.corpora import ODD_TEXTS, as_queries, real_queries
from tests.features.tiny_encoders import NUM_FEATURES, save_sentence_model
from turnout.core import artifact
from turnout.core.errors import InputError, MissingExtraError
from turnout.features import SentenceEmbedder

IS_INSTALLED = importlib.util.find_spec("sentence_transformers") is not None


def needs_package(test: object) -> object:
    """Mark a test that runs the package: importing it alone takes seconds."""
    return pytest.mark.slow(
        pytest.mark.skipif(not IS_INSTALLED, reason="not installed: sentence-transformers")(test)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        path = tmp_path_factory.mktemp("sentence") / "model"
        yield save_sentence_model(path, [query.words for query in real_queries()])
    torch.set_num_threads(before)


def expected(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Return the normalised mean of the network's outputs over each text alone, shape (Q, F)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for text in texts:
            inputs = tokenizer(text, truncation=True, return_tensors="pt")
            rows.append(network(**inputs).last_hidden_state[0].mean(dim=0).numpy())
    return np.stack([row / np.linalg.norm(row) for row in rows])


@needs_package
def test_vectors_are_those_of_the_network(folder: Path) -> None:
    queries = real_queries(12)
    x_QF = SentenceEmbedder(model=str(folder), device="cpu", batch_size=5).embed(queries)
    assert x_QF.shape == (12, NUM_FEATURES)
    assert x_QF.dtype == np.float32
    np.testing.assert_allclose(x_QF, expected(folder, [query.words for query in queries]), atol=1e-4)


@needs_package
def test_a_batch_an_order_and_a_copy_change_nothing(folder: Path) -> None:
    embedder, queries = SentenceEmbedder(model=str(folder), device="cpu"), real_queries(20)
    batch_QF = embedder.embed(queries)
    single_QF = np.concatenate([embedder.embed([query]) for query in queries])
    np.testing.assert_allclose(batch_QF, single_QF, atol=1e-4)
    np.testing.assert_allclose(embedder.embed(queries[::-1])[::-1], batch_QF, atol=1e-4)
    twice_QF = embedder.embed(as_queries(["two plus two", "something else entirely", "two plus two"]))
    assert twice_QF[0] @ twice_QF[2] == pytest.approx(1.0, abs=1e-5)
    # The order of a trained vocabulary differs from run to run, and any one pair may come out near.
    assert (batch_QF @ batch_QF.T).min() < 0.99
    np.testing.assert_allclose(np.linalg.norm(batch_QF, axis=1), 1.0, atol=1e-5)


@needs_package
def test_it_keeps_the_promises_of_an_embedder(folder: Path) -> None:
    from turnout.checks import check_embedder, run

    # Another process would import the package three times more; loading is tested below.
    checks = [check for check in check_embedder(SentenceEmbedder(model=str(folder))) if not check.is_slow]
    report = run(checks)
    assert report.is_clean, str(report)


@needs_package
def test_saving_and_loading_gives_the_same_vectors(folder: Path, tmp_path: Path) -> None:
    embedder = SentenceEmbedder(model=str(folder), device="cpu", max_chars=50)
    again = artifact.load(artifact.save(embedder, tmp_path / "saved"))
    assert isinstance(again, SentenceEmbedder)
    assert again.config() == embedder.config()
    np.testing.assert_array_equal(again.embed(real_queries(10)), embedder.embed(real_queries(10)))


@needs_package
def test_odd_texts_and_no_texts_have_vectors(folder: Path) -> None:
    embedder = SentenceEmbedder(model=str(folder), device="cpu")
    x_QF = embedder.embed(as_queries(ODD_TEXTS))
    assert x_QF.shape == (len(ODD_TEXTS), NUM_FEATURES)
    assert np.isfinite(x_QF).all()
    assert embedder.embed([]).shape == (0, NUM_FEATURES)


@needs_package
def test_what_cannot_be_loaded_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "model.safetensors").write_bytes(b"junk")
    for model, device in ((str(tmp_path / "no"), "cpu"), (str(damaged), "cpu"), (str(folder), "abacus")):
        with pytest.raises(InputError, match=r"cannot be loaded; allowed: .*; got: .*; check the name"):
            SentenceEmbedder(model=model, device=device).embed(as_queries(["one"]))


@pytest.mark.skipif(IS_INSTALLED, reason="the extra `sentence` is installed")
def test_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"turnout\[sentence\]"):
        SentenceEmbedder().embed(as_queries(["one"]))


def test_nothing_is_loaded_before_it_is_asked() -> None:
    assert SentenceEmbedder(model="no/such-model").is_fitted
