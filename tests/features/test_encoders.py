"""The optional encoders say what they need, and pool what they get."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.features.corpora import as_queries
from turnout.core.errors import InputError, MissingExtraError
from turnout.features import OnnxEmbedder, SentenceEmbedder
from turnout.features.onnx import pool


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


@pytest.mark.skipif(has("sentence_transformers"), reason="the package is installed")
def test_the_sentence_encoder_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"turnout\[sentence\]"):
        SentenceEmbedder().embed(as_queries(["one"]))


@pytest.mark.skipif(has("onnxruntime", "tokenizers"), reason="the packages are installed")
def test_the_onnx_encoder_names_its_extra(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"turnout\[onnx\]"):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))


@pytest.mark.skipif(not has("onnxruntime", "tokenizers"), reason="the extra `onnx` is not installed")
def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.onnx"):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))


def test_mean_pooling_leaves_the_padding_out() -> None:
    output = np.array([[[1.0, 0.0], [3.0, 2.0], [99.0, 99.0]]], np.float32)
    mask_QT = np.array([[1, 1, 0]])
    np.testing.assert_allclose(pool(output, mask_QT, "mean"), [[2.0, 1.0]])
    np.testing.assert_allclose(pool(output, mask_QT, "first"), [[1.0, 0.0]])
    np.testing.assert_allclose(pool(output[:, 0], mask_QT, "mean"), [[1.0, 0.0]])
