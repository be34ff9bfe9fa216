"""The ONNX encoder runs a real graph: its vectors are those of the same layer in numpy, text by text."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.corpora import ODD_TEXTS, as_queries, real_queries
from tests.features.tiny_encoders import NUM_FEATURES, Attention, train_tokenizer
from turnout.checks import check_embedder, run
from turnout.core import artifact
from turnout.core.errors import InputError, MissingExtraError
from turnout.features import OnnxEmbedder
from turnout.features.onnx import pool

MISSING = [n for n in ("onnxruntime", "tokenizers", "onnx") if importlib.util.find_spec(n) is None]
IS_INSTALLED = not {"onnxruntime", "tokenizers"} & set(MISSING)
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@dataclass
class Encoder:
    """A folder with a model, and what is in it."""

    folder: Path
    layer: Attention
    tokenizer: Any

    def expected(self, text: str, max_tokens: int = 256) -> np.ndarray:
        """Return the normalised mean of the layer's outputs over one text alone, shape (F,)."""
        mean_F = self.outputs(text, max_tokens).mean(axis=0)
        return mean_F / np.linalg.norm(mean_F)

    def outputs(self, text: str, max_tokens: int = 256) -> np.ndarray:
        """Return the layer's outputs over one text alone, shape (T, F); a long text keeps its last token."""
        ids = self.tokenizer.encode(text).ids
        return self.layer(ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("onnx")
    tokenizer = train_tokenizer([query.words for query in real_queries()])
    tokenizer.save(str(folder / "tokenizer.json"))
    layer = Attention.draw(tokenizer.get_vocab_size())
    layer.save(folder / "model.onnx")
    return Encoder(folder, layer, tokenizer)


@needs_onnx
def test_vectors_are_those_of_the_same_layer_in_numpy(encoder: Encoder) -> None:
    queries = real_queries(20)
    x_QF = OnnxEmbedder(folder=str(encoder.folder), batch_size=7).embed(queries)
    expected_QF = np.stack([encoder.expected(query.words) for query in queries])
    assert x_QF.shape == (20, NUM_FEATURES)
    assert x_QF.dtype == np.float32
    np.testing.assert_allclose(x_QF, expected_QF, atol=1e-5)


@needs_onnx
def test_a_batch_an_order_and_a_copy_change_nothing(encoder: Encoder) -> None:
    embedder, queries = OnnxEmbedder(folder=str(encoder.folder)), real_queries(30)
    batch_QF = embedder.embed(queries)
    single_QF = np.concatenate([embedder.embed([query]) for query in queries])
    np.testing.assert_allclose(batch_QF, single_QF, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(queries[::-1])[::-1], batch_QF, atol=1e-5)
    twice_QF = embedder.embed(as_queries(["two plus two", "something else entirely", "two plus two"]))
    assert twice_QF[0] @ twice_QF[2] == pytest.approx(1.0, abs=1e-6)
    assert twice_QF[0] @ twice_QF[1] < 0.99
    np.testing.assert_allclose(np.linalg.norm(batch_QF, axis=1), 1.0, atol=1e-5)


@needs_onnx
def test_it_keeps_the_promises_of_an_embedder(encoder: Encoder) -> None:
    report = run(check_embedder(OnnxEmbedder(folder=str(encoder.folder), max_tokens=64)))
    assert report.is_clean, str(report)


@needs_onnx
def test_saving_and_loading_gives_the_same_vectors(encoder: Encoder, tmp_path: Path) -> None:
    embedder = OnnxEmbedder(folder=str(encoder.folder), pooling="first", max_tokens=16)
    again = artifact.load(artifact.save(embedder, tmp_path / "saved"))
    assert isinstance(again, OnnxEmbedder)
    assert again.config() == embedder.config()
    np.testing.assert_array_equal(again.embed(real_queries(10)), embedder.embed(real_queries(10)))


@needs_onnx
def test_settings_change_what_they_say(encoder: Encoder) -> None:
    queries = real_queries(10)
    first_QF = OnnxEmbedder(folder=str(encoder.folder), pooling="first").embed(queries)
    firsts = [encoder.outputs(query.words)[0] for query in queries]
    np.testing.assert_allclose(first_QF, [row / np.linalg.norm(row) for row in firsts], atol=1e-5)
    short_QF = OnnxEmbedder(folder=str(encoder.folder), max_tokens=5).embed(queries)
    expected_QF = np.stack([encoder.expected(query.words, 5) for query in queries])
    np.testing.assert_allclose(short_QF, expected_QF, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize("is_framed", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_odd_texts_and_no_texts_have_vectors(
    encoder: Encoder, tmp_path: Path, pooling: Any, is_framed: bool
) -> None:
    train_tokenizer(["plus two"], is_framed=is_framed).save(str(tmp_path / "tokenizer.json"))
    encoder.layer.save(tmp_path / "model.onnx", inputs=("input_ids", "attention_mask", "token_type_ids"))
    embedder = OnnxEmbedder(folder=str(tmp_path), pooling=pooling, max_tokens=32, batch_size=1)
    for texts in (ODD_TEXTS, ("",)):
        x_QF = embedder.embed(as_queries(texts))
        assert x_QF.shape == (len(texts), NUM_FEATURES)
        assert np.isfinite(x_QF).all()
    assert embedder.embed([]).shape == (0, NUM_FEATURES)
    if not is_framed:
        assert not embedder.embed(as_queries([""])).any(), "a text without a token is 0"


@pytest.mark.skipif(IS_INSTALLED, reason="the extra `onnx` is installed")
def test_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"turnout\[onnx\]"):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))


@needs_onnx
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_missing_and_a_damaged_file_are_named(encoder: Encoder, tmp_path: Path, name: str) -> None:
    for path in encoder.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(b"{no such thing")
    with pytest.raises(
        InputError, match=rf"{name}' cannot be read; allowed: .*; got: .*; export or download"
    ):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=rf"lacks {name}; allowed: a folder with model\.onnx and tokenizer"):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))


@needs_onnx
def test_a_model_that_asks_for_more_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    encoder.tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder.layer.save(tmp_path / "model.onnx", inputs=("input_ids", "attention_mask", "pixel_values"))
    with pytest.raises(
        InputError, match=r"allowed: input_ids, attention_mask, token_type_ids; got: \['pixel"
    ):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))


def test_mean_pooling_leaves_the_padding_out() -> None:
    output = np.array([[[1.0, 0.0], [3.0, 2.0], [99.0, 99.0]]], np.float32)
    mask_QT = np.array([[1, 1, 0]])
    np.testing.assert_allclose(pool(output, mask_QT, "mean"), [[2.0, 1.0]])
    np.testing.assert_allclose(pool(output, mask_QT, "first"), [[1.0, 0.0]])
    np.testing.assert_allclose(pool(output[:, 0], mask_QT, "mean"), [[1.0, 0.0]])


def test_an_output_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"allowed: \(Q, tokens, F\) or \(Q, F\); got: \(3,\)"):
        pool(np.zeros(3, np.float32), np.ones((3, 1)), "mean")
